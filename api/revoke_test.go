package api_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/auth"
	"github.com/volcano-sh/agentcube/internal/sandbox"
)

// TestRevocationBreaksOff goes the whole way: what a token let in ends with it,
// while the other owner's, and what follows with another token, goes on.
func TestRevocationBreaksOff(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	e := &estate{t: t, root: "ac_" + strings.Repeat("x", 43)}
	e.handler = servePlanes(t, e.root, func(sandbox.Spec) map[uint16]http.Handler {
		return map[uint16]http.Handler{sandbox.AgentPort: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/stream" {
				agree(w, r)
				return
			}
			_, _ = io.WriteString(w, "begun")
			_ = http.NewResponseController(w).Flush()
			select {
			case <-release:
				_, _ = io.WriteString(w, ", ended")
			case <-r.Context().Done():
			}
		})}
	})
	srv := httptest.NewServer(e.handler)
	t.Cleanup(srv.Close)
	stream := func(token string) *http.Response {
		t.Helper()
		id := e.session(token)
		req, err := http.NewRequestWithContext(context.Background(), "GET", srv.URL+invoke+"stream", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		req.Header.Set(api.HeaderSessionID, id)
		resp, err := srv.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = resp.Body.Close() })
		if _, err := io.ReadFull(resp.Body, make([]byte, len("begun"))); err != nil || resp.StatusCode != 200 {
			t.Fatalf("stream = %d, %v", resp.StatusCode, err)
		}
		return resp
	}
	alice, bob := e.token("alice", auth.ScopeCreate|auth.ScopeUse), e.token("bob", auth.ScopeCreate|auth.ScopeUse)
	hers, his := stream(alice), stream(bob)
	var revoked api.Token
	e.must(e.root, "DELETE", "/v1/tokens/alice", "", &revoked)
	if text, err := io.ReadAll(hers.Body); err == nil {
		t.Errorf("after the revocation the stream ended with %q, as if it were whole", text)
	}
	if status, text := e.ask(alice, "GET", "/v1/sessions", ""); status != 401 || revoked.RevokedAt.IsZero() {
		t.Errorf("list with the revoked token = %d %s", status, text)
	}
	close(release)
	if text, err := io.ReadAll(his.Body); err != nil || string(text) != ", ended" {
		t.Errorf("the other owner's stream: %q, %v", text, err)
	}
	// Her session is there, for the administrator to end.
	var list api.SessionList
	if _, text := e.ask(e.root, "GET", "/v1/sessions?all=true&state=running", ""); json.Unmarshal([]byte(text), &list) != nil || len(list.Sessions) != 2 {
		t.Errorf("sessions: %s", text)
	}
}
