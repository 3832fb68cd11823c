package api_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/client"
	"github.com/volcano-sh/agentcube/internal/auth"
	"github.com/volcano-sh/agentcube/internal/picod"
	"github.com/volcano-sh/agentcube/internal/sandbox"
)

// TestBothPlanesWithRealAgent goes the whole way, with nothing left out but the
// isolation: client, Workload Manager, Router, and a PicoD per sandbox.
func TestBothPlanesWithRealAgent(t *testing.T) {
	t.Parallel()
	logger := slog.New(slog.DiscardHandler)
	agent := func(spec sandbox.Spec) map[uint16]http.Handler {
		key, err := auth.ParsePublicKeyPEM(spec.BootstrapKey)
		if err != nil {
			t.Error(err)
			return nil
		}
		cfg := picod.DefaultConfig()
		cfg.Workspace = filepath.Join(t.TempDir(), "workspace")
		cfg.Bootstrap, cfg.SandboxID, cfg.CgroupDir = key, spec.ID, ""
		cfg.Env = []string{"PATH=" + os.Getenv("PATH")}
		p, err := picod.New(cfg, logger)
		if err == nil {
			err = p.Open()
		}
		if err != nil {
			t.Error(err)
			return nil
		}
		t.Cleanup(p.Close)
		return map[uint16]http.Handler{sandbox.AgentPort: p.Handler()}
	}
	token := "ac_" + strings.Repeat("x", 43)
	srv := httptest.NewServer(servePlanes(t, token, agent))
	t.Cleanup(srv.Close)
	c, err := client.New(client.Config{BaseURL: srv.URL, Token: token})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	for _, managed := range []bool{false, true} {
		useSession(t, c, managed)
		createInVain(t, c, managed)
	}
}

// createInVain: a session that cannot have its files is none.
func createInVain(t *testing.T, c *client.Client, managed bool) {
	t.Helper()
	_, err := c.CreateSession(t.Context(), client.CreateOptions{
		Template: "python", Managed: managed, Files: []api.File{{Path: "a"}, {Path: "a/b"}},
	})
	var refused *client.APIError
	if !errors.As(err, &refused) || refused.Code != api.CodeFileNotWritten || refused.Text != "files[1].path goes through what is not a folder" {
		t.Errorf("managed=%t: CreateSession = %v", managed, err)
	}
	list, err := c.ListSessions(t.Context(), client.ListOptions{States: []api.State{api.StatePending, api.StateRunning}})
	if err != nil || len(list.Sessions) > 0 {
		t.Errorf("managed=%t: left are %+v, %v", managed, list, err)
	}
}

func useSession(t *testing.T, c *client.Client, managed bool) {
	t.Helper()
	ctx := t.Context()
	s, err := c.CreateSession(ctx, client.CreateOptions{
		Template: "python", Managed: managed, Env: map[string]string{"GREETING": "hi"},
		Files: []api.File{{Path: "dir/run.sh", Content: []byte("#!/bin/sh\necho $GREETING from $0\n"), Mode: "0755"}},
	})
	if err != nil {
		t.Fatalf("managed=%t: CreateSession: %v", managed, err)
	}
	for want, env := range map[string]map[string]string{"hi from dir/run.sh\n": nil, "ho from dir/run.sh\n": {"GREETING": "ho"}} {
		out, err := s.Execute(ctx, client.ExecRequest{Command: []string{"dir/run.sh"}, Env: env})
		if err != nil || string(out.Stdout) != want {
			t.Errorf("managed=%t: what the session was given prints %+v, %v, want %q", managed, out, err, want)
		}
	}
	if err := s.WriteFile(ctx, "in.txt", []byte("hello")); err != nil {
		t.Fatalf("managed=%t: WriteFile: %v", managed, err)
	}
	for range 3 { // each with a token of its own
		out, err := s.Execute(ctx, client.ExecRequest{Command: []string{"cat", "in.txt"}})
		if err != nil || string(out.Stdout) != "hello" || out.ExitCode != 0 {
			t.Fatalf("managed=%t: Execute = %+v, %v", managed, out, err)
		}
	}
	r, _, err := s.Download(ctx, "in.txt")
	if err != nil {
		t.Fatalf("managed=%t: Download: %v", managed, err)
	}
	content, err := io.ReadAll(r)
	_ = r.Close()
	if err != nil || string(content) != "hello" {
		t.Errorf("managed=%t: downloaded %q, %v", managed, content, err)
	}
	if !managed {
		stranger(ctx, t, c, s.ID)
	}
	if err := s.Delete(ctx); err != nil {
		t.Errorf("managed=%t: Delete: %v", managed, err)
	}
	// The end is told to those who may know: the key's holder, or the owner.
	if _, err := s.Execute(ctx, client.ExecRequest{Command: []string{"true"}}); !errors.Is(err, client.ErrSessionEnded) {
		t.Errorf("managed=%t: Execute after Delete = %v, want ErrSessionEnded", managed, err)
	}
}

// stranger holds the owner's token, but not the session's key.
func stranger(ctx context.Context, t *testing.T, c *client.Client, id string) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	s, err := c.Attach(ctx, id, key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Execute(ctx, client.ExecRequest{Command: []string{"true"}}); !errors.Is(err, client.ErrUnauthorized) {
		t.Errorf("Execute with another key = %v, want ErrUnauthorized", err)
	}
}
