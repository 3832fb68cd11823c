package httpserve_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/volcano-sh/agentcube/internal/httpserve"
)

// certified is a configuration for a server, and what a client trusts it by.
func certified(t *testing.T) (server, client *tls.Config) {
	t.Helper()
	maker := httptest.NewTLSServer(nil)
	defer maker.Close()
	transport, _ := maker.Client().Transport.(*http.Transport)
	client = transport.TLSClientConfig.Clone()
	client.ServerName = "example.com"
	return &tls.Config{MinVersion: tls.VersionTLS13, Certificates: maker.TLS.Certificates, NextProtos: []string{"h2", "http/1.1"}}, client
}

// TestTLS: both protocols are served with TLS, and nothing without; who wants
// connections of a certain name gets them from the first byte on.
func TestTLS(t *testing.T) {
	t.Parallel()
	for _, special := range []bool{false, true} {
		for _, most := range []int{0, 8} {
			t.Run(fmt.Sprintf("special=%v most=%d", special, most), func(t *testing.T) {
				t.Parallel()
				config, trust := certified(t)
				s := &httpserve.Server{TLS: config, MaxConnections: most, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					fmt.Fprint(w, r.Proto, " ", r.TLS != nil)
				})}
				var handed atomic.Int32
				if special {
					s.OnTLS = func(_ context.Context, conn net.Conn, serve func(net.Conn)) {
						handed.Add(1)
						serve(conn)
					}
				}
				addr, stop, done := run(t, s)
				for _, http2 := range []bool{false, true} {
					transport := &http.Transport{TLSClientConfig: trust.Clone(), ForceAttemptHTTP2: http2}
					want := map[bool]string{false: "HTTP/1.1 true", true: "HTTP/2.0 true"}[http2]
					for range 20 {
						if _, got, err := get(t, &http.Client{Transport: transport, Timeout: guard}, "https://"+addr); err != nil || got != want {
							t.Errorf("%q, %v, want %q", got, err, want)
						}
						transport.CloseIdleConnections()
					}
				}
				status, body, err := get(t, client(), "http://"+addr)
				if err != nil || status != http.StatusBadRequest || !strings.Contains(body, "HTTPS") {
					t.Errorf("in plain text: %d %q, %v", status, body, err)
				}
				if n := handed.Load(); special && n != 40 || !special && n != 0 {
					t.Errorf("%d connections were handed over", n)
				}
				stop()
				if err := <-done; err != nil {
					t.Errorf("Run: %v", err)
				}
			})
		}
	}
}

// TestTLSDrain: a request under way is answered also when it came with TLS.
func TestTLSDrain(t *testing.T) {
	t.Parallel()
	config, trust := certified(t)
	entered, draining := make(chan struct{}), make(chan struct{})
	addr, stop, done := run(t, &httpserve.Server{
		TLS: config, DrainTimeout: guard, OnDrain: func() { close(draining) },
		OnTLS: func(_ context.Context, conn net.Conn, serve func(net.Conn)) { serve(conn) },
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			close(entered)
			<-draining
			_, _ = io.WriteString(w, "done")
		}),
	})
	answered := make(chan string)
	go func() {
		c := &http.Client{Transport: &http.Transport{TLSClientConfig: trust, DisableKeepAlives: true}, Timeout: guard}
		_, body, err := get(t, c, "https://"+addr)
		answered <- fmt.Sprint(body, err)
	}()
	<-entered
	stop()
	if got := <-answered; got != "done<nil>" {
		t.Errorf("got %s", got)
	}
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
}

// TestTLSSilence: who begins no handshake does not stay.
func TestTLSSilence(t *testing.T) {
	t.Parallel()
	config, _ := certified(t)
	addr, stop, done := run(t, &httpserve.Server{TLS: config, Handler: http.NotFoundHandler(), HeaderTimeout: 10 * time.Millisecond})
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(guard))
	if _, err := bufio.NewReader(conn).ReadByte(); err == nil || strings.Contains(err.Error(), "timeout") {
		t.Errorf("the connection stays: %v", err)
	}
	stop()
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
}
