package client

import (
	"context"
	"testing"
)

type stepKey struct{}

// TestTraceparent: each request is part of the step that the caller is in when it is
// made, if any.
func TestTraceparent(t *testing.T) {
	const step = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	srv := serve(t, reply(200, created), reply(200, `{"files":[]}`))
	c := connect(t, Config{BaseURL: srv.URL, Token: "tok", Traceparent: func(ctx context.Context) string {
		text, _ := ctx.Value(stepKey{}).(string)
		return text
	}})
	s, err := c.CreateSession(context.WithValue(t.Context(), stepKey{}, step), CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.ListFiles(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	if got := srv.request(0).header.Values("Traceparent"); len(got) != 1 || got[0] != step {
		t.Errorf("within a step %q is sent", got)
	}
	if got := srv.request(1).header.Values("Traceparent"); len(got) != 0 {
		t.Errorf("without a step %q is sent", got)
	}
}
