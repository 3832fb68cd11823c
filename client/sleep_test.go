package client

import (
	"crypto/rsa"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/volcano-sh/agentcube/api"
)

const (
	pausedSession = `{"sessionId":"abc","state":"paused","pausedAt":"2026-01-02T03:04:05Z"}`
	keptState     = `{"name":"c.1","sessionId":"abc","templateName":"simple-codeinterpreter","sizeBytes":7}`
)

func forked(ids ...string) string {
	var sessions []string
	for _, id := range ids {
		sessions = append(sessions, `{"sessionId":"`+id+`","session":{"sessionId":"`+id+
			`","kind":"CodeInterpreter","namespace":"default","name":"t","parent":"abc"}}`)
	}
	return `{"sessions":[` + strings.Join(sessions, ",") + `]}`
}

func TestPauseAndResume(t *testing.T) {
	srv := serve(t, reply(200, created), reply(200, pausedSession), reply(200, `{"sessionId":"abc","state":"running"}`),
		reply(200, pausedSession))
	c := connect(t, Config{BaseURL: srv.URL + "/prefix", Token: "tok"})
	ctx := t.Context()
	s, err := c.CreateSession(ctx, CreateOptions{Managed: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Pause(ctx); err != nil {
		t.Error(err)
	}
	if err := s.Resume(ctx); err != nil {
		t.Error(err)
	}
	got, err := c.PauseSession(ctx, "abc")
	if err != nil || got.State != api.StatePaused || got.PausedAt == nil {
		t.Errorf("PauseSession = %+v, %v", got, err)
	}
	for i, want := range []string{1: "pause", 2: "resume", 3: "pause"} {
		if want == "" {
			continue
		}
		r := srv.request(i)
		if r.method != "POST" || r.uri != "/prefix/v1/sessions/abc/"+want || r.header.Get("Authorization") != "Bearer tok" ||
			r.header.Get(api.HeaderSessionSignature) != "" {
			t.Errorf("request %d: %s %s %v", i, r.method, r.uri, r.header)
		}
	}
}

// agreement checks the signature of a request and returns its claims.
func agreement(t *testing.T, r recorded, key any, path string) jwt.MapClaims {
	t.Helper()
	claims := jwt.MapClaims{}
	if _, err := jwt.ParseWithClaims(r.header.Get(api.HeaderSessionSignature), claims,
		func(*jwt.Token) (any, error) { return key, nil }, jwt.WithValidMethods([]string{"RS256"}), jwt.WithExpirationRequired()); err != nil {
		t.Fatalf("signature of %s: %v", r.uri, err)
	}
	sum := sha256.Sum256(r.body)
	for claim, want := range map[string]any{"sid": "abc", "htm": "POST", "htu": path, "body_sha256": hex.EncodeToString(sum[:])} {
		if claims[claim] != want {
			t.Errorf("%s: claim %s is %v, want %v", r.uri, claim, claims[claim], want)
		}
	}
	if claims["exp"].(float64)-claims["iat"].(float64) > 300 || len(claims["jti"].(string)) < 16 {
		t.Errorf("%s: claims %v", r.uri, claims)
	}
	return claims
}

func TestForkAndCheckpointAreSigned(t *testing.T) {
	srv := serve(t, reply(200, created), reply(200, forked("f1", "f2", "f3")), reply(200, keptState),
		reply(200, `{"exit_code":0}`), reply(200, `{"exit_code":0}`), reply(200, forked("f4")), reply(200, forked("f5")))
	c := connect(t, Config{BaseURL: srv.URL + "/prefix", Token: "tok"})
	ctx := t.Context()
	s, err := c.CreateSession(ctx, CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	forks, err := s.Fork(ctx, 3, ForkOptions{TTL: time.Minute, Metadata: map[string]string{"a": "b"}})
	if err != nil {
		t.Fatal(err)
	}
	kept, err := s.Checkpoint(ctx, "c.1")
	if err != nil || kept.Name != "c.1" || kept.SizeBytes != 7 {
		t.Errorf("Checkpoint = %+v, %v", kept, err)
	}
	first := agreement(t, srv.request(1), &s.key.PublicKey, "/v1/sessions/abc/fork")
	second := agreement(t, srv.request(2), &s.key.PublicKey, "/v1/sessions/abc/checkpoints")
	if first["jti"] == second["jti"] {
		t.Error("two signatures have the same jti")
	}
	if got := srv.request(1); got.uri != "/prefix/v1/sessions/abc/fork" || got.header.Get("Authorization") != "Bearer tok" {
		t.Errorf("fork: %s, %v", got.uri, got.header)
	}
	if got := string(srv.request(2).body); got != `{"name":"c.1"}` {
		t.Errorf("checkpoint body %s", got)
	}
	var body api.ForkRequest
	if err := json.Unmarshal(srv.request(1).body, &body); err != nil {
		t.Fatal(err)
	}
	if body.Count != 3 || len(body.PublicKeys) != 3 || body.TTL != 60 || body.Metadata["a"] != "b" {
		t.Fatalf("fork body %+v", body)
	}
	seen := map[string]bool{}
	for i, fork := range forks {
		if want := fmt.Sprintf("f%d", i+1); fork.ID != want || fork.Info.Parent != "abc" || fork.Info.SessionID != want {
			t.Errorf("fork %d: %+v", i, fork.Info)
		}
		sent, ok := sentKey(t, body.PublicKeys[i]).(*rsa.PublicKey)
		if !ok || !sent.Equal(&fork.key.PublicKey) || sent.Equal(&s.key.PublicKey) || seen[body.PublicKeys[i]] {
			t.Errorf("fork %d: its key is not the one sent, or not its own", i)
		}
		seen[body.PublicKeys[i]] = true
	}
	// The forks are used with their own keys.
	for _, fork := range forks[:2] {
		if _, err := fork.Execute(ctx, ExecRequest{Command: []string{"true"}}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 2 {
		r := srv.request(3 + i)
		_, err := jwt.Parse(strings.TrimPrefix(r.header.Get("Authorization"), "Bearer "),
			func(*jwt.Token) (any, error) { return &forks[i].key.PublicKey, nil })
		if err != nil || r.header.Get(api.HeaderSessionID) != forks[i].ID {
			t.Errorf("request of fork %d: %v, %v", i, r.header, err)
		}
	}
	// A key made ahead of time is used.
	one, err := s.Fork(ctx, 1, ForkOptions{Keys: []*rsa.PrivateKey{forks[0].key}})
	if err != nil || one[0].key != forks[0].key {
		t.Errorf("Fork with a key = %v, %v", one, err)
	}
	// More or fewer than asked for is no fork.
	if _, err := s.Fork(ctx, 2, ForkOptions{}); err == nil {
		t.Error("accepted one session where two were asked for")
	}
}

func TestForkOfManagedSessionHasNoKeys(t *testing.T) {
	srv := serve(t, reply(200, created), reply(200, forked("f1")))
	c := connect(t, Config{BaseURL: srv.URL})
	s, err := c.CreateSession(t.Context(), CreateOptions{Managed: true})
	if err != nil {
		t.Fatal(err)
	}
	forks, err := s.Fork(t.Context(), 1, ForkOptions{})
	if err != nil || forks[0].key != nil {
		t.Errorf("Fork = %v, %v", forks, err)
	}
	if r := srv.request(1); string(r.body) != `{"count":1}` || r.header.Get(api.HeaderSessionSignature) != "" {
		t.Errorf("fork: %s, %v", r.body, r.header)
	}
}

func TestCheckpoints(t *testing.T) {
	srv := serve(t, reply(200, `{"checkpoints":[`+keptState+`]}`), reply(200, keptState),
		reply(404, `{"error":"no such checkpoint","code":"CHECKPOINT_NOT_FOUND"}`), reply(200, created))
	c := connect(t, Config{BaseURL: srv.URL})
	ctx := t.Context()
	list, err := c.Checkpoints(ctx)
	if err != nil || len(list) != 1 || list[0].Name != "c.1" {
		t.Errorf("Checkpoints = %+v, %v", list, err)
	}
	if gone, err := c.DeleteCheckpoint(ctx, "a b/c"); err != nil || gone.Name != "c.1" {
		t.Errorf("DeleteCheckpoint = %+v, %v", gone, err)
	}
	if r := srv.request(1); r.method != "DELETE" || r.uri != "/v1/checkpoints/a%20b%2Fc" {
		t.Errorf("%s %s", r.method, r.uri)
	}
	if _, err := c.DeleteCheckpoint(ctx, "x"); !errors.Is(err, ErrNotFound) {
		t.Errorf("DeleteCheckpoint of none = %v", err)
	}
	if _, err := c.CreateSession(ctx, CreateOptions{Checkpoint: "c.1", Managed: true}); err != nil {
		t.Fatal(err)
	}
	if got := string(srv.request(3).body); got != `{"name":"","namespace":"","checkpoint":"c.1"}` {
		t.Errorf("create body %s", got)
	}
}
