package client

import (
	"context"
	"crypto/rsa"
	"errors"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/volcano-sh/agentcube/api"
)

func TestAPIErrors(t *testing.T) {
	for _, tt := range []struct {
		name, body string
		status     int
		want       APIError
		is         error
	}{
		{"control plane", `{"error":"no such session","code":"SESSION_NOT_FOUND","message":"no such session","hint":"list them","requestId":"r1"}`,
			404, APIError{Status: 404, Code: api.CodeSessionNotFound, Text: "no such session", Hint: "list them", RequestID: "r1"}, ErrNotFound},
		{"ended", `{"error":"session has ended","code":"SESSION_ENDED","fate":"idle"}`,
			410, APIError{Status: 410, Code: api.CodeSessionEnded, Text: "session has ended", Fate: api.FateIdle, RequestID: "hdr"}, ErrSessionEnded},
		{"checkpoint", `{"error":"damaged","code":"CHECKPOINT_UNUSABLE","hint":"delete it"}`,
			410, APIError{Status: 410, Code: api.CodeCheckpointUnusable, Text: "damaged", Hint: "delete it", RequestID: "hdr"}, ErrCheckpointUnusable},
		{"gone, of a server in the sandbox", `gone`, 410, APIError{Status: 410, Text: "server answered 410 Gone", RequestID: "hdr"}, nil},
		{"PicoD", `{"error":"Invalid token","code":401,"detail":"JWT verification failed","reason":"BAD_TOKEN"}`,
			401, APIError{Status: 401, Code: "BAD_TOKEN", Text: "Invalid token", Detail: "JWT verification failed", RequestID: "hdr"}, ErrUnauthorized},
		{"older control plane", `{"error":"SANDBOX_TIMEOUT","message":"not ready in time"}`,
			500, APIError{Status: 500, Code: api.CodeSandboxTimeout, Text: "not ready in time", RequestID: "hdr"}, nil},
		{"message only", `{"message":"code interpreter not found"}`,
			404, APIError{Status: 404, Text: "code interpreter not found", RequestID: "hdr"}, ErrNotFound},
		{"not JSON", `<html>`, 502, APIError{Status: 502, Text: "server answered 502 Bad Gateway", RequestID: "hdr"}, nil},
		{"paused", `{"error":"paused","code":"SESSION_PAUSED"}`,
			409, APIError{Status: 409, Code: api.CodeSessionPaused, Text: "paused", RequestID: "hdr"}, ErrSessionPaused},
		{"token's name taken", `{"error":"taken","code":"TOKEN_EXISTS"}`,
			409, APIError{Status: 409, Code: api.CodeTokenExists, Text: "taken", RequestID: "hdr"}, ErrExists},
		{"scope missing", `{"error":"the token lacks the scope use","code":"FORBIDDEN"}`,
			403, APIError{Status: 403, Code: api.CodeForbidden, Text: "the token lacks the scope use", RequestID: "hdr"}, ErrUnauthorized},
		{"name taken", `{"error":"taken","code":"CHECKPOINT_EXISTS"}`,
			409, APIError{Status: 409, Code: api.CodeCheckpointExists, Text: "taken", RequestID: "hdr"}, ErrExists},
		{"other conflict", `{"error":"wait","code":"SESSION_NOT_READY"}`,
			409, APIError{Status: 409, Code: api.CodeSessionNotReady, Text: "wait", RequestID: "hdr"}, nil},
		{"unsupported", `{"error":"cannot","code":"NOT_SUPPORTED"}`,
			501, APIError{Status: 501, Code: api.CodeUnsupported, Text: "cannot", RequestID: "hdr"}, ErrUnsupported},
		{"disk", `{"error":"full","code":"DISK_FULL"}`,
			507, APIError{Status: 507, Code: api.CodeDiskFull, Text: "full", RequestID: "hdr"}, ErrDiskFull},
		{"overload", `{"error":"busy","code":"SERVER_OVERLOADED"}`,
			429, APIError{Status: 429, Code: api.CodeServerOverloaded, Text: "busy", RequestID: "hdr", RetryAfter: 7 * time.Second}, ErrOverloaded},
	} {
		t.Run(tt.name, func(t *testing.T) {
			srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set(api.HeaderRequestID, "hdr")
				if tt.status == 429 {
					w.Header().Set("Retry-After", "7")
				}
				reply(tt.status, tt.body)(w, r)
			})
			_, err := connect(t, Config{BaseURL: srv.URL}).GetSession(t.Context(), "x")
			var got *APIError
			if !errors.As(err, &got) {
				t.Fatalf("error %v is no APIError", err)
			}
			if *got != tt.want {
				t.Errorf("got %+v, want %+v", *got, tt.want)
			}
			for _, sentinel := range []error{ErrNotFound, ErrUnauthorized, ErrSessionEnded, ErrSessionPaused, ErrExists,
				ErrCheckpointUnusable, ErrOverloaded, ErrUnsupported, ErrDiskFull, ErrUnreachable} {
				if want := sentinel == tt.is; errors.Is(err, sentinel) != want { //nolint:errorlint // is it this very one
					t.Errorf("errors.Is(%v, %v) is wrong", err, sentinel)
				}
			}
		})
	}
}

func TestUnreachable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close()
	err = connect(t, Config{BaseURL: "http://" + addr}).Health(t.Context())
	if !errors.Is(err, ErrUnreachable) {
		t.Errorf("error %v, want ErrUnreachable", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err = connect(t, Config{BaseURL: "http://" + addr}).Health(ctx)
	if !errors.Is(err, context.Canceled) || errors.Is(err, ErrUnreachable) {
		t.Errorf("error %v, want context.Canceled", err)
	}
}

func TestRedirectToAnotherServerIsRefused(t *testing.T) {
	other := serve(t)
	srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, other.URL+"/v1/sessions/x", http.StatusTemporaryRedirect)
	})
	if _, err := connect(t, Config{BaseURL: srv.URL, Token: "t"}).GetSession(t.Context(), "x"); err == nil {
		t.Error("followed a redirect to another server")
	}
}

func TestInvalidInputIsRefusedBeforeAnyRequest(t *testing.T) {
	srv := serve(t)
	c := connect(t, Config{BaseURL: srv.URL})
	s := &Session{ID: "x", c: c}
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	bound := &Session{ID: "x", c: c, key: key}
	ctx := t.Context()
	for name, do := range map[string]func() error{
		"sub-second ttl":  func() error { _, err := c.CreateSession(ctx, CreateOptions{TTL: time.Millisecond}); return err },
		"negative ttl":    func() error { _, err := c.CreateSession(ctx, CreateOptions{TTL: -time.Second}); return err },
		"managed and key": func() error { _, err := c.CreateSession(ctx, CreateOptions{Managed: true, Key: key}); return err },
		"empty id":        func() error { _, err := c.GetSession(ctx, ""); return err },
		"dots as id":      func() error { return c.DeleteSession(ctx, "..") },
		"dots to pause":   func() error { _, err := c.PauseSession(ctx, ".."); return err },
		"no forks":        func() error { _, err := s.Fork(ctx, 0, ForkOptions{}); return err },
		"too many forks":  func() error { _, err := s.Fork(ctx, MaxForks+1, ForkOptions{}); return err },
		"fork's ttl":      func() error { _, err := s.Fork(ctx, 1, ForkOptions{TTL: 1}); return err },
		"a key too few":   func() error { _, err := bound.Fork(ctx, 2, ForkOptions{Keys: []*rsa.PrivateKey{key}}); return err },
		"a nil key":       func() error { _, err := bound.Fork(ctx, 1, ForkOptions{Keys: []*rsa.PrivateKey{nil}}); return err },
		"keys of none":    func() error { _, err := s.Fork(ctx, 1, ForkOptions{Keys: []*rsa.PrivateKey{key}}); return err },
		"no name":         func() error { _, err := s.Checkpoint(ctx, ""); return err },
		"no checkpoint":   func() error { _, err := c.DeleteCheckpoint(ctx, ".."); return err },
		"no command":      func() error { _, err := s.Execute(ctx, ExecRequest{}); return err },
		"bad time-out":    func() error { _, err := s.Execute(ctx, ExecRequest{Command: []string{"a"}, Timeout: -1}); return err },
		"setuid upload":   func() error { _, err := s.Upload(ctx, "a", nil, UploadOptions{Mode: 1 << 23}); return err },
		"URL scheme":      func() error { _, err := New(Config{BaseURL: "ftp://x"}); return err },
		"URL host":        func() error { _, err := New(Config{RouterURL: "localhost:8080"}); return err },
		"URL query":       func() error { _, err := New(Config{BaseURL: "http://x/?a"}); return err },
	} {
		if do() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
