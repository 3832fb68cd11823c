package picod

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"testing"
)

// TestCoalescer: all that is written arrives, in order, however slowly it is read.
func TestCoalescer(t *testing.T) {
	ours, theirs := net.Pipe()
	c := newCoalescer(ours)
	sent := make([]byte, 3<<20)
	_, _ = rand.Read(sent)
	got := make(chan []byte, 1)
	go func() {
		all, _ := io.ReadAll(theirs)
		got <- all
	}()
	for rest, size := sent, 1; len(rest) > 0; size = size%40000 + 777 {
		n := min(size, len(rest))
		if _, err := c.Write(rest[:n]); err != nil {
			t.Fatal(err)
		}
		rest = rest[n:]
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if all := <-got; !bytes.Equal(all, sent) {
		t.Errorf("%d bytes arrived, of %d, or in another order", len(all), len(sent))
	}
	if _, err := c.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a write after the end: %v", err)
	}
}

// TestCoalescerBroken: who writes is told, and nobody waits for ever.
func TestCoalescerBroken(t *testing.T) {
	ours, theirs := net.Pipe()
	c := newCoalescer(ours)
	go func() {
		_, _ = io.CopyN(io.Discard, theirs, 100)
		theirs.Close()
	}()
	var err error
	for range 1000 {
		if _, err = c.Write(make([]byte, 16<<10)); err != nil {
			break
		}
	}
	if err == nil {
		t.Error("nobody was told that the other side is gone")
	}
	_ = c.Close()
}
