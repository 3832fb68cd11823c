package e2e

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/client"
)

// TestFullDisk: a pause, a checkpoint or a fork that does not fit on the disk
// is refused with 507, whether that shows before or in the middle; nothing is
// left of it and the session goes on.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ folders, size string }{
		"no room from the beginning": {"", "420m"},
		"no room in the middle":      {"sandboxes snapshots", "20m"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := newServer(t)
			srv.prepare(t, "keeper")
			if err := srv.signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			// The small disks are seen by this server alone.
			srv.wrap = []string{"unshare", "--mount", "bash", "-ec", `
data=$1 size=$2 folders=$3; shift 3
if [ -z "$folders" ]; then
	mkdir "$data.full" && mount --bind "$data" "$data.full"
	mount -t tmpfs -o size=$size none "$data"
	mkdir "$data/images" && mount --bind "$data.full/images" "$data/images"
fi
for folder in $folders; do mount -t tmpfs -o size=$size,mode=711 none "$data/$folder"; done
exec "$@"`, "-", srv.data, tt.size, tt.folders}
			srv.restart(t)
			if tt.folders == "" {
				srv.prepare(t, "keeper")
			}
			c := srv.client(t)
			k := newKeeper(t, c, 64)
			base := srv.census()
			for what, try := range map[string]func() error{
				"pause":      func() error { return k.s.Pause(t.Context()) },
				"checkpoint": func() error { _, err := k.s.Checkpoint(t.Context(), "none"); return err },
				"fork":       func() error { _, err := k.s.Fork(t.Context(), 2, client.ForkOptions{}); return err },
			} {
				for range 2 {
					err := try()
					var answer *client.APIError
					if !errors.As(err, &answer) || answer.Status != 507 || answer.Code != api.CodeDiskFull || answer.Text == "" {
						t.Errorf("%s: %v, want 507", what, err)
					}
					wantState(t, c, k.s.ID, api.StateRunning)
					k.same(t)
				}
			}
			srv.settled(t, base)
			if partial, err := filepath.Glob(srv.seen("*/.partial*")); err != nil || len(partial) > 0 {
				t.Errorf("left behind: %v, %v", partial, err)
			}
			if list, err := c.Checkpoints(t.Context()); err != nil || len(list) > 0 {
				t.Errorf("checkpoints %+v, %v", list, err)
			}
			discard(t, k.s)
		})
	}
}

// seen is a path of the data folder as the server sees it.
func (s *server) seen(name string) string {
	return filepath.Join("/proc", strconv.Itoa(s.cmd.Process.Pid), "root", s.data, name)
}

// TestDamagedTemplateSnapshot: what sessions begin from is made again, with a
// word in the log, when it is not what was written or another program wrote it.
func TestDamagedTemplateSnapshot(t *testing.T) {
	t.Parallel()
	srv := newServer(t)
	c := srv.client(t)
	for _, tt := range []struct {
		name, file string
		damage     func([]byte) []byte
		said       string
	}{
		{"a byte of the pages", "pages.img", flip, "made again"},
		{"a byte of the kernel's state", "checkpoint.img", flip, "made again"},
		{"half a file", "pages.img", func(b []byte) []byte { return b[:len(b)/2] }, "made again"},
		{"no description", "snapshot.json", func([]byte) []byte { return nil }, "removed"},
		{"another engine", "snapshot.json", foreign, "removed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			srv.kill(t)
			change(t, only(t, filepath.Join(srv.data, "prepared", "*", tt.file)), tt.damage)
			said := len(srv.fullLog(t))
			srv.restart(t)
			srv.prepare(t, client.DefaultTemplate)
			if log := srv.fullLog(t)[said:]; !strings.Contains(log, `msg="template snapshot `+tt.said+`"`) || !strings.Contains(log, `msg="template snapshot made"`) {
				t.Errorf("the log does not say that it was made again:\n%s", log)
			}
			first, second := create(t, c, client.CreateOptions{Managed: true}), create(t, c, client.CreateOptions{Managed: true})
			wantFresh(t, first, second)
			discard(t, first)
			discard(t, second)
		})
	}
}

// TestDamagedSleep: a paused session, or a checkpoint, whose state is not what
// was written, or was written by another program, is never half loaded: the
// session ends with a fate that says so, and all others go on.
func TestDamagedSleep(t *testing.T) {
	t.Parallel()
	srv := newServer(t)
	c := srv.client(t)
	well := create(t, c, client.CreateOptions{Managed: true})
	output(t, well, "echo well > file")
	base := srv.census()
	for _, tt := range []struct {
		name, file string
		damage     func([]byte) []byte
		restart    bool
	}{
		{"a byte of the pages", "pages.img", flip, false},
		{"a byte of the kernel's state, and a restart", "checkpoint.img", flip, true},
		{"half a file", "pages.img", func(b []byte) []byte { return b[:len(b)/2] }, false},
		{"another engine", "snapshot.json", foreign, true},
		{"no description", "snapshot.json", func([]byte) []byte { return nil }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := create(t, c, client.CreateOptions{Managed: true})
			name := "damaged"
			kept, err := s.Checkpoint(t.Context(), name)
			if err != nil || kept.SizeBytes == 0 {
				t.Fatalf("%+v, %v", kept, err)
			}
			pause(t, s)
			change(t, filepath.Join(srv.data, "sandboxes", "s-"+s.ID, "paused", tt.file), tt.damage)
			change(t, only(t, filepath.Join(srv.data, "snapshots", "*", tt.file)), tt.damage)
			if tt.restart {
				srv.kill(t)
				srv.restart(t)
			}
			_, err = s.Execute(t.Context(), client.ExecRequest{Command: []string{"true"}})
			var answer *client.APIError
			if !errors.As(err, &answer) || answer.Status != 410 && answer.Status != 503 || answer.Text == "" {
				t.Errorf("the request that would have woken it: %v, want 410 or 503", err)
			}
			rec := awaitEnd(t, c, s.ID)
			if rec.Fate != api.FateHostLost || !strings.Contains(rec.Reason, "paused state cannot be used") {
				t.Errorf("the session is %+v, want fate %s and why", rec, api.FateHostLost)
			}
			wantGone(t, s, api.FateHostLost)
			_, err = c.CreateSession(t.Context(), client.CreateOptions{Checkpoint: name, Managed: true})
			if !errors.As(err, &answer) || answer.Status != 410 || answer.Code != api.CodeCheckpointUnusable || answer.Text == "" {
				t.Errorf("a session from a damaged checkpoint: %v", err)
			}
			if _, err := c.DeleteCheckpoint(t.Context(), name); err != nil {
				t.Error(err)
			}
			if got := output(t, well, "cat file"); got != "well\n" {
				t.Errorf("another session answers %q", got)
			}
			c.Close()
			srv.settled(t, base)
		})
	}
}

// change replaces a file by what damage makes of it.
func change(t *testing.T, path string, damage func([]byte) []byte) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// Not in place: a checkpoint and a paused session may share the file.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, damage(raw), 0o600); err != nil {
		t.Fatal(err)
	}
}

func flip(raw []byte) []byte {
	raw[len(raw)/2] ^= 1
	return raw
}

func foreign(raw []byte) []byte {
	return bytes.Replace(raw, []byte(`"engine":"`), []byte(`"engine":"another `), 1)
}

func (s *server) fullLog(t *testing.T) string {
	t.Helper()
	raw, err := os.ReadFile(s.path("log"))
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}
