package manager_test

import (
	"context"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/auth/authtest"
	"github.com/volcano-sh/agentcube/internal/manager"
	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/session"
)

// agree signs a request about a session with its key.
func agree(t *testing.T, key *rsa.PrivateKey, id, path, body string) string {
	t.Helper()
	digest := sha256.Sum256([]byte(body))
	token, err := jwt.NewWithClaims(jwt.SigningMethodPS256, jwt.MapClaims{
		"sid": id, "htm": "POST", "htu": path, "body_sha256": hex.EncodeToString(digest[:]),
		"jti": rand(), "iat": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix(),
	}).SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

var serial atomic.Int64

func rand() string { return fmt.Sprint("jti-", serial.Add(1)) }

func forkPath(id string) string { return "/v1/sessions/" + id + "/fork" }

func (n *node) fork(id, body string, header ...string) []api.CreateResponse {
	n.t.Helper()
	got := n.do(n.t.Context(), "alice", "POST", forkPath(id), body, header...)
	if got.status != http.StatusOK {
		n.t.Fatalf("fork = %d %s", got.status, got.body)
	}
	var out api.ForkResponse
	got.decode(n.t, &out)
	return out.Sessions
}

func (n *node) checkpoint(id, name string) answer {
	return n.do(n.t.Context(), "alice", "POST", "/v1/sessions/"+id+"/checkpoints", `{"name":"`+name+`"}`)
}

func TestForkManaged(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.templates[0].PauseAfter = time.Minute
	n := w.start()
	parent := n.create()
	for _, state := range []string{"resume", "pause"} { // of one that runs, and of one that sleeps
		n.must(parent.SessionID, state)
		before := w.record(parent.SessionID)
		forks := n.fork(parent.SessionID, `{"count":3,"ttl":60,"metadata":{"a":"b"}}`)
		if len(forks) != 3 || len(w.host.Snapshots()) != 0 {
			t.Fatalf("%d forks, snapshots left: %q", len(forks), w.host.Snapshots())
		}
		for _, f := range forks {
			rec := w.record(f.SessionID)
			if rec.State != api.StateRunning || rec.Parent != parent.SessionID || rec.Owner != "alice" || rec.Auth != api.AuthManaged ||
				rec.Metadata["a"] != "b" || rec.ExpiresAt.Sub(rec.CreatedAt) != time.Minute || rec.IdleTimeout != before.IdleTimeout ||
				rec.PauseAfter != time.Minute || rec.Isolation == "" || rec.SandboxID == before.SandboxID || rec.Env["A"] != "b" {
				t.Errorf("fork: %+v", rec)
			}
			if e := f.EntryPoints; len(e) != 1 || e[0].Endpoint != f.SandboxID+":8080" || f.Session.Parent != parent.SessionID {
				t.Errorf("fork: %+v", f)
			}
			spec, _ := w.host.Spec(f.SandboxID)
			if spec.Snapshot == "" || spec.Labels["agentcube.volcano.sh/owner"] != "alice" {
				t.Errorf("made from %+v", spec)
			}
			w.agents.mu.Lock()
			claims, body := w.agents.claims[f.SandboxID], w.agents.bodies[f.SandboxID]
			w.agents.mu.Unlock()
			if claims["sessionId"] != f.SessionID || claims["mode"] != "managed" || !strings.Contains(body, `"A":"b"`) {
				t.Errorf("initialised with %v %s", claims, body)
			}
		}
		if after := w.record(parent.SessionID); after.State != before.State || w.host.Paused(parent.SandboxID) != (after.State == api.StatePaused) {
			t.Errorf("parent is %s, was %s", after.State, before.State)
		}
	}
	n.fork(w.live()[0].ID, "") // a fork of a fork, with nothing said
}

func TestForkKeyBound(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n := w.start()
	body, _ := json.Marshal(api.CreateRequest{Name: "simple-codeinterpreter", Namespace: "default", PublicKey: clientKey(t)})
	var parent api.CreateResponse
	n.do(t.Context(), "alice", "POST", createPath, string(body)).decode(t, &parent)
	id, path := parent.SessionID, forkPath(parent.SessionID)
	other := authtest.NewKey()
	encoded := base64.RawStdEncoding.EncodeToString([]byte(publicPEM(t, other)))
	request := func(keys ...string) string {
		text, _ := json.Marshal(api.ForkRequest{PublicKeys: keys})
		return string(text)
	}
	good := request(encoded)
	send := func(who, body, signature string) answer {
		return n.do(t.Context(), who, "POST", path, body, api.HeaderSessionSignature, signature)
	}
	wantCode(t, send("alice", good, ""), 403, api.CodeForbidden)
	wantCode(t, send("root", good, agree(t, keys().client, id, path, good)), 404, api.CodeSessionNotFound) // nor may an administrator
	wantCode(t, send("alice", good, agree(t, other, id, path, good)), 403, api.CodeForbidden)
	wantCode(t, send("alice", good, agree(t, keys().client, id, path, good+" ")), 403, api.CodeForbidden)
	wantCode(t, send("alice", good, agree(t, keys().client, id, "/v1/sessions/"+id+"/checkpoints", good)), 403, api.CodeForbidden)
	wantCode(t, send("bob", good, agree(t, keys().client, id, path, good)), 404, api.CodeSessionNotFound)
	for what, bad := range map[string]string{
		"no keys": `{"count":2}`, "too few": `{"count":2,"publicKeys":["` + encoded + `"]}`, "nonsense": request("x"), "empty": request(""),
		"its own": request(clientKey(t)), "the same twice": request(encoded, encoded), "none": "", "not JSON": "{",
		"many": `{"count":65}`, "negative": `{"count":-1}`, "ttl": `{"ttl":-1,"publicKeys":["` + encoded + `"]}`,
	} {
		if got := send("alice", bad, agree(t, keys().client, id, path, bad)); got.status != 400 {
			t.Errorf("%s: %d %s, want 400", what, got.status, got.body)
		}
	}
	signature := agree(t, keys().client, id, path, good)
	var out api.ForkResponse
	send("alice", good, signature).decode(t, &out)
	if len(out.Sessions) != 1 || out.Sessions[0].Session.Auth != api.AuthClientKey || w.record(out.Sessions[0].SessionID).PublicKey != publicPEM(t, other) {
		t.Errorf("fork: %+v", out)
	}
	wantCode(t, send("alice", good, signature), 403, api.CodeForbidden) // once is once
	if live := len(w.live()); live != 2 || len(w.host.IDs()) != 2 {
		t.Errorf("%d sessions live, want 2", live)
	}
}

// TestForkIsAllOrNothing: whatever fails in the middle, no fork is left, and
// none was ever seen running.
func TestForkIsAllOrNothing(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		sabotage func(w *world, broken *atomic.Int32)
		status   int
	}{
		"no disk for the copy": {func(w *world, _ *atomic.Int32) {
			w.hooks.Checkpoint = func(context.Context, string, string) error { return sandbox.ErrDiskFull }
		}, 507},
		"the third sandbox fails": {func(w *world, broken *atomic.Int32) {
			w.hooks.Create = func(_ context.Context, s sandbox.Spec) error {
				if s.Snapshot != "" && broken.Add(1) == 3 {
					return errors.New("secret cause")
				}
				return nil
			}
		}, 500},
		"no room for the fourth": {func(w *world, _ *atomic.Int32) {
			w.config = func(c *manager.Config) { c.MaxSandboxes = 4 }
		}, 429},
		"too many for their owner": {func(w *world, _ *atomic.Int32) {
			w.config = func(c *manager.Config) { c.MaxPerOwner = 4 }
		}, 429},
		"an agent refuses its key": {func(w *world, broken *atomic.Int32) {
			w.hooks.Created = func(_ context.Context, s sandbox.Spec) error {
				if s.Snapshot != "" && broken.Add(1) == 2 {
					w.agents.mu.Lock()
					w.agents.status = 500
					w.agents.mu.Unlock()
				}
				return nil
			}
		}, 500},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			var seen atomic.Int32
			test.sabotage(w, new(atomic.Int32))
			limits := w.config
			w.config = func(c *manager.Config) {
				if limits != nil {
					limits(c)
				}
				c.SessionChanged = func(s session.Session) {
					if s.Parent != "" && s.State == api.StateRunning {
						seen.Add(1)
					}
				}
			}
			n := w.start()
			parent := n.create()
			got := n.do(t.Context(), "alice", "POST", forkPath(parent.SessionID), `{"count":4}`)
			if got.status != test.status || strings.Contains(got.body, "secret") {
				t.Errorf("answer %d %s, want %d", got.status, got.body, test.status)
			}
			w.eventually("only the parent is left", func() bool {
				return len(w.live()) == 1 && len(w.host.IDs()) == 1 && len(w.host.Snapshots()) == 0
			})
			if seen.Load() != 0 {
				t.Errorf("%d forks were seen running", seen.Load())
			}
			// The room is free again.
			w.agents.mu.Lock()
			w.agents.status = 0
			w.agents.mu.Unlock()
			if test.status == 500 {
				n.fork(parent.SessionID, `{"count":3}`)
			}
		})
	}
}

// TestForkAbandoned: a client that goes away leaves no forks behind.
func TestForkAbandoned(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	w.hooks.Created = func(_ context.Context, s sandbox.Spec) error {
		if s.Snapshot != "" {
			cancel()
		}
		return nil
	}
	n := w.start()
	parent := n.create()
	n.do(ctx, "alice", "POST", forkPath(parent.SessionID), `{"count":4}`)
	w.eventually("only the parent is left", func() bool {
		return len(w.live()) == 1 && len(w.host.IDs()) == 1 && len(w.host.Snapshots()) == 0
	})
}

func TestCheckpoints(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.config = func(c *manager.Config) { c.CheckpointRetention = time.Hour }
	n := w.start()
	parent := n.create()
	got := n.checkpoint(parent.SessionID, "first.1")
	var made api.Checkpoint
	got.decode(t, &made)
	if got.status != 200 || made.Name != "first.1" || made.SessionID != parent.SessionID || made.Owner != "alice" || made.SizeBytes <= 0 ||
		made.Auth != api.AuthManaged || made.TemplateName != "simple-codeinterpreter" || made.ExpiresAt.Sub(made.CreatedAt) != time.Hour {
		t.Errorf("checkpoint = %d %+v", got.status, made)
	}
	wantCode(t, n.checkpoint(parent.SessionID, "first.1"), 409, api.CodeCheckpointExists)
	for _, bad := range []string{"", ".x", "a b", "a/b", strings.Repeat("a", 129), "é"} {
		wantCode(t, n.checkpoint(parent.SessionID, bad), 400, api.CodeInvalidRequest)
	}
	n.must(parent.SessionID, "pause")
	if got := n.checkpoint(parent.SessionID, "second"); got.status != 200 || !w.host.Paused(parent.SandboxID) {
		t.Errorf("checkpoint of a paused session = %d %s", got.status, got.body)
	}
	list := func(who, query string) (names []string) {
		var out api.CheckpointList
		n.do(t.Context(), who, "GET", "/v1/checkpoints"+query, "").decode(t, &out)
		if out.Checkpoints == nil {
			t.Error("the list is null")
		}
		for _, c := range out.Checkpoints {
			names = append(names, c.Name)
		}
		return names
	}
	if got := list("alice", ""); strings.Join(got, " ") != "second first.1" {
		t.Errorf("list = %q", got)
	}
	if got := list("bob", ""); len(got) != 0 {
		t.Errorf("list of another owner = %q", got)
	}
	if got := list("root", "?all=true"); len(got) != 2 {
		t.Errorf("list of all = %q", got)
	}
	wantCode(t, n.do(t.Context(), "alice", "GET", "/v1/checkpoints?all=true", ""), 403, api.CodeForbidden)
	wantCode(t, n.do(t.Context(), "bob", "DELETE", "/v1/checkpoints/second", ""), 404, api.CodeCheckpointNotFound)
	if got := n.do(t.Context(), "alice", "DELETE", "/v1/checkpoints/second", ""); got.status != 200 || len(w.host.Snapshots()) != 1 {
		t.Errorf("delete = %d %s, snapshots %q", got.status, got.body, w.host.Snapshots())
	}
	wantCode(t, n.do(t.Context(), "alice", "DELETE", "/v1/checkpoints/second", ""), 404, api.CodeCheckpointNotFound)

	// It outlives its session, the process, and its template.
	n.do(t.Context(), "alice", "DELETE", "/v1/sessions/"+parent.SessionID, "")
	n.stop()
	_ = n.Close(t.Context())
	_ = n.driver.Close()
	w.templates = nil
	n = w.start()
	before := w.checkpoint("first.1")
	for range 2 {
		var out api.CreateResponse
		got := n.do(t.Context(), "alice", "POST", createPath, `{"checkpoint":"first.1","ttl":60}`)
		got.decode(t, &out)
		if got.status != 200 || out.Session.Checkpoint != "first.1" || out.Session.Name != "simple-codeinterpreter" || out.Session.Auth != api.AuthManaged {
			t.Errorf("create = %d %s", got.status, got.body)
		}
		if spec, _ := w.host.Spec(out.SandboxID); spec.Image != "python" {
			t.Errorf("made from %+v", spec)
		}
	}
	if after := w.checkpoint("first.1"); !after.UsedAt.After(before.UsedAt) {
		t.Error("a use did not count")
	}
}

func (w *world) checkpoint(name string) session.Checkpoint {
	w.t.Helper()
	c, err := w.store.GetCheckpoint(context.Background(), "alice", name)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func TestCreateFromCheckpointRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n := w.start()
	managed := n.create()
	body, _ := json.Marshal(api.CreateRequest{Name: "simple-codeinterpreter", Namespace: "default", PublicKey: clientKey(t)})
	var bound api.CreateResponse
	n.do(t.Context(), "alice", "POST", createPath, string(body)).decode(t, &bound)
	path := "/v1/sessions/" + bound.SessionID + "/checkpoints"
	wantCode(t, n.checkpoint(bound.SessionID, "bound"), 403, api.CodeForbidden)
	text := `{"name":"bound"}`
	if got := n.do(t.Context(), "alice", "POST", path, text, api.HeaderSessionSignature, agree(t, keys().client, bound.SessionID, path, text)); got.status != 200 {
		t.Fatalf("checkpoint = %d %s", got.status, got.body)
	}
	if got := n.checkpoint(managed.SessionID, "managed"); got.status != 200 {
		t.Fatalf("checkpoint = %d %s", got.status, got.body)
	}
	for _, test := range []struct {
		who, path, body string
		status          int
		code            api.Code
	}{
		{"alice", createPath, `{"checkpoint":"missing"}`, 404, api.CodeCheckpointNotFound},
		{"alice", createPath, `{"checkpoint":"../x"}`, 404, api.CodeCheckpointNotFound},
		{"bob", createPath, `{"checkpoint":"managed"}`, 404, api.CodeCheckpointNotFound},
		{"alice", "/v1/agent-runtime", `{"checkpoint":"managed"}`, 400, api.CodeInvalidRequest},
		{"alice", createPath, `{"checkpoint":"managed","name":"other"}`, 400, api.CodeInvalidRequest},
		{"alice", createPath, `{"checkpoint":"managed","namespace":"other"}`, 400, api.CodeInvalidRequest},
		{"alice", createPath, `{"checkpoint":"bound"}`, 400, api.CodeInvalidRequest},
	} {
		wantCode(t, n.do(t.Context(), test.who, "POST", test.path, test.body), test.status, test.code)
	}
	for _, name := range []string{"bound", "managed"} {
		var out api.CreateResponse
		n.do(t.Context(), "alice", "POST", createPath, `{"checkpoint":"`+name+`","name":"simple-codeinterpreter","publicKey":"`+clientKey(t)+`"}`).decode(t, &out)
		if out.Session.Auth != api.AuthClientKey || out.Session.State != api.StateRunning {
			t.Errorf("from %s: %+v", name, out)
		}
	}
}

func TestCheckpointFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.hooks.Checkpoint = func(context.Context, string, string) error { return sandbox.ErrDiskFull }
	n := w.start()
	made := n.create()
	wantCode(t, n.checkpoint(made.SessionID, "a"), 507, api.CodeDiskFull)
	if n.must(made.SessionID, "resume").State != api.StateRunning || len(w.host.Snapshots()) > 0 {
		t.Error("the session or a snapshot is not as before")
	}
}

// TestCheckpointNameRace: one of many that want a name gets it.
func TestCheckpointNameRace(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n := w.start()
	made := n.create()
	var wg sync.WaitGroup
	var won atomic.Int32
	for range 8 {
		wg.Go(func() {
			switch got := n.checkpoint(made.SessionID, "one"); got.status {
			case 200:
				won.Add(1)
			case 409:
			default:
				t.Errorf("checkpoint = %d %s", got.status, got.body)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 || len(w.host.Snapshots()) != 1 {
		t.Errorf("%d won, snapshots %q", won.Load(), w.host.Snapshots())
	}
}

// TestCheckpointsExpire: those that nobody uses go, with their snapshots.
func TestCheckpointsExpire(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.config = func(c *manager.Config) { c.CheckpointRetention, c.Retention = time.Hour, 20*time.Millisecond }
	n := w.start()
	made := n.create()
	for _, name := range []string{"old", "used"} {
		n.checkpoint(made.SessionID, name)
	}
	old := w.checkpoint("old")
	if err := w.store.DeleteCheckpoint(t.Context(), "alice", "old", old.Snapshot); err != nil {
		t.Fatal(err)
	}
	old.UsedAt = old.UsedAt.Add(-2 * time.Hour)
	if err := w.store.CreateCheckpoint(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	w.eventually("the old one is gone", func() bool {
		_, err := w.store.GetCheckpoint(t.Context(), "alice", "old")
		return errors.Is(err, session.ErrNoCheckpoint) && len(w.host.Snapshots()) == 1
	})
	w.checkpoint("used")
}

// TestSweep: snapshots and records that have lost each other go.
func TestSweep(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n := w.start()
	made := n.create()
	for _, name := range []string{"kept", "lost"} {
		n.checkpoint(made.SessionID, name)
	}
	kept := w.checkpoint("kept")
	for _, name := range []string{"f-left", "c-left"} {
		if _, err := n.driver.Checkpoint(t.Context(), made.SandboxID, name); err != nil {
			t.Fatal(err)
		}
	}
	w.host.LoseSnapshot(w.checkpoint("lost").Snapshot)
	n.stop()
	n = w.start()
	if got := w.host.Snapshots(); len(got) != 1 || got[0] != kept.Snapshot {
		t.Errorf("snapshots %q, want %q", got, kept.Snapshot)
	}
	wantCode(t, n.do(t.Context(), "alice", "POST", createPath, `{"checkpoint":"lost"}`), 404, api.CodeCheckpointNotFound)
	if got := n.do(t.Context(), "alice", "POST", createPath, `{"checkpoint":"kept"}`); got.status != 200 {
		t.Errorf("create = %d %s", got.status, got.body)
	}
}

func TestWarmPools(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.templates[0].WarmPoolSize, w.templates[0].Preload = 2, []string{"numpy"}
	demanding := python("demanding")
	demanding.WarmPoolSize, demanding.MinIsolation = 1, "kata"
	w.templates = append(w.templates, demanding, python("cold"))
	n := w.start()
	pools := n.driver.Pools()
	if len(pools) != 1 || pools[0].Size != 2 || pools[0].Name != "default/simple-codeinterpreter" || pools[0].Spec.Preload[0] != "numpy" {
		t.Fatalf("pools = %+v", pools)
	}
	n.create()
	n.create("Idempotency-Key", "k")
	if got := n.driver.Claims(pools[0].Name); got != 2 {
		t.Errorf("%d of 2 sessions came from the pool", got)
	}
	n.stop()
	_ = n.Close(t.Context())
	if got := n.driver.Pools(); len(got) != 0 {
		t.Errorf("pools after Close = %+v", got)
	}
}

// TestCheckpointsAreBounded: they take room on disk, so an owner cannot have any
// number.
func TestCheckpointsAreBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n := w.start()
	made := n.create()
	for i := range 1000 {
		name := fmt.Sprint("c", i)
		if err := w.store.CreateCheckpoint(t.Context(), session.Checkpoint{Owner: "alice", Name: name, Snapshot: name}); err != nil {
			t.Fatal(err)
		}
	}
	wantCode(t, n.checkpoint(made.SessionID, "one-more"), 429, api.CodeServerOverloaded)
	wantCode(t, n.checkpoint(made.SessionID, "c7"), 409, api.CodeCheckpointExists)
	n.do(t.Context(), "alice", "DELETE", "/v1/checkpoints/c7", "")
	if got := n.checkpoint(made.SessionID, "one-more"); got.status != 200 {
		t.Errorf("checkpoint = %d %s", got.status, got.body)
	}
}
