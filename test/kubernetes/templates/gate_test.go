package templates

import (
	"context"
	"net"
	"net/url"
	"sync"
	"testing"

	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
)

// gate is a way to the API server that can be closed: what runs through it sees the
// server go away, as when it is restarted, and come back.
type gate struct {
	listener net.Listener
	to       string

	mu    sync.Mutex
	shut  bool
	conns map[net.Conn]bool
	work  sync.WaitGroup
}

// openGate makes a gate, and a client that goes through it.
func openGate(t *testing.T) (*gate, dynamic.Interface) {
	t.Helper()
	address, err := url.Parse(server.config.Host)
	if err != nil {
		t.Fatal(err)
	}
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{listener: l, to: address.Host, conns: map[net.Conn]bool{}}
	g.work.Go(g.serve)
	t.Cleanup(g.end)
	config := rest.CopyConfig(server.config)
	config.Host = "https://" + l.Addr().String()
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return g, client
}

// end closes the gate for good.
func (g *gate) end() {
	_ = g.listener.Close()
	g.close()
	g.work.Wait()
}

func (g *gate) serve() {
	for {
		in, err := g.listener.Accept()
		if err != nil {
			return
		}
		g.work.Go(func() { g.carry(in) })
	}
}

func (g *gate) carry(in net.Conn) {
	defer in.Close()
	out, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", g.to)
	if err != nil {
		return
	}
	defer out.Close()
	if !g.keep(in, out) {
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		copyAll(out, in)
	}()
	copyAll(in, out)
	<-done
}

// copyAll copies until one end is closed, and then closes the other.
func copyAll(to, from net.Conn) {
	defer to.Close()
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (g *gate) keep(conns ...net.Conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range conns {
		g.conns[c] = true
	}
	return !g.shut
}

// close breaks all connections, and lets no new ones through.
func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = true
	for c := range g.conns {
		_ = c.Close()
	}
	clear(g.conns)
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = false
}
