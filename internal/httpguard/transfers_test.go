package httpguard

import (
	"bufio"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// guarded serves a handler behind the guard on a plain server.
func guarded(t *testing.T, g Transfers, h http.HandlerFunc) (addr string) {
	t.Helper()
	srv := httptest.NewServer(g.Wrap(h))
	t.Cleanup(srv.Close)
	return srv.Listener.Addr().String()
}

const post = "POST / HTTP/1.1\r\nHost: x\r\n"

// hasty is a pace that is met by nobody who waits on purpose.
var hasty = Pace{Window: 100 * time.Millisecond, Bytes: 1 << 20}

// calm is a pace at which a busy machine does not look like a slow client.
var calm = Pace{Window: time.Second, Bytes: 1 << 10}

func TestMeter(t *testing.T) {
	t.Parallel()
	m := meter{pace: Pace{Window: time.Minute, Bytes: 1000}}
	now := time.Now()
	left := func(n int) time.Duration { return m.deadline(now, n).Sub(now) }
	for _, step := range []struct {
		n          int
		took, left time.Duration
	}{
		{0, 0, time.Minute},
		{1, 59 * time.Second, time.Second}, // a byte a minute is not enough
		{1, 500 * time.Millisecond, 500 * time.Millisecond},
		{998, 400 * time.Millisecond, time.Minute}, // enough
		{999, 30 * time.Second, 30 * time.Second},
		{1, 20 * time.Second, time.Minute},
		{5000, time.Hour, time.Minute},
		{0, 2 * time.Minute, -time.Minute},
	} {
		m.passed(step.n, step.took)
		if got := left(0); got != step.left {
			t.Errorf("after %d bytes in %v: %v are left, want %v", step.n, step.took, got, step.left)
		}
	}
	m = meter{pace: m.pace}
	if got := left(500); got != 90*time.Second {
		t.Errorf("500 bytes may take %v, want half a window more", got)
	}
}

// TestSlowBody: a client that always sends a little is not waited for.
func TestSlowBody(t *testing.T) {
	t.Parallel()
	for _, length := range []string{"Content-Length: 1000\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n"} {
		read := make(chan error, 1)
		addr := guarded(t, Transfers{Pace: hasty}, func(w http.ResponseWriter, r *http.Request) {
			_, err := io.ReadAll(r.Body)
			read <- err
			w.WriteHeader(http.StatusRequestTimeout)
		})
		conn := dial(t, addr)
		stop := make(chan struct{})
		go func() {
			defer close(stop)
			_, err := io.WriteString(conn, post+length)
			for err == nil {
				time.Sleep(hasty.Window / 10)
				_, err = io.WriteString(conn, map[bool]string{true: "x", false: "1\r\nx\r\n"}[strings.HasPrefix(length, "C")])
			}
		}()
		if err := <-read; !errors.Is(err, ErrStalled) || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("reading ended with %v, want ErrStalled", err)
		}
		in := bufio.NewReader(conn)
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusRequestTimeout || !resp.Close {
			t.Errorf("answered %d, close %t", resp.StatusCode, resp.Close)
		}
		_, _ = io.Copy(io.Discard, in)
		_ = conn.Close()
		<-stop
	}
}

// TestUnreadBody: nor is the rest of a body waited for that the handler did not want.
func TestUnreadBody(t *testing.T) {
	t.Parallel()
	for _, length := range []string{"Content-Length: 1000\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n3e8\r\n"} {
		addr := guarded(t, Transfers{Pace: hasty}, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) })
		conn := dial(t, addr)
		if _, err := io.WriteString(conn, post+length+"begun"); err != nil {
			t.Fatal(err)
		}
		if text := said(t, conn); !strings.HasPrefix(text, "HTTP/1.1 401") || !strings.Contains(text, "Connection: close") {
			t.Errorf("answered %q", text)
		}
	}
}

// TestSlowReader: a client that does not take its answer is not waited for, whether
// it is made or a file.
func TestSlowReader(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "large")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, 1<<30); err != nil {
		t.Fatal(err)
	}
	for name, send := range map[string]func(http.ResponseWriter) error{
		"at once": func(w http.ResponseWriter) error { _, err := w.Write(make([]byte, 64<<20)); return err },
		"in pieces": func(w http.ResponseWriter) error {
			for {
				if _, err := w.Write(make([]byte, 4<<10)); err != nil {
					return err
				}
				if err := http.NewResponseController(w).Flush(); err != nil {
					return err
				}
			}
		},
		"file": func(w http.ResponseWriter) error {
			f, err := os.Open(file)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = io.Copy(w, f)
			return err
		},
		"part of a file": func(w http.ResponseWriter) error {
			f, err := os.Open(file)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = io.CopyN(w, f, 1<<29)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			sent := make(chan error, 1)
			addr := guarded(t, Transfers{Pace: Pace{Window: 100 * time.Millisecond, Bytes: 8 << 20}}, func(w http.ResponseWriter, _ *http.Request) { sent <- send(w) })
			if _, err := io.WriteString(dial(t, addr), "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-sent:
				if !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("sending ended with %v", err)
				}
			case <-time.After(guard):
				t.Fatal("the handler waits for ever")
			}
		})
	}
}

// TestFilesArriveWhole: what is sent in pieces is what was to be sent.
func TestFilesArriveWhole(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "f")
	content := strings.Repeat("0123456789abcdef", 1<<16)
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(Transfers{}.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, file) })))
	defer srv.Close()
	for _, test := range []struct{ header, want string }{{"", content}, {"bytes=7-600000", content[7:600001]}, {"bytes=-1", content[len(content)-1:]}} {
		req, err := http.NewRequest("GET", srv.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		if test.header != "" {
			req.Header.Set("Range", test.header)
		}
		resp, err := srv.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || string(got) != test.want {
			t.Errorf("%q: %d bytes, %v, want %d", test.header, len(got), err, len(test.want))
		}
	}
}

// TestSlowHandler: how long a handler takes, before its answer and in it, is no
// matter, and the next request on the connection is not held to deadlines of the
// one before.
func TestSlowHandler(t *testing.T) {
	t.Parallel()
	if calm.Window > guard/10 {
		t.Fatal("this takes too long")
	}
	wait := calm.Window + calm.Window/4
	addr := guarded(t, Transfers{Pace: calm}, func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(wait)
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		for range 2 {
			_, _ = w.Write(body)
			if err := http.NewResponseController(w).Flush(); err != nil {
				t.Error(err)
			}
			time.Sleep(wait)
		}
	})
	conn := dial(t, addr)
	for range 2 {
		if _, err := io.WriteString(conn, post+"Content-Length: 5\r\n\r\nhello"); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || string(got) != "hellohello" {
			t.Errorf("got %q, %v", got, err)
		}
	}
}

// TestConversation: once the answer has begun, the body of a duplex request may
// take its time; of others it may not.
func TestConversation(t *testing.T) {
	t.Parallel()
	for _, duplex := range []bool{true, false} {
		end := make(chan error, 1)
		addr := guarded(t, Transfers{Pace: Pace{Window: 500 * time.Millisecond, Bytes: 1 << 10}, Duplex: duplex}, func(w http.ResponseWriter, r *http.Request) {
			control := http.NewResponseController(w)
			if err := errors.Join(control.EnableFullDuplex(), control.Flush()); err != nil {
				t.Error(err)
			}
			_, err := io.ReadAll(r.Body)
			end <- err
		})
		conn := dial(t, addr)
		if _, err := io.WriteString(conn, post+"Content-Length: 5\r\n\r\nhell"); err != nil {
			t.Fatal(err)
		}
		if _, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil {
			t.Fatal(err)
		}
		if !duplex {
			if err := <-end; !errors.Is(err, ErrStalled) {
				t.Errorf("reading ended with %v, want ErrStalled", err)
			}
			continue
		}
		time.Sleep(time.Second)
		if _, err := io.WriteString(conn, "o"); err != nil {
			t.Fatal(err)
		}
		if err := <-end; err != nil {
			t.Errorf("in a conversation reading ended with %v", err)
		}
	}
}
