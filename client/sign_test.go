package client

import (
	"net/url"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"github.com/volcano-sh/agentcube/api"
)

// TestTargetIsSigned: what the key signs of a request is the path and query that are
// sent, as the sandbox sees them, and the session. So nobody can send it elsewhere.
func TestTargetIsSigned(t *testing.T) {
	srv := serve(t, reply(200, created), reply(200, `{"files":[]}`), reply(200, "content"), reply(200, `{"exit_code":0}`))
	c := connect(t, Config{BaseURL: srv.URL})
	s, err := c.CreateSession(t.Context(), CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.ListFiles(t.Context(), "a b/ü?&c"); err != nil {
		t.Fatal(err)
	}
	r, _, err := s.Download(t.Context(), "a?path=/etc")
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	if _, err := s.Execute(t.Context(), ExecRequest{Command: []string{"true"}}); err != nil {
		t.Fatal(err)
	}
	targets := map[string]bool{}
	for i := 1; i < 4; i++ {
		sent := srv.request(i)
		u, err := url.ParseRequestURI(sent.uri)
		if err != nil {
			t.Fatal(err)
		}
		_, inside, _ := strings.Cut(u.Path, "/invocations")
		claims := jwt.MapClaims{}
		if _, _, err := jwt.NewParser().ParseUnverified(strings.TrimPrefix(sent.header.Get("Authorization"), "Bearer "), claims); err != nil {
			t.Fatal(err)
		}
		want := api.RequestTarget(inside, u.RawQuery)
		if claims["htu"] != want || claims["htm"] != sent.method || claims["sid"] != s.ID {
			t.Errorf("%s %s is signed as %v %v of %v", sent.method, sent.uri, claims["htm"], claims["htu"], claims["sid"])
		}
		targets[want] = true
	}
	if len(targets) != 3 || !targets["/api/files?path=a+b%2F%C3%BC%3F%26c"] || !targets["/api/files/a%3Fpath%3D/etc"] {
		t.Errorf("targets %v", targets)
	}
}
