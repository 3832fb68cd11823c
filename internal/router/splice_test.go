package router_test

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/session"
)

// splice hands the Router one end of a connection, and is the other one.
func (w *world) splice() net.Conn {
	near, far := net.Pipe()
	over := make(chan struct{})
	go func() {
		defer close(over)
		w.router.Splice(context.Background(), far, nil)
	}()
	w.t.Cleanup(func() {
		near.Close()
		<-over
	})
	_ = near.SetDeadline(time.Now().Add(guard))
	return near
}

// TestSplice: a connection is carried unread only to a session at which PicoD itself
// checks who calls. Where the Router would have to check, it is not carried at all.
func TestSplice(t *testing.T) {
	t.Parallel()
	w := newWorld(t, ok, nil)
	secured := func(s *session.Session) { keyBound(t)(s); s.Certificate = "some" }
	for name, test := range map[string]struct {
		of      string
		carried bool
	}{
		"key-bound":           {api.SecureName(w.add(secured).ID), true},
		"without certificate": {api.SecureName(w.add(keyBound(t)).ID), false},
		"managed":             {api.SecureName(w.add(func(s *session.Session) { s.Certificate = "some" }).ID), false},
		"own server":          {api.SecureName(w.add(func(s *session.Session) { s.Auth, s.Certificate = api.AuthNone, "some" }).ID), false},
		"nobody":              {api.SecureName("none"), false},
		"another name":        {"localhost", false},
	} {
		before := w.dials.Load()
		// What is in the sandbox answers a ClientHello as HTTP does.
		err := tls.Client(w.splice(), &tls.Config{ServerName: test.of, InsecureSkipVerify: true}).HandshakeContext(t.Context())
		if dialed := w.dials.Load() > before; err == nil || dialed != test.carried || strings.Contains(err.Error(), "unrecognized name") == test.carried {
			t.Errorf("%s: sandbox reached: %v, the client hears %v", name, dialed, err)
		}
	}
}

// TestSpliceOthers: a connection that names no session is served by somebody else, from
// its first byte; one that names a session never is, whatever becomes of it.
func TestSpliceOthers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, ok, nil)
	maker := httptest.NewTLSServer(nil)
	defer maker.Close()
	for name, served := range map[string]bool{"example.com": true, "": true, api.SecureName("none"): false} {
		near, far := net.Pipe()
		_ = near.SetDeadline(time.Now().Add(guard))
		over := make(chan struct{})
		go func() {
			defer close(over)
			w.router.Splice(context.Background(), far, func(conn net.Conn) {
				defer conn.Close()
				conn = tls.Server(conn, &tls.Config{Certificates: maker.TLS.Certificates})
				_, _ = io.WriteString(conn, "hello")
			})
		}()
		client := tls.Client(near, &tls.Config{ServerName: name, InsecureSkipVerify: true})
		got, err := io.ReadAll(io.LimitReader(client, 5))
		if string(got) != "hello" == served {
			t.Errorf("%q: %q, %v", name, got, err)
		}
		near.Close()
		<-over
	}
}

// TestSpliceBounds: a greeting that does not end is not kept for ever.
func TestSpliceBounds(t *testing.T) {
	t.Parallel()
	w := newWorld(t, ok, nil)
	conn := w.splice()
	// A ClientHello of 65,000 bytes, in records of a byte each.
	message := append([]byte{1, 0, 0xfd, 0xe8}, make([]byte, 65_000)...)
	taken := 0
	for _, b := range message {
		n, err := conn.Write([]byte{22, 3, 1, 0, 1, b})
		if taken += n; err != nil {
			break
		}
	}
	if taken > 80<<10 {
		t.Errorf("%d bytes of a greeting were taken", taken)
	}
}
