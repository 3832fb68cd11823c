package trace_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/volcano-sh/agentcube/internal/trace"
)

const (
	id    = "0af7651916cd43dd8448eb211c80319c"
	valid = "00-" + id + "-b7ad6b7169203331-01"
)

func TestParse(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{valid, valid},
		{"00-" + id + "-b7ad6b7169203331-00", "00-" + id + "-b7ad6b7169203331-00"},
		{"00-" + id + "-b7ad6b7169203331-ff", valid}, // of the flags one is known
		{"01-" + id + "-b7ad6b7169203331-01", valid}, // a later version begins alike
		{"ff-" + id + "-b7ad6b7169203331-01", ""},
		{"00-" + strings.Repeat("0", 32) + "-b7ad6b7169203331-01", ""},
		{"00-" + id + "-0000000000000000-01", ""},
		{"00-" + strings.ToUpper(id) + "-b7ad6b7169203331-01", ""},
		{"00_" + id + "-b7ad6b7169203331-01", ""},
		{"00-" + id + "_b7ad6b7169203331-01", ""},
		{"00-" + id + "-b7ad6b7169203331_01", ""},
		{valid + "-more", ""},
		{valid + "\n", ""},
		{" " + valid, ""},
		{valid[1:], ""},
		{"", ""},
		{"00-" + id[:31] + "\x00-b7ad6b7169203331-01", ""},
		{"0g-" + id + "-b7ad6b7169203331-01", ""},
		{"00-" + id + "-b7ad6b7169203331-0g", ""},
	} {
		p, ok := trace.Parse(test.text)
		if ok != (test.want != "") || p.String() != test.want || p.Valid() != ok {
			t.Errorf("Parse(%q) = %q, %v, want %q", test.text, p, ok, test.want)
		}
		if ok && p.ID() != id {
			t.Errorf("the id of %q is %q", test.text, p.ID())
		}
	}
}

// FuzzParse: what is taken is 55 bytes of a fixed alphabet, whatever was sent, and is
// read again as the same.
func FuzzParse(f *testing.F) {
	for _, text := range []string{valid, "", "ff-" + id + "-b7ad6b7169203331-01", strings.Repeat("-", 55)} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, ok := trace.Parse(text)
		out := p.String()
		if !ok {
			if out != "" {
				t.Errorf("%q is refused, and is %q", text, out)
			}
			return
		}
		again, ok := trace.Parse(out)
		if len(out) != 55 || strings.Trim(out, "0123456789abcdef-") != "" || !ok || again != p || out[3:52] != text[3:52] {
			t.Errorf("%q became %q", text, out)
		}
	})
}

func TestFrom(t *testing.T) {
	if p := trace.From(http.Header{"Traceparent": {valid}}); p.String() != valid {
		t.Errorf("one header is read as %q", p)
	}
	for _, values := range [][]string{nil, {"odd"}, {valid, valid}} {
		if p := trace.From(http.Header{"Traceparent": values}); p.Valid() {
			t.Errorf("%q is read as %q", values, p)
		}
	}
}

// TestWithoutTracer: what a request is part of is known, and passed on, also where
// nobody records it.
func TestWithoutTracer(t *testing.T) {
	parent, _ := trace.Parse(valid)
	ctx, span := trace.Serve(t.Context(), nil, "request", parent)
	ctx, inner := trace.Start(ctx, "step", trace.Inside)
	inner.Note("a", "b")
	inner.End("failed")
	span.End("")
	if trace.Of(ctx) != parent || span.Parent() != parent {
		t.Errorf("within it is %q, and the span %q", trace.Of(ctx), span.Parent())
	}
	later := trace.Carry(context.Background(), ctx)
	h := http.Header{"Traceparent": {"old", "older"}}
	trace.Inject(later, h)
	if got := h.Values("Traceparent"); len(got) != 1 || got[0] != valid {
		t.Errorf("passed on is %q", got)
	}
	trace.Inject(trace.Carry(t.Context(), context.Background()), h)
	if got := h.Values("Traceparent"); len(got) != 0 {
		t.Errorf("without a step %q is passed on", got)
	}
}
