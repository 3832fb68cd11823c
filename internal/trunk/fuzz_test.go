package trunk

import (
	"bytes"
	"context"
	"io"
	"sync"
	"testing"
	"time"
)

// recorded is what the other end of a connection says, whatever it is told.
type recorded struct {
	said   *bytes.Reader
	closed chan struct{}
	once   sync.Once
}

func (r *recorded) Read(p []byte) (int, error) {
	n, err := r.said.Read(p)
	if err == io.EOF && n == 0 {
		// It is silent for a moment before it goes.
		select {
		case <-r.closed:
		case <-time.After(2 * time.Millisecond):
		}
	}
	return n, err
}
func (r *recorded) Write(p []byte) (int, error) { return len(p), nil }
func (r *recorded) Close() error                { r.once.Do(func() { close(r.closed) }); return nil }

// frame is one of smux: version, command, length and stream, both little-endian.
func frame(cmd byte, stream uint32, data string) string {
	n := len(data)
	return string([]byte{2, cmd, byte(n), byte(n >> 8), byte(stream), byte(stream >> 8), byte(stream >> 16), byte(stream >> 24)}) + data
}

func seeds(f *testing.F) {
	for _, text := range []string{
		"", frame(0, 3, ""), frame(0, 3, "") + frame(2, 3, "\x00\x07") + frame(2, 3, "hello"), frame(2, 3, "\x00"), frame(0, 3, "") + frame(0, 3, ""),
		frame(2, 9, "x"), frame(4, 3, "\x00\x00\x00\x00\x00\x00\x00\x00"), frame(4, 3, "\xff\xff\xff\xff\xff\xff\xff\xff"), frame(9, 0, ""), frame(3, 0, ""), "\x01\x00\x00\x00\x00\x00\x00\x00",
		frame(1, 3, ""), frame(0, 3, "") + frame(2, 3, "\x00\x09"), "\x02\x02\xff\xff\x03\x00\x00\x00short",
	} {
		f.Add([]byte(text))
	}
}

// FuzzServe: PicoD's end survives whatever comes on the pipe.
func FuzzServe(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, said []byte) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_ = Serve(ctx, &recorded{said: bytes.NewReader(said), closed: make(chan struct{})}, echo)
		if ctx.Err() != nil {
			t.Error("it did not end with the connection")
		}
	})
}

// FuzzDial: the host's end survives whatever a sandbox sends. One that lets nothing
// be sent to it is waited for as long as the caller likes.
func FuzzDial(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, said []byte) {
		d, err := NewDialer(&recorded{said: bytes.NewReader(said), closed: make(chan struct{})})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		conn, err := d.Dial(ctx, 7)
		if err != nil {
			return
		}
		_ = conn.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
		_, _ = io.Copy(io.Discard, conn)
		_ = conn.Close()
	})
}
