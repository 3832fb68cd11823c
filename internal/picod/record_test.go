package picod

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/api/audit"
	"github.com/volcano-sh/agentcube/internal/hostlink"
	"github.com/volcano-sh/agentcube/internal/picod/journal"
	"github.com/volcano-sh/agentcube/internal/picod/token"
)

// sent sends a request with a token that is good for it alone.
func sent(t *testing.T, c *http.Client, b *box, method, target, body string) (status int, answer, signature string) {
	t.Helper()
	claims := jwt.MapClaims{
		"sid": "s1", "jti": target + time.Now().String(), "htm": method, "htu": target, "body_sha256": hashOf([]byte(body)),
		"iat": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix(),
	}
	signature = sign(t, jwt.SigningMethodRS256, b.key, claims)
	req, err := http.NewRequestWithContext(t.Context(), method, "https://"+api.SecureName("s1")+target, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+signature)
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text), signature
}

func (b *box) seal(t *testing.T, claims jwt.MapClaims) reply {
	t.Helper()
	claims["exp"] = time.Now().Add(time.Minute).Unix()
	return b.send("POST", "/seal", map[string]string{"Authorization": "Bearer " + sign(t, jwt.SigningMethodRS256, bootstrapKey(), claims)}, nil)
}

// TestRecord: what came encrypted is recorded, with what the client has signed; and
// what did not is not: the Router records that.
func TestRecord(t *testing.T) {
	addr, certificate, b := serveSecurely(t, nil)
	c := secureClient(t, addr, certificate, b.key, false)
	const run = `{"command":["echo","hello"]}`
	_, answer, signature := sent(t, c, b, "POST", "/api/execute", run)
	status, _, _ := sent(t, c, b, "GET", "/api/files/none", "")
	if status != http.StatusNotFound {
		t.Errorf("status %d", status)
	}
	b.get("/api/files?path=.") // in plain text

	_, text, _ := sent(t, c, b, "GET", "/api/audit", "")
	rec, err := audit.ParseRecord([]byte(text), certificate, "s1")
	if err != nil {
		t.Fatal(err)
	}
	if len(rec.Entries) != 2 || rec.Statement.Open != 0 || rec.Statement.Kept != 1 {
		t.Fatalf("the record is %+v", rec)
	}
	first, second := rec.Entries[0], rec.Entries[1]
	if first.Status != 200 || first.Path != "/api/execute" || first.Signature != signature || first.Aborted ||
		first.Input.SHA256 != hashOf([]byte(run)) || first.Output.SHA256 != hashOf([]byte(answer)) || first.Output.Bytes != int64(len(answer)) {
		t.Errorf("recorded %+v, %+v, %+v", first, first.Input, first.Output)
	}
	if second.Status != http.StatusNotFound || second.Code != "FILE_NOT_FOUND" {
		t.Errorf("recorded %+v", second)
	}

	// What is new, and no more.
	_, text, _ = sent(t, c, b, "GET", "/api/audit?after=2", "")
	if rec, err = audit.ParseRecord([]byte(text), certificate, "s1"); err != nil || len(rec.Entries) != 1 || rec.Entries[0].Path != "/api/audit" {
		t.Errorf("%+v, %v", rec, err)
	}
	if status, _, _ := sent(t, c, b, "GET", "/api/audit?after=-1", ""); status != http.StatusBadRequest {
		t.Errorf("after=-1 is answered %d", status)
	}
	if status, _, _ := sent(t, c, b, "GET", "/api/audit?after=9999", ""); status != http.StatusOK {
		t.Errorf("after=9999 is answered %d", status)
	}
}

// TestSeal: the control plane learns where the record ends, and nothing of it.
func TestSeal(t *testing.T) {
	addr, certificate, b := serveSecurely(t, nil)
	c := secureClient(t, addr, certificate, b.key, false)
	sent(t, c, b, "POST", "/api/execute", `{"command":["true"]}`)
	got := b.seal(t, jwt.MapClaims{"purpose": token.SealPurpose, "sessionId": "s1", "sandboxId": ""})
	statement, _ := got.json(t)["statement"].(string)
	s, err := audit.ParseStatement(statement, certificate, "s1")
	if err != nil || s.Head.Seq != 1 || len(got.json(t)) != 1 {
		t.Errorf("%+v, %v in %v", s, err, got.json(t))
	}
	for name, claims := range map[string]jwt.MapClaims{
		"another purpose": {"purpose": "sandbox_init", "sessionId": "s1", "sandboxId": ""},
		"another session": {"purpose": token.SealPurpose, "sessionId": "s2", "sandboxId": ""},
		"another sandbox": {"purpose": token.SealPurpose, "sessionId": "s1", "sandboxId": "x"},
	} {
		if got := b.seal(t, claims); got.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s: answered %d", name, got.StatusCode)
		}
	}
	b.send("POST", "/seal", b.bearer(jwt.MapClaims{"purpose": token.SealPurpose, "sessionId": "s1", "sandboxId": ""}), nil).
		expect(t, http.StatusUnauthorized, "Invalid token", "INVALID_TOKEN")
}

// A copy of the sandbox has a record of its own.
func TestCopyBeginsARecord(t *testing.T) {
	addr, certificate, b := serveSecurely(t, nil)
	c := secureClient(t, addr, certificate, b.key, false)
	sent(t, c, b, "POST", "/api/execute", `{"command":["true"]}`)
	session, key := b.srv.gate.Statements()
	before := b.srv.journal.Load()
	if lines, _, err := before.State(0, 0, session, key); err != nil || len(lines) != 1 {
		t.Fatalf("%d lines, %v", len(lines), err)
	}
	// Names of the machine it cannot set here, which come last.
	_ = b.srv.assume(hostlink.Identity{SandboxID: "other", Hostname: strings.Repeat("x", 100)})
	if b.srv.journal.Load() == before {
		t.Error("the copy goes on with the record of what it is a copy of")
	}
}

// A long session keeps the newest lines, and is bound to all of them.
func TestJournalIsBounded(t *testing.T) {
	addr, certificate, b := serveSecurely(t, nil)
	session, key := b.srv.gate.Statements()
	j := b.srv.journal.Load()
	long := strings.Repeat("x", 60<<10)
	for range 100 {
		if err := j.Begin()(audit.Entry{Path: long}); err != nil {
			t.Fatal(err)
		}
	}
	lines, _, err := j.State(0, 0, session, key)
	if size := len(lines) * len(long); err != nil || size > journal.MaxBytes || size < journal.MaxBytes/2 {
		t.Errorf("%d lines, %v", len(lines), err)
	}
	_, text, _ := sent(t, secureClient(t, addr, certificate, b.key, false), b, "GET", "/api/audit", "")
	rec, err := audit.ParseRecord([]byte(text), certificate, "s1")
	if err != nil || rec.Statement.Head.Seq != 100 || rec.Statement.Kept != rec.Before.Seq+1 || len(rec.Entries) != len(lines) {
		t.Errorf("%+v, %v", rec, err)
	}
}
