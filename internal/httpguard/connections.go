package httpguard

import (
	"container/list"
	"context"
	"net"
	"net/http"
	"sync"
	"time"
)

// patience is how long a connection without a request is left alone when others
// want its place: that long a client may take to begin its first request.
const patience = time.Second

// Connections bounds the connections of a server, and the requests on all of them
// together: its Listener, Context and Wrap go to one http.Server. It is safe for
// concurrent use.
type Connections struct {
	most     int
	refusal  []byte
	patience time.Duration

	mu       sync.Mutex
	count    int
	requests int
	idle     list.List // of *conn without a request, those that wait longest first
}

// NewConnections bounds to so many. What a client hears that finds no room is
// refusal, as it is, and the end of its connection.
func NewConnections(most int, refusal string) *Connections {
	return &Connections{most: most, refusal: []byte(refusal), patience: patience}
}

// Listener counts what l accepts.
func (c *Connections) Listener(l net.Listener) net.Listener { return &listener{l, c} }

type listener struct {
	net.Listener
	all *Connections
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	for {
		raw, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if c := l.all.admit(raw); c != nil {
			return c.outer(), nil
		}
		_ = raw.SetWriteDeadline(time.Now().Add(patience))
		_, _ = raw.Write(l.all.refusal)
		_ = raw.Close()
	}
}

// conn is a counted connection. All but the raw one is guarded by all.mu.
type conn struct {
	net.Conn
	all      *Connections
	requests int
	place    *list.Element // in all.idle; nil while there is a request
	since    time.Time     // that it has been there
	gone     bool
}

// tcpConn is a counted connection that the kernel can send files on.
type tcpConn struct {
	*net.TCPConn
	counted *conn
}

// Close implements net.Conn.
func (c tcpConn) Close() error { return c.counted.Close() }

func (c *conn) outer() net.Conn {
	if tcp, ok := c.Conn.(*net.TCPConn); ok {
		return tcpConn{tcp, c}
	}
	return c
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.all.mu.Lock()
	c.all.forget(c)
	c.all.mu.Unlock()
	return c.Conn.Close()
}

// admit counts a connection, in the place of one that is idle if need be; nil
// means that there is no room.
func (c *Connections) admit(raw net.Conn) *conn {
	var evicted *conn
	defer func() {
		if evicted != nil {
			_ = evicted.Conn.Close()
		}
	}()
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.count >= c.most {
		front := c.idle.Front()
		if front == nil {
			return nil
		}
		oldest, _ := front.Value.(*conn)
		if now.Sub(oldest.since) < c.patience {
			return nil
		}
		evicted = oldest
		c.forget(evicted)
	}
	admitted := &conn{Conn: raw, all: c, since: now}
	admitted.place = c.idle.PushBack(admitted)
	c.count++
	return admitted
}

// forget counts a connection no longer.
func (c *Connections) forget(gone *conn) {
	if gone.gone {
		return
	}
	gone.gone = true
	c.count--
	if gone.place != nil {
		c.idle.Remove(gone.place)
		gone.place = nil
	}
}

type connKey struct{}

// Context is for http.Server.ConnContext. The connection may be one over the counted
// one, such as of TLS: those have a method NetConn.
func (c *Connections) Context(ctx context.Context, of net.Conn) context.Context {
	if counted := countedOf(of); counted != nil {
		return context.WithValue(ctx, connKey{}, counted)
	}
	return ctx
}

// countedOf finds the counted connection below another one; nil if there is none.
func countedOf(of net.Conn) *conn {
	for {
		switch over := of.(type) {
		case tcpConn:
			return over.counted
		case *conn:
			return over
		case interface{ NetConn() net.Conn }:
			of = over.NetConn()
		default:
			return nil
		}
	}
}

// Wrap notes which connections requests are on. HTTP/2 can have many on one: those
// that are too many in all are broken off without an answer.
func (c *Connections) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		on, _ := r.Context().Value(connKey{}).(*conn)
		if on == nil || on.all != c {
			next.ServeHTTP(w, r)
			return
		}
		if !c.begin(on) {
			panic(http.ErrAbortHandler)
		}
		defer c.end(on)
		next.ServeHTTP(w, r)
	})
}

// Use counts a connection, which somebody else than the HTTP server serves, as one
// with a request while serve lasts. When there is no room it is closed instead.
func (c *Connections) Use(of net.Conn, serve func()) {
	counted := countedOf(of)
	if counted == nil || !c.begin(counted) {
		_ = of.Close()
		return
	}
	defer c.end(counted)
	serve()
}

func (c *Connections) begin(on *conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if on.gone || c.requests >= c.most {
		return false
	}
	c.requests++
	if on.requests++; on.place != nil {
		c.idle.Remove(on.place)
		on.place = nil
	}
	return true
}

func (c *Connections) end(on *conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requests--
	if on.requests--; on.requests == 0 && !on.gone {
		on.since = time.Now()
		on.place = c.idle.PushBack(on)
	}
}
