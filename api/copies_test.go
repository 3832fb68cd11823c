package api_test

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/auth"
)

// newKey makes a session key and its public half as requests carry it.
func newKey(t *testing.T) (*rsa.PrivateKey, string) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	pem, err := auth.PublicKeyPEM(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return key, base64.RawStdEncoding.EncodeToString([]byte(pem))
}

// agreement signs a request as its description says.
func agreement(t *testing.T, key *rsa.PrivateKey, session, path, body string) string {
	t.Helper()
	sum := sha256.Sum256([]byte(body))
	now := time.Now()
	token, err := jwt.NewWithClaims(jwt.SigningMethodPS256, jwt.MapClaims{
		"sid": session, "htm": "POST", "htu": path, "body_sha256": hex.EncodeToString(sum[:]),
		"jti": rand.Text(), "iat": now.Unix(), "exp": now.Add(5 * time.Minute).Unix(),
	}).SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// documents are the answers that one answer holds: one a line, when it is a
// stream of documents, else itself.
func documents(rec *httptest.ResponseRecorder) []*http.Response {
	if rec.Header().Get("Content-Type") != "application/x-ndjson" {
		return []*http.Response{rec.Result()}
	}
	var out []*http.Response
	for line := range bytes.Lines(rec.Body.Bytes()) {
		resp := rec.Result()
		resp.Body = io.NopCloser(bytes.NewReader(line))
		out = append(out, resp)
	}
	return out
}

// copies visits what is about pausing, forks and checkpoints. No session is
// left when it returns.
func (tr *tour) copies(unknown string) {
	t := tr.t
	t.Helper()
	key, public := newKey(t)
	_, fork1 := newKey(t)
	create, _ := json.Marshal(api.CreateRequest{Name: "python", Namespace: "default", PublicKey: public})
	id := tr.create("/v1/code-interpreter", string(create))
	path := "/v1/sessions/" + id
	tr.step("POST", path+"/pause", "", 200)
	tr.step("POST", path+"/pause", "", 200)
	tr.step("GET", path, "", 200)
	tr.step("GET", "/v1/sessions?state=paused", "", 200)
	tr.step("POST", path+"/resume", "", 200)
	tr.step("POST", path+"/resume", "", 200)
	for _, verb := range []string{"pause", "resume"} {
		tr.step("POST", "/v1/sessions/"+unknown+"/"+verb, "", 404)
		tr.step("POST", path+"/"+verb, "", 401, "Authorization", "")
		tr.step("POST", path+"/"+verb, "", 403, "Origin", "https://evil.example")
	}

	body := `{"count":1,"publicKeys":["` + fork1 + `"],"ttl":60,"metadata":{"a":"b"}}`
	signature := agreement(t, key, id, path+"/fork", body)
	var forked api.ForkResponse
	if err := json.Unmarshal(tr.step("POST", path+"/fork", body, 200, api.HeaderSessionSignature, signature), &forked); err != nil {
		t.Fatal(err)
	}
	fork := forked.Sessions[0].SessionID
	if got := forked.Sessions[0].Session.Parent; got != id {
		t.Errorf("the fork's parent is %q, want %q", got, id)
	}
	tr.step("POST", path+"/fork", body, 403, api.HeaderSessionSignature, signature) // used before
	tr.step("POST", path+"/fork", body, 403)
	tr.step("POST", path+"/fork", body, 403, api.HeaderSessionSignature, agreement(t, key, id, path+"/checkpoints", body))
	tr.step("POST", path+"/fork", `{}`, 400, api.HeaderSessionSignature, agreement(t, key, id, path+"/fork", `{}`))
	tr.step("POST", path+"/fork", `{"metadata":{"a":"`+strings.Repeat("x", 2<<20)+`"}}`, 413)
	tr.step("POST", "/v1/sessions/"+unknown+"/fork", "", 404)
	tr.step("POST", path+"/fork", "", 401, "Authorization", "")

	tr.step("GET", "/v1/checkpoints", "", 200) // none
	body = `{"name":"loaded-1"}`
	for _, want := range []int{200, 409} {
		tr.step("POST", path+"/checkpoints", body, want, api.HeaderSessionSignature, agreement(t, key, id, path+"/checkpoints", body))
	}
	tr.step("POST", path+"/checkpoints", body, 403)
	tr.step("POST", path+"/checkpoints", `{"name":".x"}`, 400)
	tr.step("POST", "/v1/sessions/"+unknown+"/checkpoints", body, 404)
	tr.step("GET", "/v1/checkpoints", "", 200)
	tr.step("GET", "/v1/checkpoints?all=true", "", 200)
	tr.step("GET", "/v1/checkpoints?all=x", "", 400)
	create, _ = json.Marshal(map[string]any{"checkpoint": "loaded-1", "publicKey": public})
	again := tr.create("/v1/code-interpreter", string(create))
	tr.step("GET", "/v1/sessions/"+again, "", 200)
	tr.step("POST", "/v1/code-interpreter", `{"checkpoint":"loaded-1"}`, 400) // needs a key
	tr.step("DELETE", "/v1/checkpoints/loaded-1", "", 200)
	tr.step("DELETE", "/v1/checkpoints/loaded-1", "", 404)
	tr.step("POST", "/v1/code-interpreter", string(create), 404)

	// A managed session needs no signature; over the limit nothing is made.
	managed := tr.create("/v1/code-interpreter", `{"name":"python","namespace":"default"}`)
	tr.step("POST", "/v1/sessions/"+managed+"/fork", `{"count":2}`, 429)
	for _, s := range []string{id, fork, again} {
		tr.step("DELETE", "/v1/sessions/"+s, "", 200)
	}
	if err := json.Unmarshal(tr.step("POST", "/v1/sessions/"+managed+"/fork", "", 200), &forked); err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{managed, forked.Sessions[0].SessionID} {
		tr.step("DELETE", "/v1/sessions/"+s, "", 200)
	}
	tr.step("POST", path+"/pause", "", 410)
	tr.step("POST", path+"/resume", "", 410)
	tr.step("POST", path+"/fork", "", 410)
}
