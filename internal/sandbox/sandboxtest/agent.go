package sandboxtest

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/volcano-sh/agentcube/internal/auth"
	"github.com/volcano-sh/agentcube/internal/sandbox"
)

// sessionKeys are made once: RSA keys are slow to make.
var sessionKeys = sync.OnceValue(func() (keys [2]*rsa.PrivateKey) {
	for i := range keys {
		key, err := rsa.GenerateKey(rand.Reader, auth.MinRSABits)
		if err != nil {
			panic(err) // the system has no randomness
		}
		keys[i] = key
	}
	return keys
})

// call sends one request to the agent in a sandbox, over a connection of its own.
func (s *suite) call(id, method, path, token string, body []byte) (status int, answer []byte, err error) {
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return s.d.Dial(ctx, id, sandbox.AgentPort)
		},
	}
	req, err := http.NewRequestWithContext(s.ctx, method, "http://sandbox"+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	return resp.StatusCode, answer, err
}

// init offers the agent in a sandbox a session key and returns its answer.
func (s *suite) init(id string, key *rsa.PrivateKey) int {
	s.Helper()
	if s.c.Bootstrap == nil {
		s.Fatal("Config.Bootstrap is needed to test this driver")
	}
	text, err := auth.PublicKeyPEM(&key.PublicKey)
	if err != nil {
		s.Fatal(err)
	}
	body := []byte(`{"sessionId":"` + id + `"}`)
	token, err := auth.SignInit(s.c.Bootstrap, auth.Init{
		SessionID: id, SandboxID: id, Mode: auth.InitKeyBound, PublicKey: text, Body: body,
	}, time.Now())
	if err != nil {
		s.Fatal(err)
	}
	status, answer, err := s.call(id, http.MethodPost, "/init", token, body)
	if err != nil {
		s.Fatalf("init of %s: %v", id, err)
	}
	s.Logf("init of %s: %d %s", id, status, answer)
	return status
}

// lock locks the agent in a sandbox to a key.
func (s *suite) lock(id string, key *rsa.PrivateKey) {
	s.Helper()
	if status := s.init(id, key); status != http.StatusOK {
		s.Fatalf("init of %s answered %d, want 200", id, status)
	}
}

// file sends a signed request about the one file that these tests write.
func (s *suite) file(id string, key *rsa.PrivateKey, method, path string, body []byte) (int, string, error) {
	token, err := jwt.NewWithClaims(jwt.SigningMethodRS256, jwt.MapClaims{
		"iat": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix(), "jti": rand.Text(),
	}).SignedString(key)
	if err != nil {
		return 0, "", err
	}
	status, answer, err := s.call(id, method, path, token, body)
	return status, string(answer), err
}

const stateFile = "state.txt"

// put writes the state of a sandbox.
func (s *suite) put(id string, key *rsa.PrivateKey, state string) {
	s.Helper()
	body, err := json.Marshal(map[string]string{
		"path": stateFile, "content": base64.StdEncoding.EncodeToString([]byte(state)), "mode": "0644",
	})
	if err != nil {
		s.Fatal(err)
	}
	if status, answer, err := s.file(id, key, http.MethodPost, "/api/files", body); err != nil || status != http.StatusOK {
		s.Fatalf("write to %s: %d %s, %v", id, status, answer, err)
	}
}

// state reads it.
func (s *suite) state(id string, key *rsa.PrivateKey) (string, error) {
	status, answer, err := s.file(id, key, http.MethodGet, "/api/files/"+stateFile, nil)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("answered %d %s", status, answer)
	}
	return answer, err
}

func (s *suite) wantState(id string, key *rsa.PrivateKey, want string) {
	s.Helper()
	if got, err := s.state(id, key); err != nil || got != want {
		s.Errorf("state of %s = %q, %v, want %q", id, got, err, want)
	}
}

// wantRefused checks that a key does not open a sandbox.
func (s *suite) wantRefused(id string, key *rsa.PrivateKey) {
	s.Helper()
	if status, _, err := s.file(id, key, http.MethodGet, "/api/files/"+stateFile, nil); err != nil || status < 400 || status == http.StatusNotFound {
		s.Errorf("request with a key that is not the session's answered %d, %v", status, err)
	}
}

// createLocked makes a sandbox that is locked to the first key and has a state.
func (s *suite) createLocked(state string) string {
	s.Helper()
	id := s.create()
	s.lock(id, sessionKeys()[0])
	s.put(id, sessionKeys()[0], state)
	return id
}
