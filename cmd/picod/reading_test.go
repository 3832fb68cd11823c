package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestNobodyReadsPicod: where commands run as the user that picod has, nothing but
// that keeps them from its memory and from what it was started with.
func TestNobodyReadsPicod(t *testing.T) {
	key, public := newKey(t)
	if err := os.Chmod(filepath.Dir(build(t)), 0o755); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(workspace(t))
	if err := os.Chown(dir, 54321, 54321); err != nil {
		t.Fatal(err)
	}
	as := []string{"setpriv", "--reuid=54321", "--regid=54321", "--clear-groups"}
	d := launch(t, key, []string{"PICOD_AUTH_PUBLIC_KEY=" + public}, as, "--workspace", filepath.Join(dir, "w"), "--cgroup-dir=")
	if got := d.shell("id -u"); got != "54321\n" {
		t.Fatalf("commands run as %q", got)
	}
	for _, name := range []string{"environ", "mem", "maps", "fd/0"} {
		if got := d.shell("head -c 1 /proc/" + d.pid(false) + "/" + name + " >/dev/null && echo read"); !strings.Contains(got, "Permission denied") {
			t.Errorf("%s: %q", name, got)
		}
	}
}
