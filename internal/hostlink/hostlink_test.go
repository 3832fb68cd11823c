package hostlink

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// ends are a line and both its ends, non-blocking as PicoD makes its own.
func ends(t *testing.T) (ours, theirs Files) {
	t.Helper()
	ours, theirs, err := NewFiles()
	if err != nil {
		t.Fatal(err)
	}
	for i, file := range theirs {
		fd, err := syscall.Dup(int(file.Fd()))
		if err != nil {
			t.Fatal(err)
		}
		file.Close()
		if err := syscall.SetNonblock(fd, true); err != nil {
			t.Fatal(err)
		}
		theirs[i] = os.NewFile(uintptr(fd), "theirs")
	}
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	return ours, theirs
}

func TestFilesCarryBothWays(t *testing.T) {
	ours, theirs := ends(t)
	for name, line := range map[string][2]Pair{
		"trunk": {ours.Trunk(), theirs.Trunk()}, "control": {ours.Control(), theirs.Control()},
	} {
		for _, way := range [][2]Pair{line, {line[1], line[0]}} {
			if _, err := io.WriteString(way[0], name); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, len(name))
			if _, err := io.ReadFull(way[1], got); err != nil || string(got) != name {
				t.Errorf("%s: read %q, %v", name, got, err)
			}
		}
	}
}

func TestCall(t *testing.T) {
	ours, theirs := ends(t)
	served := make(chan error, 1)
	var seen []Request
	go func() {
		served <- Serve(theirs.Control(), func(req Request) error {
			seen = append(seen, req)
			if req.Op == OpPrepare {
				return errors.New("not now")
			}
			return nil
		})
	}()
	control := NewControl(ours.Control())
	id := Identity{SandboxID: "s-1", Hostname: "s-1", MachineID: strings.Repeat("0", 32)}
	if err := control.Call(t.Context(), Request{Op: OpAssume, Identity: &id}); err != nil {
		t.Error(err)
	}
	if err := control.Call(t.Context(), Request{Op: OpPrepare}); err == nil || !strings.Contains(err.Error(), "not now") {
		t.Errorf("Call = %v, want the other side's error", err)
	}
	control.Close()
	if err := <-served; !errors.Is(err, io.EOF) {
		t.Errorf("Serve = %v, want EOF", err)
	}
	if len(seen) != 2 || seen[0].Identity == nil || *seen[0].Identity != id {
		t.Errorf("seen %+v", seen)
	}
}

// A call that nobody answers ends with its context, and the line with it.
func TestCallGivenUp(t *testing.T) {
	ours, _ := ends(t)
	control := NewControl(ours.Control())
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	if err := control.Call(ctx, Request{Op: OpContinue}); !errors.Is(err, context.Canceled) {
		t.Errorf("Call = %v, want %v", err, context.Canceled)
	}
	if err := control.Call(t.Context(), Request{Op: OpContinue}); err == nil {
		t.Error("a line that was given up is used again")
	}
}

func TestAwaitNonce(t *testing.T) {
	nonce := make([]byte, NonceBytes)
	if _, err := rand.Read(nonce); err != nil {
		t.Fatal(err)
	}
	for name, before := range map[string][]byte{
		"nothing":             nil,
		"half a frame":        []byte("\x02\x01half"),
		"much":                bytes.Repeat([]byte("x"), 100_000),
		"the nonce's own end": nonce[5:],
		"most of the nonce":   nonce[:NonceBytes-1],
		"its first byte":      bytes.Repeat(nonce[:1], 3),
	} {
		stream := bytes.NewReader(append(append(bytes.Clone(before), nonce...), "after"...))
		if err := AwaitNonce(stream, nonce); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if rest, _ := io.ReadAll(stream); string(rest) != "after" {
			t.Errorf("%s: left to read: %q", name, rest)
		}
	}
	if err := AwaitNonce(strings.NewReader("something else"), nonce); err == nil {
		t.Error("a stream without the nonce is accepted")
	}
	if err := AwaitNonce(strings.NewReader("x"), []byte("short")); err == nil {
		t.Error("a short nonce is accepted")
	}
}

// A tap that was closed, by several at once as a multiplexer and its owner do,
// leaves the line to the next as if it had never been.
func TestTapGivesTheLineBack(t *testing.T) {
	ours, theirs := ends(t)
	for round := range 200 {
		tap := NewTap(theirs.Trunk())
		read := make(chan error, 1)
		go func() {
			_, err := tap.Read(make([]byte, 1))
			read <- err
		}()
		var closers sync.WaitGroup
		for range 2 {
			closers.Go(func() {
				if err := tap.Close(); err != nil {
					t.Error(err)
				}
			})
		}
		if err := tap.Close(); err != nil {
			t.Fatal(err)
		}
		next := NewTap(theirs.Trunk())
		got := make(chan error, 1)
		go func() {
			_, err := next.Read(make([]byte, 1))
			got <- err
		}()
		closers.Wait()
		if _, err := ours.Trunk().Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if err := <-got; err != nil {
			t.Fatalf("round %d: the next user reads: %v", round, err)
		}
		if err := <-read; !errors.Is(err, io.EOF) {
			t.Fatalf("round %d: the last user read: %v, want EOF", round, err)
		}
		if err := next.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// slowLine takes its time to accept a deadline.
type slowLine struct {
	Deadliner
	asked, goOn chan struct{}
	once        sync.Once
}

func (l *slowLine) SetReadDeadline(at time.Time) error {
	l.once.Do(func() {
		close(l.asked)
		<-l.goOn
	})
	return l.Deadliner.SetReadDeadline(at)
}

// Who closes a tap that is being closed waits until the line is free.
func TestTapIsClosedOnce(t *testing.T) {
	_, theirs := ends(t)
	line := &slowLine{Deadliner: theirs.Trunk(), asked: make(chan struct{}), goOn: make(chan struct{})}
	tap := NewTap(line)
	first, second := make(chan error, 1), make(chan error, 1)
	go func() { first <- tap.Close() }()
	<-line.asked
	go func() { second <- tap.Close() }()
	select {
	case <-second:
		t.Error("the second Close returned while the first was at work")
		second <- nil
	case <-time.After(50 * time.Millisecond):
	}
	close(line.goOn)
	if err := errors.Join(<-first, <-second); err != nil {
		t.Error(err)
	}
}
