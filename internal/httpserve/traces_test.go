package httpserve_test

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/httpserve"
	"github.com/volcano-sh/agentcube/internal/trace"
)

const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

// TestTraceOfClient: without a tracer the trace that a client names is in the answer and
// in the log, and goes on; of what is malformed nothing does.
func TestTraceOfClient(t *testing.T) {
	for _, test := range []struct {
		sent []string
		want string
	}{
		{[]string{parent}, parent},
		{nil, ""},
		{[]string{"00-evil\nline"}, ""},
		{[]string{parent, parent}, ""},
	} {
		var log bytes.Buffer
		var passed, state []string
		h := httpserve.Middleware{Logger: slog.New(slog.NewTextHandler(&log, nil))}.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			passed, state = r.Header.Values("Traceparent"), r.Header.Values("Tracestate")
			if got := trace.Of(r.Context()).String(); got != test.want {
				t.Errorf("with %q the handler is in %q", test.sent, got)
			}
			httpserve.WriteError(w, r, api.Errorf(http.StatusInternalServerError, api.CodeInternal, "odd"))
		}))
		r := httptest.NewRequest("GET", "http://localhost/", nil)
		r.Header["Traceparent"], r.Header["Tracestate"] = test.sent, []string{"a=b"}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		id := ""
		if test.want != "" {
			id = test.want[3:35]
		}
		if strings.Join(passed, " ") != test.want || len(state) != 0 != (test.want != "") {
			t.Errorf("with %q what goes on is %q and %q", test.sent, passed, state)
		}
		if got := w.Header().Get(api.HeaderTraceID); got != id {
			t.Errorf("with %q the answer names %q", test.sent, got)
		}
		for line := range strings.Lines(log.String()) {
			if strings.Contains(line, "trace="+id) != (id != "") || strings.Contains(line, "evil") {
				t.Errorf("with %q the log has %s", test.sent, line)
			}
		}
	}
}

// TestObserve: what is told of a request is what became of it.
func TestObserve(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ok/{id}", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusAccepted) })
	mux.Handle("GET /fails", httpserve.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return httpserve.Overloaded() }))
	mux.HandleFunc("GET /panics", func(http.ResponseWriter, *http.Request) { panic("odd") })
	type told struct {
		pattern string
		status  int
		code    api.Code
	}
	for path, want := range map[string]told{
		"/ok/1":   {"GET /ok/{id}", http.StatusAccepted, ""},
		"/fails":  {"GET /fails", http.StatusTooManyRequests, api.CodeServerOverloaded},
		"/panics": {"GET /panics", http.StatusInternalServerError, api.CodeInternal},
		"/none":   {"", http.StatusNotFound, ""},
	} {
		var got []told
		m := httpserve.Middleware{Logger: slog.New(slog.DiscardHandler), Observe: func(r *http.Request) func(httpserve.Served) {
			return func(s httpserve.Served) { got = append(got, told{r.Pattern, s.Status, s.Code}) }
		}}
		m.Wrap(mux).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "http://localhost"+path, nil))
		if len(got) != 1 || got[0] != want {
			t.Errorf("of %s is told %+v, want %+v", path, got, want)
		}
	}
}
