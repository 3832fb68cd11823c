package cli

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
)

// TestEach: an error keeps nothing else from being done, an interruption does; what was
// done is told in any case.
func TestEach(t *testing.T) {
	var out bytes.Buffer
	a := &app{Process: Process{Stdout: &out, Stderr: io.Discard}}
	ctx, interrupt := context.WithCancel(t.Context())
	var tried []string
	err := a.each(ctx, "do things", "done", []string{"one", "two", "three", "four"}, func(_ context.Context, name string) error {
		tried = append(tried, name)
		switch name {
		case "one":
			return errors.New("not one")
		case "three":
			interrupt()
		}
		return nil
	})
	if err == nil || err.Error() != "not one" {
		t.Errorf("each: %v", err)
	}
	if got := strings.Join(tried, " "); got != "one two three" {
		t.Errorf("was tried: %s", got)
	}
	if out.String() != "two\nthree\n" {
		t.Errorf("printed %q", out.String())
	}
}
