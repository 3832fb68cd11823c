package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	record "github.com/volcano-sh/agentcube/api/audit"
	"github.com/volcano-sh/agentcube/client"
)

// cli runs a command with the data folder of the server.
func (s *server) cli(t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), env.bin, append(args, "--data-dir", s.data)...)
	cmd.Env = s.environ()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), err
}

// exported are the actions of the server's record that are about a session.
func (s *server) exported(t *testing.T, session string) (actions []record.Action, events []record.Event) {
	t.Helper()
	out, errs, err := s.cli(t, "audit", "export", "--session", session)
	if err != nil {
		t.Fatalf("%v: %s", err, errs)
	}
	r := record.NewReader(strings.NewReader(out))
	for {
		line, err := record.ReadLine(r)
		if err != nil {
			return actions, events
		}
		var e record.Event
		if err := json.Unmarshal(line.Text, &e); err != nil {
			t.Fatal(err)
		}
		actions, events = append(actions, e.Action), append(events, e)
	}
}

// TestAudit: a session leaves a record with the server, which knows of encrypted
// requests that there were connections; one in its sandbox, of which it gets the
// head; and both agree, also when the server is killed.
func TestAudit(t *testing.T) {
	t.Parallel()
	srv := newServer(t)
	c := srv.client(t)
	key, err := client.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	s := create(t, c, client.CreateOptions{Key: key})
	run(t, s, "echo", "a secret")
	early, err := s.AuditRecord(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	srv.kill(t)
	srv.restart(t)
	c = srv.client(t)
	if s, err = c.Attach(t.Context(), s.ID, key); err != nil {
		t.Fatal(err)
	}
	run(t, s, "true")
	late, err := s.AuditRecord(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if len(early.Entries) != 1 || len(late.Entries) != 3 || !bytes.HasPrefix(late.Text, early.Text[:bytes.IndexByte(early.Text, '\n')+1]) {
		t.Errorf("the record was %s\nand is %s", early.Text, late.Text)
	}
	discard(t, s)
	managed := create(t, c, client.CreateOptions{Managed: true})
	run(t, managed, "true")
	discard(t, managed)

	actions, events := srv.exported(t, s.ID)
	for _, want := range []record.Action{
		record.SessionCreated, record.TunnelOpened, record.SessionSealed, record.SessionPaused, record.SessionResumed, record.SessionEnded,
	} {
		if !slices.Contains(actions, want) {
			t.Errorf("the record of an encrypted session is %v, and has no %s", actions, want)
		}
	}
	if slices.Contains(actions, record.Request) || events[0].Certificate == "" || events[0].KeySHA256 == "" {
		t.Errorf("the record of an encrypted session is %+v", events)
	}
	actions, _ = srv.exported(t, managed.ID)
	if want := []record.Action{record.SessionCreated, record.Request, record.SessionEnded}; !slices.Equal(actions, want) {
		t.Errorf("the record of a managed session is %v, want %v", actions, want)
	}
	all, err := filepath.Glob(filepath.Join(srv.data, "audit", "*.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(all[0])
	if err != nil || bytes.Contains(text, []byte("a secret")) {
		t.Errorf("the record holds what was run, or %v", err)
	}
	srv.checkRecords(t, s.ID, late)
}

// checkRecords checks the server's record, and a session's against it, and that
// changes of either are noticed.
func (s *server) checkRecords(t *testing.T, session string, rec *client.AuditRecord) {
	t.Helper()
	out, errs, err := s.cli(t, "audit", "verify")
	if err != nil || !strings.Contains(out, "2 valid, 0 missing") {
		t.Errorf("verify: %v: %s%s", err, out, errs)
	}
	file := s.path("session.jsonl")
	if err := os.WriteFile(file, rec.Text, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, errs, err := s.cli(t, "audit", "verify", "--record", file, "--session", session); err != nil || !strings.Contains(out, "1 agree") {
		t.Errorf("verify the session's record: %v: %s%s", err, out, errs)
	}
	if err := os.WriteFile(file, bytes.Replace(rec.Text, []byte(`"status":200`), []byte(`"status":500`), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, _, err := s.cli(t, "audit", "verify", "--record", file, "--session", session); err == nil {
		t.Errorf("a changed record of a session is sound: %s", out)
	}
	all, err := filepath.Glob(filepath.Join(s.data, "audit", "*.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(all[0])
	if err != nil {
		t.Fatal(err)
	}
	copied := s.path("copy")
	if err := errors.Join(os.MkdirAll(filepath.Join(copied, "audit"), 0o700), os.WriteFile(
		filepath.Join(copied, "audit", filepath.Base(all[0])), bytes.Replace(text, []byte(`"actor":"local"`), []byte(`"actor":"other"`), 1), 0o600)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), env.bin, "audit", "verify", "--data-dir", copied)
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "was changed") {
		t.Errorf("a changed record is sound: %s", out)
	}
}
