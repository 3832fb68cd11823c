package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestInstall: what init containers do, also where there is something already.
func TestInstall(t *testing.T) {
	program := build(t)
	want, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	for name, before := range map[string]map[string]os.FileMode{
		"nothing there":   {},
		"an older one":    {"picod": 0o555},
		"killed before":   {"picod.part": 0o555},
		"both, read-only": {"picod": 0o400, "picod.part": 0o400},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for file, mode := range before {
				if err := os.WriteFile(filepath.Join(dir, file), []byte("old"), mode); err != nil {
					t.Fatal(err)
				}
			}
			target := filepath.Join(dir, "picod")
			// Whatever the runtime's mask is, the user of the sandbox can run it.
			install := exec.Command("sh", "-c", `umask 077; exec "$0" install "$1"`, program, target)
			if os.Geteuid() == 0 { // who can write to anything
				if err := os.Chmod(filepath.Dir(program), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.Chown(dir, 65534, 65534); err != nil {
					t.Fatal(err)
				}
				for file := range before {
					if err := os.Chown(filepath.Join(dir, file), 65534, 65534); err != nil {
						t.Fatal(err)
					}
				}
				openTo(t, dir)
				install.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
			}
			if out, err := install.CombinedOutput(); err != nil {
				t.Fatalf("install: %v\n%s", err, out)
			}
			wantFiles(t, dir, "picod")
			info, err := os.Stat(target)
			if err != nil || info.Mode() != 0o555 {
				t.Errorf("mode is %v, %v, want 0555", info.Mode(), err)
			}
			if got, err := os.ReadFile(target); err != nil || !bytes.Equal(got, want) {
				t.Errorf("what was installed is not the program: %v", err)
			}
			if out, err := exec.Command(target, "--help").CombinedOutput(); !strings.Contains(string(out), "-workspace") {
				t.Errorf("what was installed does not run: %v\n%s", err, out)
			}
		})
	}
}

// openTo lets other users pass through to a folder of this test.
func openTo(t *testing.T, dir string) {
	t.Helper()
	for ; strings.HasPrefix(dir, os.TempDir()+"/"); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// TestInstallNoRoom: half a program must not be taken for one.
func TestInstallNoRoom(t *testing.T) {
	const script = `mount -t tmpfs -o size=1m none "$1" && "$0" install "$1/picod"; echo "exit $?"; ls -A "$1"`
	var out, said bytes.Buffer
	cmd := exec.Command("sh", "-c", script, build(t), t.TempDir())
	cmd.Stdout, cmd.Stderr = &out, &said
	cmd.SysProcAttr = &syscall.SysProcAttr{ // where anybody may mount
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}, GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, said.String())
	}
	if out.String() != "exit 1\n" || !strings.Contains(said.String(), "no space left") {
		t.Errorf("install without room: %q, %q, want an error and nothing left", out.String(), said.String())
	}
}

func TestInstallRefuses(t *testing.T) {
	dir := t.TempDir()
	for name, args := range map[string][]string{
		"no path":   {"install"},
		"two paths": {"install", filepath.Join(dir, "a"), filepath.Join(dir, "b")},
		"no folder": {"install", filepath.Join(dir, "none", "picod")},
		"a folder":  {"install", dir},
	} {
		t.Run(name, func(t *testing.T) {
			if out, err := exec.Command(build(t), args...).CombinedOutput(); err == nil {
				t.Errorf("%q succeeds:\n%s", args, out)
			}
			wantFiles(t, dir)
		})
	}
	if _, err := os.Stat(dir + ".part"); err == nil {
		t.Error("a part is left")
	}
}

func wantFiles(t *testing.T, dir string, want ...string) {
	t.Helper()
	var got []string
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if err != nil || strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("%s has %q, %v, want %q", dir, got, err, want)
	}
}
