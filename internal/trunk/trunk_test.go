package trunk

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/volcano-sh/agentcube/internal/httpguard/guardtest"
)

func TestMain(m *testing.M) { guardtest.Main(m) }

// pair is a trunk over a real Unix socket pair, as between host and sandbox.
func pair(t *testing.T, handle Handler) *Dialer {
	t.Helper()
	l, err := net.Listen("unix", t.TempDir()+"/s")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	near, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- Serve(context.Background(), far, handle) }()
	d, err := NewDialer(near)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		d.Close()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return d
}

// echo sends back what it gets on port 7, and refuses all others.
func echo(_ context.Context, port uint16, accept func() (net.Conn, error)) error {
	if port != 7 {
		return ErrRefused
	}
	c, err := accept()
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = io.Copy(c, c)
	return err
}

func TestManyStreamsKeepTheirBytes(t *testing.T) {
	d := pair(t, echo)
	var g errgroup.Group
	for range 8 {
		g.Go(func() error {
			data := make([]byte, 8<<20)
			rand.Read(data)
			c, err := d.Dial(context.Background(), 7)
			if err != nil {
				return err
			}
			defer c.Close()
			go c.Write(data)
			got := make([]byte, len(data))
			if _, err := io.ReadFull(c, got); err != nil {
				return err
			}
			if sha256.Sum256(got) != sha256.Sum256(data) {
				return errors.New("bytes differ")
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
}

func TestRefused(t *testing.T) {
	d := pair(t, echo)
	if _, err := d.Dial(context.Background(), 9); !errors.Is(err, ErrRefused) {
		t.Errorf("err = %v, want ErrRefused", err)
	}
	if !d.Alive() {
		t.Error("a refused port ended the trunk")
	}
}

func TestFailed(t *testing.T) {
	d := pair(t, func(context.Context, uint16, func() (net.Conn, error)) error { return errors.New("no") })
	if _, err := d.Dial(context.Background(), 9); !errors.Is(err, ErrFailed) {
		t.Errorf("err = %v, want ErrFailed", err)
	}
}

func TestDialHonoursContext(t *testing.T) {
	d := pair(t, func(ctx context.Context, _ uint16, _ func() (net.Conn, error)) error {
		<-ctx.Done()
		return ctx.Err()
	})
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(10*time.Millisecond, cancel)
	if _, err := d.Dial(ctx, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("err = %v, want Canceled", err)
	}
}

// A stream that nobody reads must not hold up the others.
func TestStalledStream(t *testing.T) {
	d := pair(t, echo)
	stalled, err := d.Dial(context.Background(), 7)
	if err != nil {
		t.Fatal(err)
	}
	go stalled.Write(make([]byte, 4<<20)) // echoed, and never read
	for range 100 {
		c, err := d.Dial(context.Background(), 7)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 5)
		if _, err := io.ReadFull(c, got); err != nil || string(got) != "hello" {
			t.Fatalf("got %q, %v", got, err)
		}
		c.Close()
	}
}

func TestListenerServesHTTP(t *testing.T) {
	l := NewListener()
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })}
	served := make(chan struct{})
	go func() { defer close(served); _ = srv.Serve(l) }()
	t.Cleanup(func() { srv.Close(); <-served })
	d := pair(t, l.Deliver)
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return d.Dial(ctx, 8080) }}
	defer tr.CloseIdleConnections()
	body := bytes.Repeat([]byte("x"), 10<<20)
	resp, err := (&http.Client{Transport: tr}).Post("http://sandbox/", "", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil || !bytes.Equal(got, body) {
		t.Fatalf("echoed %d bytes of %d, %v", len(got), len(body), err)
	}
}

func TestLoopback(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); _, _ = io.Copy(c, c) }()
		}
	}()
	d := pair(t, Loopback)
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	c, err := d.Dial(context.Background(), port)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("ping")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 4)
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "ping" {
		t.Fatalf("got %q, %v", got, err)
	}
	c.Close()
	l.Close()
	if _, err := d.Dial(context.Background(), port); !errors.Is(err, ErrRefused) {
		t.Errorf("after the listener ended: %v, want ErrRefused", err)
	}
}
