package e2e

import (
	"bytes"
	"context"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/client"
)

// TestOneWakingForAll: requests that come at once to a session that sleeps are
// all answered, by one waking.
func TestOneWakingForAll(t *testing.T) {
	t.Parallel()
	srv := newServer(t)
	c := srv.client(t)
	s := create(t, c, client.CreateOptions{Managed: true})
	for round := 1; round <= 3; round++ {
		pause(t, s)
		var all sync.WaitGroup
		for i := range 20 {
			all.Go(func() {
				res, err := s.Execute(t.Context(), client.ExecRequest{Command: []string{"echo", fmt.Sprint(i)}})
				if err != nil || string(res.Stdout) != fmt.Sprintln(i) {
					t.Errorf("request %d: %q, %v", i, res.Stdout, err)
				}
			})
		}
		all.Wait()
		if n := strings.Count(srv.fullLog(t), `msg="session resumed"`); n != round {
			t.Errorf("after %d rounds the session has woken %d times", round, n)
		}
	}
}

// TestPauseDuringRequests: what runs for a client when its session is paused
// breaks off with a word about it, connections that were kept open serve again,
// and what runs in the background goes on.
func TestPauseDuringRequests(t *testing.T) {
	t.Parallel()
	srv := newServer(t)
	c := srv.client(t)
	s := create(t, c, client.CreateOptions{})
	output(t, s, "(while sleep 0.05; do echo tick >> ticks; done) >/dev/null 2>&1 & head -c 200000000 /dev/zero > large")
	cut := make(chan error, 1)
	go func() {
		_, err := s.Execute(context.WithoutCancel(t.Context()), client.ExecRequest{
			Command: []string{"bash", "-c", "touch begun; sleep 4321"}, Timeout: time.Hour})
		cut <- err
	}()
	awaitFile(t, s, "begun")
	down, _, err := s.Download(t.Context(), "large")
	if err != nil {
		t.Fatal(err)
	}
	defer down.Close()
	if _, err := io.ReadFull(down, make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	in, feed := io.Pipe()
	upload := make(chan error, 1)
	go func() {
		_, err := s.Upload(context.WithoutCancel(t.Context()), "half", in, client.UploadOptions{Size: 1 << 20})
		upload <- err
	}()
	if _, err := feed.Write(make([]byte, 1<<19)); err != nil {
		t.Fatal(err)
	}
	output(t, s, "until ls -A | grep -q picod-upload; do sleep 0.05; done")
	pause(t, s)
	if err := <-cut; !errors.Is(err, client.ErrSessionPaused) {
		t.Errorf("the command under way: %v, want 409 SESSION_PAUSED", err)
	}
	if n, err := io.Copy(io.Discard, down); err == nil || n >= 200000000-100 {
		t.Errorf("the download under way: %d bytes, %v; it has to break off", n, err)
	}
	// It is told as soon as it goes on.
	go func() { _, _ = io.Copy(feed, bytes.NewReader(make([]byte, 1<<19))) }()
	select {
	case err := <-upload:
		if !errors.Is(err, client.ErrSessionPaused) {
			t.Errorf("the upload under way: %v, want 409 SESSION_PAUSED", err)
		}
	case <-time.After(patience):
		t.Error("the upload under way hangs")
	}
	_ = in.Close() // ends who feeds it
	got := output(t, s, "n=$(wc -l < ticks); until [ $(wc -l < ticks) -gt $((n+1)) ]; do sleep 0.05; done; ls; "+
		"timeout 60 bash -c \"while cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -q 'sleep 432[1]'; do sleep 0.05; done\" && echo over")
	if got != "begun\nlarge\nticks\nover\n" {
		t.Errorf("after it the session holds %q", got)
	}
	// The same client, over what connections it has kept.
	for range 5 {
		pause(t, s)
		if got := output(t, s, "echo again"); got != "again\n" {
			t.Errorf("the session answers %q", got)
		}
	}
}

// TestSleepAndTimeouts: a session falls asleep when nobody uses it for a while
// and still ends at its idle time-out; one that its owner paused does not.
func TestSleepAndTimeouts(t *testing.T) {
	t.Parallel()
	srv := newServer(t)
	srv.prepare(t, "dozy", "short-idle")
	base := srv.census()
	c := srv.client(t)
	idle := create(t, c, client.CreateOptions{Template: "short-idle"})
	pause(t, idle)
	mortal := create(t, c, client.CreateOptions{TTL: 8 * time.Second})
	pause(t, mortal)
	dozy := create(t, c, client.CreateOptions{Template: "dozy"})
	output(t, dozy, "echo kept > file")

	awaitState(t, c, dozy.ID, api.StatePaused)
	if got := output(t, dozy, "cat file; echo more >> file"); got != "kept\n" {
		t.Errorf("what fell asleep by itself answers %q", got)
	}
	// Not while a request is under way, however long it takes.
	if got := output(t, dozy, "sleep 3; cat file"); got != "kept\nmore\n" {
		t.Errorf("a long request got %q", got)
	}
	awaitState(t, c, dozy.ID, api.StatePaused)
	if rec := awaitEnd(t, c, dozy.ID); rec.Fate != api.FateIdle || rec.EndedAt.Sub(rec.LastActivityAt) < 6*time.Second {
		t.Errorf("what fell asleep by itself ended as %+v", rec)
	}
	if rec := awaitEnd(t, c, mortal.ID); rec.Fate != api.FateExpired {
		t.Errorf("what was paused until its end ended as %+v", rec)
	}
	// Ten seconds have passed, of which the idle time-out is six.
	wantState(t, c, idle.ID, api.StatePaused)
	output(t, idle, "true")
	if rec := awaitEnd(t, c, idle.ID); rec.Fate != api.FateIdle {
		t.Errorf("what was paused by its owner, and woke, ended as %+v", rec)
	}
	c.Close()
	srv.settled(t, base)
	srv.empty(t)
}

func awaitState(t *testing.T, c *client.Client, id string, want api.State) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		rec, err := c.GetSession(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if rec.State == want {
			return
		}
		if rec.State == api.StateEnded || time.Now().After(deadline) {
			t.Fatalf("the session is %+v, want %s", rec, want)
		}
	}
}

// TestCheckpoints: a checkpoint is made, found, used by any number of sessions,
// also when its own has ended, and removed, by its owner or when nobody has
// used it for long.
func TestCheckpoints(t *testing.T) {
	t.Parallel()
	srv := newServer(t)
	srv.prepare(t, "small")
	c := srv.client(t)
	base := srv.census()
	s := create(t, c, client.CreateOptions{Template: "small"})
	output(t, s, "echo first > file; nohup sleep 54321 >/dev/null 2>&1 & echo $! > pid")
	kept, err := s.Checkpoint(t.Context(), "one")
	if err != nil || kept.Name != "one" || kept.SizeBytes == 0 || kept.SessionID != s.ID {
		t.Fatalf("%+v, %v", kept, err)
	}
	if _, err := s.Checkpoint(t.Context(), "one"); !errors.Is(err, client.ErrExists) {
		t.Errorf("a name that is taken: %v", err)
	}
	output(t, s, "echo second > file")
	discard(t, s)
	srv.kill(t)
	srv.restart(t)
	if list, err := c.Checkpoints(t.Context()); err != nil || len(list) != 1 || list[0].Name != "one" {
		t.Errorf("checkpoints %+v, %v", list, err)
	}
	var sessions []*client.Session
	for range 3 {
		from := create(t, c, client.CreateOptions{Checkpoint: "one"})
		if from.Info.Checkpoint != "one" {
			t.Errorf("the session is %+v", from.Info)
		}
		if got := output(t, from, "cat file; kill -0 $(cat pid) && echo alive; echo mine > file"); got != "first\nalive\n" {
			t.Errorf("a session from the checkpoint answers %q", got)
		}
		sessions = append(sessions, from)
	}
	own := map[string]int{}
	for i, from := range sessions {
		wantOwn(t, from, i, own)
	}
	if _, err := c.CreateSession(t.Context(), client.CreateOptions{Checkpoint: "one", Managed: true}); err == nil {
		t.Error("a session without a key began from one with a key")
	}
	if _, err := c.DeleteCheckpoint(t.Context(), "one"); err != nil {
		t.Error(err)
	}
	if _, err := c.DeleteCheckpoint(t.Context(), "one"); !errors.Is(err, client.ErrNotFound) {
		t.Errorf("deleting it twice: %v", err)
	}
	if _, err := c.CreateSession(t.Context(), client.CreateOptions{Checkpoint: "one"}); !errors.Is(err, client.ErrNotFound) {
		t.Errorf("a session from what is gone: %v", err)
	}
	for _, from := range sessions {
		if got := output(t, from, "cat file"); got != "mine\n" {
			t.Errorf("after the checkpoint was removed its session answers %q", got)
		}
		discard(t, from)
	}
	c.Close()
	srv.settled(t, base)
	srv.empty(t)
}

// TestForgottenCheckpoints: what nobody has used for long goes by itself, from
// the disk, too.
func TestForgottenCheckpoints(t *testing.T) {
	t.Parallel()
	srv := newServer(t, "--checkpoint-retention", "3s", "--ended-retention", "1s")
	c := srv.client(t)
	s := create(t, c, client.CreateOptions{Managed: true})
	made := time.Now()
	if _, err := s.Checkpoint(t.Context(), "forgotten"); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		list, err := c.Checkpoints(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(list) == 0 && len(srv.entries("snapshots")) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("there are still %+v, %v", list, srv.entries("snapshots"))
		}
	}
	if kept := time.Since(made); kept < 3*time.Second {
		t.Errorf("it was kept for %s only", kept)
	}
	output(t, s, "true")
}

// TestCopiesNeedTheKey: who does not hold the key of a session gets no copy of
// it; a managed one is copied for its owner.
func TestCopiesNeedTheKey(t *testing.T) {
	t.Parallel()
	srv := newServer(t)
	c := srv.client(t)
	managed := create(t, c, client.CreateOptions{Managed: true})
	output(t, managed, "echo kept > file")
	forks, err := managed.Fork(t.Context(), 2, client.ForkOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range forks {
		if got := output(t, f, "cat file"); got != "kept\n" || f.Info.Auth != api.AuthManaged {
			t.Errorf("a managed fork answers %q, %+v", got, f.Info)
		}
		discard(t, f)
	}
	s := create(t, c, client.CreateOptions{})
	wrong, err := client.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := c.Attach(t.Context(), s.ID, wrong)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stranger.Fork(t.Context(), 1, client.ForkOptions{Keys: []*rsa.PrivateKey{wrong}}); !errors.Is(err, client.ErrUnauthorized) {
		t.Errorf("a fork with another key: %v", err)
	}
	if _, err := stranger.Checkpoint(t.Context(), "stolen"); !errors.Is(err, client.ErrUnauthorized) {
		t.Errorf("a checkpoint with another key: %v", err)
	}
	for path, body := range map[string]any{
		"fork": api.ForkRequest{Count: 1}, "checkpoints": api.CheckpointRequest{Name: "stolen"},
	} {
		if status, answer := srv.post(t, "/v1/sessions/"+s.ID+"/"+path, body); status != 403 {
			t.Errorf("%s without a signature: %d %s", path, status, answer)
		}
	}
	if list, err := c.Checkpoints(t.Context()); err != nil || len(list) > 0 {
		t.Errorf("checkpoints %+v, %v", list, err)
	}
	if len(living(t, c)) != 2 {
		t.Errorf("there are the sessions %+v", living(t, c))
	}
}

// post sends a request of the owner that no client of ours would send.
func (s *server) post(t *testing.T, path string, body any) (int, []byte) {
	t.Helper()
	raw, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+path, bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+s.token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, answer
}
