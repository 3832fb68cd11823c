package router_test

import (
	"net/http"
	"testing"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/session"
)

// TestAgentMethods: an agent's own server gets every plain request, with neither
// the caller's credentials nor any of the Router's.
func TestAgentMethods(t *testing.T) {
	t.Parallel()
	var got seen
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		got = seen{Method: r.Method, Path: r.URL.Path, Header: r.Header}
		rw.WriteHeader(http.StatusTeapot)
	}, nil)
	agent := w.add(func(s *session.Session) { s.Kind, s.Auth = api.KindAgentRuntime, api.AuthNone })
	const path = "/v1/namespaces/default/agent-runtimes/python/invocations/x"
	for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} {
		got = seen{}
		answer := w.do(method, path, "", "X-Agentcube-Session-Id", agent.ID, "Authorization", "alice")
		if answer.status != http.StatusTeapot || answer.header.Get("X-Agentcube-Session-Id") != agent.ID {
			t.Errorf("%s = %d %s, session %q", method, answer.status, answer.body, answer.header.Get("X-Agentcube-Session-Id"))
		}
		if got.Method != method || got.Path != "/x" || got.Header.Get("Authorization") != "" {
			t.Errorf("%s came as %s %s, Authorization %q", method, got.Method, got.Path, got.Header.Get("Authorization"))
		}
	}
	for _, method := range []string{"TRACE", "PURGE"} {
		if answer := w.do(method, path, "", "X-Agentcube-Session-Id", agent.ID, "Authorization", "alice"); answer.status != http.StatusNotFound {
			t.Errorf("%s = %d, want 404", method, answer.status)
		}
	}
}
