package picod

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/volcano-sh/agentcube/internal/httpguard/guardtest"
)

// listen serves a box as the daemon does.
func (b *box) listen() (addr string) {
	b.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.srv.Serve(ctx, l) }()
	b.t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			b.t.Error(err)
		}
	})
	return l.Addr().String()
}

// TestHostileRequests: what nobody should send is answered once, or not at all.
func TestHostileRequests(t *testing.T) {
	b := start(t, nil)
	addr := b.listen()
	guardtest.Run(t, guardtest.Target{Addr: addr, Path: "/api/execute", Status: 401})
	guardtest.Run(t, guardtest.Target{Addr: addr, Path: "/api/files", Status: 401, Header: "Content-Type: multipart/form-data; boundary=b\r\n"})
}

// TestBusyConnectionsStay: when there is no room for more connections, one that waits
// for its command is not given up, whether it is encrypted or not.
func TestBusyConnectionsStay(t *testing.T) {
	addr, certificate, b := serveSecurely(t, func(c *Config) { c.MaxConnections = 1 })
	for name, send := range map[string]func() (*http.Response, error){
		"plain": func() (*http.Response, error) { return b.http.Do(b.sleep("http://" + addr)) },
		"TLS": func() (*http.Response, error) {
			client := secureClient(t, addr, certificate, b.key, true)
			defer client.CloseIdleConnections()
			return client.Do(b.sleep("https://" + addr))
		},
	} {
		done := make(chan error, 1)
		var begun atomic.Bool
		go func() {
			resp, err := send()
			// Until the connection of the one before is gone, there is no room.
			for !begun.Load() && (err != nil || resp.StatusCode == http.StatusTooManyRequests) {
				if err == nil {
					resp.Body.Close()
				}
				time.Sleep(time.Millisecond)
				resp, err = send()
			}
			if err == nil {
				resp.Body.Close()
				if resp.StatusCode != http.StatusOK {
					err = fmt.Errorf("answered %s", resp.Status)
				}
			}
			b.http.CloseIdleConnections()
			done <- err
		}()
		for end := time.Now().Add(guard); ; time.Sleep(time.Millisecond) {
			if _, err := os.Stat(filepath.Join(b.dir, "started")); err == nil {
				begun.Store(true)
				break
			}
			if time.Now().After(end) {
				begun.Store(true) // or it tries for ever
				t.Fatalf("%s: the command does not begin", name)
			}
		}
		refused := 0
		for running := true; running; {
			select {
			case err := <-done:
				if running = false; err != nil {
					t.Errorf("%s: %v", name, err)
				}
			case <-time.After(20 * time.Millisecond):
				conn, err := net.Dial("tcp", addr)
				if err != nil {
					t.Fatal(err)
				}
				_ = conn.SetDeadline(time.Now().Add(50 * time.Millisecond))
				if said, _ := io.ReadAll(conn); strings.HasPrefix(string(said), "HTTP/1.1 429 ") {
					refused++
				}
				conn.Close()
			}
		}
		if refused == 0 {
			t.Errorf("%s: everybody found room", name)
		}
	}
}

// sleep is a request that takes longer than a connection without one is left alone.
func (b *box) sleep(url string) *http.Request {
	body := []byte(`{"command":["sh","-c","touch started; sleep 1.5; rm started"]}`)
	req, err := http.NewRequest("POST", url+"/api/execute", bytes.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	for name, value := range b.bearer(jwt.MapClaims{"body_sha256": hashOf(body)}) {
		req.Header.Set(name, value)
	}
	return req
}
