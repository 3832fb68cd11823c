package hostlink

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Pair is a two-way line made of two pipes, In to read and Out to write.
type Pair struct{ In, Out *os.File }

// Read implements io.Reader.
func (p Pair) Read(b []byte) (int, error) { return p.In.Read(b) }

// Write implements io.Writer.
func (p Pair) Write(b []byte) (int, error) { return p.Out.Write(b) }

// Close closes both pipes. Reads and writes under way fail.
func (p Pair) Close() error { return errors.Join(p.In.Close(), p.Out.Close()) }

// SetReadDeadline implements Deadliner.
func (p Pair) SetReadDeadline(t time.Time) error { return p.In.SetReadDeadline(t) }

// SetWriteDeadline implements Deadliner.
func (p Pair) SetWriteDeadline(t time.Time) error { return p.Out.SetWriteDeadline(t) }

// Files are the ends of a line in the order in which they are given to PicoD:
// trunk in, trunk out, control in, control out.
type Files [4]*os.File

// Close closes all files that are there.
func (f Files) Close() error {
	var errs []error
	for _, file := range f {
		if file != nil {
			errs = append(errs, file.Close())
		}
	}
	return errors.Join(errs...)
}

// Trunk is the line of the trunk.
func (f Files) Trunk() Pair { return Pair{f[0], f[1]} }

// Control is the line of control messages.
func (f Files) Control() Pair { return Pair{f[2], f[3]} }

// trunkPipeBytes is the room in each of the trunk's pipes; a pipe's memory is
// taken only when it is filled.
const trunkPipeBytes = 1 << 20

// NewFiles makes a line: our ends, non-blocking, and those for the sandbox.
func NewFiles() (ours, theirs Files, err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, ours.Close(), theirs.Close())
		}
	}()
	for i := range ours {
		var p [2]int
		if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
			return ours, theirs, fmt.Errorf("make pipe: %w", err)
		}
		mine, other := p[1], p[0] // what they read, we write
		if i%2 == 1 {
			mine, other = p[0], p[1]
		}
		theirs[i] = os.NewFile(uintptr(other), "host line")
		if i < 2 {
			// A smaller pipe is slower, and no reason to fail.
			_, _ = unix.FcntlInt(uintptr(mine), unix.F_SETPIPE_SZ, trunkPipeBytes)
		}
		if err := unix.SetNonblock(mine, true); err != nil {
			_ = unix.Close(mine)
			return ours, theirs, fmt.Errorf("make pipe: %w", err)
		}
		// Ours come in the order of our own use: in, out.
		ours[i^1] = os.NewFile(uintptr(mine), "sandbox line")
	}
	return ours, theirs, nil
}

// AwaitNonce reads and throws away everything up to and including the nonce.
func AwaitNonce(r io.Reader, nonce []byte) error {
	if len(nonce) != NonceBytes {
		return fmt.Errorf("nonce has %d bytes, want %d", len(nonce), NonceBytes)
	}
	// Nothing behind the nonce may be read here: it is the other's first frame.
	window := make([]byte, 0, NonceBytes)
	for {
		want := NonceBytes - overlap(window, nonce)
		if want == 0 {
			return nil
		}
		chunk := make([]byte, want)
		if _, err := io.ReadFull(r, chunk); err != nil {
			return fmt.Errorf("wait for the other side: %w", err)
		}
		window = append(window, chunk...)
		if extra := len(window) - NonceBytes; extra > 0 {
			window = window[extra:]
		}
	}
}

// overlap is how many of the last bytes of window are the first of the nonce.
func overlap(window, nonce []byte) int {
	for n := min(len(window), len(nonce)); n > 0; n-- {
		if bytes.Equal(window[len(window)-n:], nonce[:n]) {
			return n
		}
	}
	return 0
}

// Tap lends out a line that outlives its user: when the tap is closed, reads
// and writes under way have returned, and the line is free for another.
type Tap struct {
	line   Deadliner
	shut   atomic.Bool
	rd, wr sync.Mutex // held while reading, writing
	close  func() error
}

// NewTap lends line.
func NewTap(line Deadliner) *Tap {
	t := &Tap{line: line}
	t.close = sync.OnceValue(t.giveBack)
	return t
}

// Read implements io.Reader.
func (t *Tap) Read(p []byte) (int, error) {
	t.rd.Lock()
	defer t.rd.Unlock()
	if t.shut.Load() {
		return 0, io.EOF
	}
	n, err := t.line.Read(p)
	if err != nil && t.shut.Load() {
		err = io.EOF
	}
	return n, err
}

// Write implements io.Writer.
func (t *Tap) Write(p []byte) (int, error) {
	t.wr.Lock()
	defer t.wr.Unlock()
	if t.shut.Load() {
		return 0, io.ErrClosedPipe
	}
	n, err := t.line.Write(p)
	if err != nil && t.shut.Load() {
		err = io.ErrClosedPipe
	}
	return n, err
}

// Close gives the line back. When it returns the line is free, also when another
// call began it: a deadline that is still to be set would be that of the next user.
func (t *Tap) Close() error { return t.close() }

func (t *Tap) giveBack() error {
	t.shut.Store(true)
	long := time.Unix(1, 0) // over for every clock
	errs := []error{t.line.SetReadDeadline(long), t.line.SetWriteDeadline(long)}
	t.rd.Lock()
	t.wr.Lock()
	defer t.rd.Unlock()
	defer t.wr.Unlock()
	return errors.Join(append(errs, t.line.SetReadDeadline(time.Time{}), t.line.SetWriteDeadline(time.Time{}))...)
}
