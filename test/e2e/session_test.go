package e2e

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/client"
)

// create makes a session that is deleted when the test ends.
func create(t *testing.T, c *client.Client, opts client.CreateOptions) *client.Session {
	t.Helper()
	s, err := c.CreateSession(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { discard(t, s) })
	return s
}

// discard deletes a session, whose server may be gone.
func discard(t *testing.T, s *client.Session) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	if err := s.Delete(ctx); err != nil && !errors.Is(err, client.ErrUnreachable) {
		t.Error(err)
	}
}

// run runs a command and fails the test unless there is a result.
func run(t *testing.T, s *client.Session, command ...string) client.ExecResult {
	t.Helper()
	res, err := s.Execute(t.Context(), client.ExecRequest{Command: command})
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// output runs a shell script that has to succeed, and returns what it printed.
func output(t *testing.T, s *client.Session, script string) string {
	t.Helper()
	res := run(t, s, "bash", "-c", script)
	if res.ExitCode != 0 {
		t.Fatalf("%q ended with %d: %s%s", script, res.ExitCode, res.Stdout, res.Stderr)
	}
	return string(res.Stdout)
}

// awaitEnd waits until a session has ended and returns its record.
func awaitEnd(t *testing.T, c *client.Client, id string) api.Session {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		rec, err := c.GetSession(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if rec.State == api.StateEnded {
			return rec
		}
		if time.Now().After(deadline) {
			t.Fatalf("session is still %s", rec.State)
		}
	}
}

// wantGone checks that requests of an ended session are told its fate.
func wantGone(t *testing.T, s *client.Session, fate api.Fate) {
	t.Helper()
	_, err := s.Execute(t.Context(), client.ExecRequest{Command: []string{"true"}})
	for deadline := time.Now().Add(patience); err == nil && env.at.Lags && time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		_, err = s.Execute(t.Context(), client.ExecRequest{Command: []string{"true"}})
	}
	var answer *client.APIError
	if !errors.As(err, &answer) || answer.Status != 410 || answer.Fate != fate || answer.Code != api.CodeSessionEnded {
		t.Errorf("an ended session answered %v (%+v), want 410 with fate %s", err, answer, fate)
	}
}

// listAll lists all of the owner's sessions, ended or not.
func listAll(t *testing.T, c *client.Client) []api.Session {
	t.Helper()
	var all []api.Session
	for opts := (client.ListOptions{}); ; {
		page, err := c.ListSessions(t.Context(), opts)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, page.Sessions...)
		if opts.PageToken = page.NextPageToken; opts.PageToken == "" {
			return all
		}
	}
}
