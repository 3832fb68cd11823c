package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/client"
)

// installation is an [Installation] that tests use.
type installation struct {
	Installation
	environ []string // of programs that find it by themselves
}

// at is the installation that a test of [Anywhere] uses.
func at(t *testing.T) *installation {
	t.Helper()
	top, _, _ := strings.Cut(t.Name(), "/")
	if !slices.Contains(Anywhere(), top) {
		t.Fatalf("%s is not in the list of tests that can be run anywhere", top)
	}
	return env.at
}

// installed reads what the tests are to use instead of a server of their own.
func installed(file string) (*installation, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	out := &installation{}
	if err := json.Unmarshal(raw, &out.Installation); err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	out.environ = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + env.dir, "TMPDIR=" + env.dir,
		"WORKLOAD_MANAGER_URL=" + out.Manager, "ROUTER_URL=" + out.Router, "API_TOKEN=" + out.Token,
	}
	return out, nil
}

// asInstallation is the server, for tests that need not know that it is one.
func (s *server) asInstallation() (*installation, error) {
	c, err := client.New(client.Config{BaseURL: s.url, LocalToken: s.token})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	stranger, err := c.CreateToken(ctx, "stranger", client.TokenOptions{})
	if err != nil {
		return nil, err
	}
	return &installation{
		Installation: Installation{Manager: s.url, Router: s.url, Token: s.token, Stranger: stranger.Token, Isolation: "gvisor", Sleeps: true},
		environ:      s.environ("WORKLOAD_MANAGER_URL="+s.url, "ROUTER_URL="+s.url),
	}, nil
}

// client connects as who uses the installation.
func (i *installation) client(t *testing.T) *client.Client {
	t.Helper()
	c, err := client.New(client.Config{WorkloadManagerURL: i.Manager, RouterURL: i.Router, Token: i.Token})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// router is the address of the Router, host:port.
func (i *installation) router(t *testing.T) string {
	t.Helper()
	u, err := url.Parse(i.Router)
	if err != nil {
		t.Fatal(err)
	}
	return u.Host
}

// url is where a path is: on the data plane when it is that of a template.
func (i *installation) url(path string) string {
	if strings.HasPrefix(path, "/v1/namespaces/") {
		return i.Router + path
	}
	return i.Manager + path
}

// pause puts a session to sleep, or is refused where none sleeps.
func (i *installation) pause(t *testing.T, s *client.Session) {
	t.Helper()
	i.wantSleep(t, s.Pause(t.Context()))
}

// wantSleep checks what became of a request that only sessions which can sleep allow,
// and reports whether it was granted.
func (i *installation) wantSleep(t *testing.T, err error) bool {
	t.Helper()
	if i.Sleeps {
		if err != nil {
			t.Fatal(err)
		}
		return true
	}
	var refused *client.APIError
	if !errors.As(err, &refused) || refused.Status != 501 || refused.Code != api.CodeUnsupported {
		t.Fatalf("what cannot be done is answered with %v, want 501 NOT_SUPPORTED", err)
	}
	return false
}
