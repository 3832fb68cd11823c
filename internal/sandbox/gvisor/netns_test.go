package gvisor

import (
	"os"
	"path/filepath"
	"testing"
)

// TestNetnsTakesNoThread: all threads of this process stay in the host's network.
// Before, the first thread could be left in the sandboxes' one. gVisor takes
// what that is in for what others have to go back to, and put them there, too.
func TestNetnsTakesNoThread(t *testing.T) {
	home, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	for range 200 {
		f, err := newNetns()
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	threads, err := filepath.Glob("/proc/self/task/*/ns/net")
	if err != nil || len(threads) == 0 {
		t.Fatalf("no threads: %v", err)
	}
	for _, path := range threads {
		if at, err := os.Readlink(path); err == nil && at != home {
			t.Errorf("%s is %s, want %s", path, at, home)
		}
	}
}
