package gvisor

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/sandbox/sandboxtest"
)

func TestConformance(t *testing.T) {
	shared := dataDir(t)
	image := makeImage(t, shared)
	sandboxtest.Run(t, sandboxtest.Config{
		New: func(t *testing.T) sandbox.Driver {
			dir := dataDir(t)
			d := openDriver(t, dir, image)
			t.Cleanup(func() {
				// The test may have opened the directory again since.
				if err := d.Close(); err != nil {
					t.Error(err)
				}
				last := openDriverIn(t, dir, image)
				closeEmpty(t, last)
			})
			return d
		},
		Reopen: func(t *testing.T, d sandbox.Driver) sandbox.Driver {
			if err := d.(*Driver).Close(); err != nil {
				t.Fatal(err)
			}
			again := New(d.(*Driver).cfg)
			if err := again.Open(t.Context()); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { again.Close() })
			return again
		},
		Image: "test", MissingImage: "missing", BootstrapKey: bootstrapKey(shared),
		Kill: func(_ context.Context, d sandbox.Driver, id string) error {
			b, err := d.(*Driver).find(id)
			if err != nil {
				return err
			}
			return unix.Kill(b.rec.PID, unix.SIGKILL)
		},
		Residue: residue,
	})
}

// openDriverIn is openDriver for a cleanup, when the test's context has ended.
func openDriverIn(t *testing.T, dir string, image testImage) *Driver {
	t.Helper()
	d := New(Config{DataDir: dir, Images: image})
	if err := d.Open(context.Background()); err != nil {
		t.Fatal(err)
	}
	return d
}

// residue looks for a sandbox everywhere on the machine that a driver of these
// tests leaves traces.
func residue(id string) []string {
	var left []string
	dirs, _ := filepath.Glob(filepath.Join(os.TempDir(), "ac*", "sandboxes", id))
	left = append(left, dirs...)
	groups, _ := filepath.Glob(filepath.Join(cgroupRoot, "*", "agentcube-*", id))
	left = append(left, groups...)
	pids, err := sentries()
	if err != nil {
		return append(left, err.Error())
	}
	for _, pid := range pids {
		if strings.Contains(string(commandLine(pid)), "/sandboxes/"+id+"/") {
			left = append(left, fmt.Sprintf("process %d", pid))
		}
	}
	return left
}
