package agent

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// SentryFile is the name under which gVisor looks for its kernel.
const SentryFile = "gvisor_sentry"

// sidecarDir is the variable by which gVisor finds its kernel as a program of
// its own.
const sidecarDir = "GVISOR_SIDECAR_BINARIES_DIR"

// InstallSentry puts gVisor's kernel into the folder programs, once for each version of it, and
// has gVisor start sandboxes with it. gVisor looks once in the life of a
// process: of several drivers in one the first decides.
func InstallSentry(programs string) error {
	packed := packedSentry()
	if packed == nil || os.Getenv(sidecarDir) != "" { //nolint:forbidigo // gVisor is told in no other way, and told once
		return nil
	}
	sum := sha256.Sum256(packed)
	home := filepath.Join(programs, "sentry-"+hex.EncodeToString(sum[:8]))
	if _, err := os.Stat(home); err != nil {
		if err := writeSentry(home, packed); err != nil {
			return fmt.Errorf("unpack gVisor's kernel: %w", err)
		}
	}
	dir, err := unix.Open(home, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open the folder of gVisor's kernel: %w", err)
	}
	defer unix.Close(dir)
	// Who executes it is nobody already, and may not be able to go down to the
	// folder from the root. The number is out of the way of those that the new
	// process is given; it stays open for as long as this process lives.
	const apart = 1000
	held, err := unix.FcntlInt(uintptr(dir), unix.F_DUPFD_CLOEXEC, apart)
	if err != nil {
		return fmt.Errorf("hold the folder of gVisor's kernel: %w", err)
	}
	if err := os.Setenv(sidecarDir, fmt.Sprintf("/proc/self/fd/%d", held)); err != nil {
		return fmt.Errorf("tell gVisor where its kernel is: %w", err)
	}
	return nil
}

func writeSentry(home string, packed []byte) error {
	work, err := os.MkdirTemp(filepath.Dir(home), ".build-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	if err := os.Chmod(work, 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(work, SentryFile), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	if err := errors.Join(unpack(f, packed), f.Close()); err != nil {
		return err
	}
	err = os.Rename(work, home)
	if errors.Is(err, fs.ErrExist) {
		return nil // another process was faster
	}
	return err
}

// packedSentry is the compressed executable of gVisor's kernel for this
// platform; nil in a build without it, which starts sandboxes with itself.
func packedSentry() []byte {
	b, err := files.ReadFile("bin/gvisor_sentry.gz")
	if err != nil {
		return nil
	}
	return b
}

// maxProgram bounds what unpack writes, in bytes.
const maxProgram = 256 << 20

func unpack(w io.Writer, packed []byte) error {
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err == nil {
		_, err = io.Copy(w, io.LimitReader(z, maxProgram))
	}
	if err != nil {
		return fmt.Errorf("unpack program: %w", err)
	}
	return nil
}
