package picod

import (
	"context"
	"net"
	"testing"

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
