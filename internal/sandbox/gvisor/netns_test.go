package gvisor

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestNetnsTakesNoThread: all threads of this process stay in the host's network.
// Before, the first thread could be in a sandboxes' one, for good or for a moment.
// gVisor takes what that is in for what others have to go back to, and put them there, too.
func TestNetnsTakesNoThread(t *testing.T) {
	home, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	if runtime.LockOSThread(); unix.Gettid() == unix.Getpid() {
		t.Error("a goroutine that is not main's runs on the first thread")
	}
	runtime.UnlockOSThread()
	for range 200 {
		f, err := newNetns()
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	// gVisor starts its processes from there, on threads that go home: other drivers of
	// this process may be doing that just now.
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		away := elsewhere(t, home)
		if len(away) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("threads that stay away from %s: %v", home, away)
		}
	}
}

// elsewhere are the threads of this process that are not in a network namespace.
func elsewhere(t *testing.T, home string) (away []string) {
	t.Helper()
	threads, err := filepath.Glob("/proc/self/task/*/ns/net")
	if err != nil || len(threads) == 0 {
		t.Fatalf("no threads: %v", err)
	}
	for _, path := range threads {
		if at, err := os.Readlink(path); err == nil && at != home {
			away = append(away, path+" is "+at)
		}
	}
	return away
}
