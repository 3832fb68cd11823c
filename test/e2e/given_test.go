package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/client"
)

// givenSecret is in variables and files, and must not be on the server's disk
// but in the state of sandboxes.
const givenSecret = "hunter2-of-the-end-to-end-tests"

// givenTo is what the sessions of these tests begin with.
func givenTo(opts client.CreateOptions) client.CreateOptions {
	opts.Env = map[string]string{
		"SECRET": givenSecret, "GREETING": "session", "EMPTY": "", "ODD": "é \"'\n$HOME=", "PATH": "/opt/none:/usr/local/bin:/usr/bin:/bin",
	}
	opts.Files = []api.File{
		{Path: "bin/run.sh", Content: []byte("#!/bin/sh\necho \"ran with $GREETING\"\n"), Mode: "0755"},
		{Path: "/workspace/token", Content: []byte(givenSecret), Mode: "0600"},
		{Path: "empty"},
	}
	return opts
}

// wantGiven checks that a session has what it was given, in every kind of run.
func wantGiven(t *testing.T, how string, s *client.Session, greeting, token string) {
	t.Helper()
	got := output(t, s, `printf '%s|' "$SECRET" "$GREETING" "${EMPTY-unset}" "$ODD" "$PATH" "$TEMPLATE" "$(cat token)"; echo
		./bin/run.sh; GREETING=line ./bin/run.sh; stat -c '%n %u:%g %a %s' bin bin/run.sh token empty`)
	want := strings.Join([]string{givenSecret, greeting, "", "é \"'\n$HOME=", "/opt/none:/usr/local/bin:/usr/bin:/bin", "template", token}, "|") +
		"|\nran with " + greeting + "\nran with line\n"
	facts, found := strings.CutPrefix(got, want)
	if !found {
		t.Errorf("%s: a shell sees %q, want %q", how, got, want)
	}
	if lines := strings.Split(facts, "\n"); found && (len(lines) < 4 || !strings.HasPrefix(lines[0], "bin 1000:1000 755 ") ||
		!strings.HasPrefix(lines[1], "bin/run.sh 1000:1000 755 ") || !strings.HasPrefix(lines[2], "token 1000:1000 600 ") || lines[3] != "empty 1000:1000 644 0") {
		t.Errorf("%s: the files are %q", how, lines)
	}
	const program = `import os, subprocess; print(os.environ["GREETING"], os.getenv("EMPTY"), subprocess.getoutput("echo $GREETING"), sep=",")`
	for env, want := range map[string]string{"": greeting + ",," + greeting + "\n", "own": "own,,own\n"} {
		req := client.ExecRequest{Command: []string{"python3", "-c", program}}
		if env != "" {
			req.Env = map[string]string{"GREETING": env}
		}
		res, err := s.Execute(t.Context(), req)
		if err != nil || string(res.Stdout) != want {
			t.Errorf("%s: Python sees %q %q, %v, want %q", how, res.Stdout, res.Stderr, err, want)
		}
	}
}

// TestGiven: a session has the variables and files that it is given, whoever signs for it.
func TestGiven(t *testing.T) {
	t.Parallel()
	c := at(t).client(t)
	for _, managed := range []bool{true, false} {
		s := create(t, c, givenTo(client.CreateOptions{Template: "given", Managed: managed}))
		wantGiven(t, fmt.Sprintf("managed %t", managed), s, "session", givenSecret)
		discard(t, s)
	}
}

// TestGivenHoweverMade: a session has its variables and files whether its sandbox
// was booted, restored from a snapshot, or waited in a pool, and whoever signs
// for it; it keeps them asleep and over the death of the server, and its copies
// have them, over which comes what these are given.
func TestGivenHoweverMade(t *testing.T) {
	t.Parallel()
	// With other limits a template does not begin from the snapshot of another.
	spec := func(memory string) string {
		return "environment: [{name: TEMPLATE, value: template}, {name: GREETING, value: template}]\n    " +
			"resources: {limits: {memory: " + memory + ", ephemeral-storage: 128Mi}}"
	}
	srv := stoppedServer(t)
	srv.template(t, client.DefaultTemplate, "", small)
	srv.template(t, "my-interpreter", "", small)
	srv.template(t, "pooled", "warmPoolSize: 1", spec("256Mi"))
	srv.template(t, "restored", "", spec("257Mi"))
	srv.template(t, "cold", "", spec("258Mi"))
	srv.template(t, "as-cold", "", spec("259Mi"))
	srv.restart(t)
	srv.prepare(t, "pooled", "restored")
	c := srv.client(t)
	for _, each := range []struct {
		template string
		managed  bool
	}{{"cold", true}, {"as-cold", false}, {"restored", true}, {"restored", false}, {"pooled", true}, {"pooled", false}} {
		s := createFrom(t, srv, c, givenTo(client.CreateOptions{Template: each.template, Managed: each.managed}), each.template == "pooled")
		wantGiven(t, fmt.Sprintf("%s, managed %t", each.template, each.managed), s, "session", givenSecret)
		discard(t, s)
	}
	for _, managed := range []bool{true, false} {
		lifeOfGiven(t, srv, c, managed)
	}
	wantNoTrace(t, srv)
}

// lifeOfGiven is all that can happen to what a session was given.
func lifeOfGiven(t *testing.T, srv *server, c *client.Client, managed bool) {
	t.Helper()
	s := createFrom(t, srv, c, givenTo(client.CreateOptions{Template: "pooled", Managed: managed}), true)
	pause(t, s)
	wantGiven(t, "woken", s, "session", givenSecret)
	srv.kill(t)
	srv.restart(t)
	wantGiven(t, "adopted", s, "session", givenSecret)
	pause(t, s)
	srv.kill(t)
	srv.restart(t)
	wantGiven(t, "woken by another process", s, "session", givenSecret)

	forks, err := s.Fork(t.Context(), 2, client.ForkOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range forks {
		t.Cleanup(func() { discard(t, f) })
		wantGiven(t, "forked", f, "session", givenSecret)
	}
	if _, err := forks[0].Checkpoint(t.Context(), "given"); err != nil {
		t.Fatal(err)
	}
	again := create(t, c, client.CreateOptions{Checkpoint: "given", Managed: managed})
	wantGiven(t, "from a checkpoint", again, "session", givenSecret)
	changed := create(t, c, client.CreateOptions{
		Checkpoint: "given", Managed: managed, Env: map[string]string{"GREETING": "again", "NEW": "new"},
		Files: []api.File{{Path: "token", Content: []byte("other"), Mode: "0600"}, {Path: "new", Content: []byte("new")}},
	})
	wantGiven(t, "from a checkpoint, and given more", changed, "again", "other")
	if got := output(t, changed, "echo $NEW $(cat new)"); got != "new new\n" {
		t.Errorf("what came over the checkpoint is %q", got)
	}
	pause(t, changed)
	of, err := changed.Fork(t.Context(), 1, client.ForkOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { discard(t, of[0]) })
	wantGiven(t, "forked from that", of[0], "again", "other")
	wantGiven(t, "the first one, in the end", s, "session", givenSecret)
	if _, err := c.DeleteCheckpoint(t.Context(), "given"); err != nil {
		t.Error(err)
	}
	for _, each := range append(forks, s, again, changed, of[0]) {
		discard(t, each)
	}
}

// wantNoTrace looks for what sessions were given wherever the server writes.
// The state of those that sleep, which has it, is gone when this is called.
func wantNoTrace(t *testing.T, srv *server) {
	t.Helper()
	if strings.Contains(srv.fullLog(t), givenSecret) {
		t.Error("the log tells what a session was given")
	}
	stores, err := filepath.Glob(filepath.Join(srv.data, "sessions.db*"))
	if err != nil || len(stores) == 0 {
		t.Fatalf("stores %q, %v", stores, err)
	}
	for _, name := range stores {
		raw, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(raw, []byte(givenSecret)) {
			t.Errorf("%s tells what a session was given", filepath.Base(name))
		}
	}
}

// TestGivenInVain: with a file that cannot be written there is no session, and
// nothing is left of it; what leads out of the workspace changes nothing there.
func TestGivenInVain(t *testing.T) {
	t.Parallel()
	srv := newServer(t)
	srv.prepare(t, "small")
	c := srv.client(t)
	made := create(t, c, client.CreateOptions{Template: "small", Managed: true})
	output(t, made, "mkdir folder; echo kept > file; ln -s /etc out; ln -s /tmp/new link; mkfifo pipe")
	if _, err := made.Checkpoint(t.Context(), "traps"); err != nil {
		t.Fatal(err)
	}
	discard(t, made)
	for path, want := range map[string]string{
		"folder": "is that of a folder", "file/below": "goes through what is not a folder", "out/passwd": "leads out of the workspace",
		"link": "leads out of the workspace", "pipe": "is that of what is not a regular file", "/fine": "is the same as that of another file",
	} {
		_, err := c.CreateSession(t.Context(), client.CreateOptions{
			Checkpoint: "traps", Managed: true, Env: map[string]string{"A": "1"}, Files: []api.File{{Path: "fine"}, {Path: path}},
		})
		var refused *client.APIError
		if !errors.As(err, &refused) || refused.Status != 422 || refused.Code != api.CodeFileNotWritten || refused.Text != "files[1].path "+want {
			t.Errorf("%s: %v, want 422 FILE_NOT_WRITTEN: %s", path, err, want)
		}
	}
	if _, err := c.CreateSession(t.Context(), client.CreateOptions{Managed: true, Env: map[string]string{"PWD": "/"}}); err == nil {
		t.Error("a session was given another working directory")
	}
	if left := living(t, c); len(left) > 0 {
		t.Errorf("there are the sessions %+v", left)
	}
	if names := srv.entries("sandboxes"); len(names) > 0 {
		t.Errorf("left behind: %v", names)
	}
	// What was tried in vain is possible elsewhere in the same checkpoint.
	s := create(t, c, client.CreateOptions{Checkpoint: "traps", Managed: true, Files: []api.File{{Path: "folder/file"}, {Path: "file"}}})
	if got := output(t, s, "ls -A . folder; cat file"); got != ".:\nfile\nfolder\nlink\nout\npipe\n\nfolder:\nfile\n" {
		t.Errorf("the workspace holds %q", got)
	}
}
