package router

import (
	"context"
	"crypto/rsa"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/auth"
	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/session"
)

// targets are the running sessions that the Router has met.
type targets struct {
	rt *Router

	mu      sync.Mutex
	byID    map[string]*target
	held    map[string]chan struct{} // closed when the session is held no longer
	wanted  map[string]int           // requests that are waking the session
	changes uint64                   // counts calls of changed
	sweepAt int                      // number of targets
}

func newTargets(rt *Router) *targets {
	return &targets{rt: rt, byID: map[string]*target{}, held: map[string]chan struct{}{}, wanted: map[string]int{}, sweepAt: firstSweep}
}

// find returns the record of a session and, when it runs, its target. It waits
// while the session is held, so whoever asks has to have been let in.
func (ts *targets) find(ctx context.Context, id string) (*target, session.Session, error) {
	for {
		t, rec, held, err := ts.look(ctx, id)
		if err != nil || !held {
			return t, rec, err
		}
		if err := ts.awaitRelease(ctx, id); err != nil {
			return nil, session.Session{}, err
		}
	}
}

// look is find as things are at this moment, for a caller of whom nothing is
// known yet. What it returns of a session that is held may change.
func (ts *targets) look(ctx context.Context, id string) (t *target, rec session.Session, held bool, err error) {
	for {
		ts.mu.Lock()
		t, held, seen := ts.byID[id], ts.held[id] != nil, ts.changes
		ts.mu.Unlock()
		if t != nil {
			current, err := ts.fresh(ctx, t)
			if err != nil {
				return nil, session.Session{}, held, fmt.Errorf("get session: %w", err)
			}
			if current {
				return t, t.record(), held, nil
			}
			continue
		}
		if len(id) > maxEchoedID {
			return nil, session.Session{}, held, unknownSession(id)
		}
		began := time.Now()
		rec, err := ts.rt.cfg.Sessions.Get(ctx, id)
		if errors.Is(err, session.ErrNotFound) {
			return nil, session.Session{}, held, unknownSession(id)
		}
		if err != nil {
			return nil, session.Session{}, held, fmt.Errorf("get session: %w", err)
		}
		if held || rec.State != api.StateRunning {
			return nil, rec, held, nil
		}
		if t, ok := ts.add(rec, seen, began); ok {
			return t, rec, false, nil
		}
	}
}

// current reports whether a target is still that of its session.
func (ts *targets) current(t *target) bool {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	return ts.byID[t.id] == t
}

// add remembers a running session, unless a record has changed since it was
// read, at a certain time: the change may have been the end of this very session.
func (ts *targets) add(rec session.Session, seen uint64, read time.Time) (*target, bool) {
	ts.mu.Lock()
	if t, ok := ts.byID[rec.ID]; ok || ts.changes != seen {
		ts.mu.Unlock()
		return t, ok
	}
	t := ts.rt.newTarget(rec)
	t.known.read, t.known.tried, t.used = read, read, time.Now()
	ts.byID[rec.ID] = t
	unused := ts.sweepLocked()
	ts.mu.Unlock()
	for _, old := range unused {
		old.close(false)
	}
	return t, true
}

func (ts *targets) changed(rec session.Session) {
	ts.mu.Lock()
	ts.changes++
	t := ts.byID[rec.ID]
	if t != nil && rec.State != api.StateRunning {
		delete(ts.byID, rec.ID)
	}
	ts.mu.Unlock()
	switch {
	case t == nil:
	case rec.State == api.StateRunning:
		t.setRecord(rec)
	default:
		t.close(rec.State == api.StatePaused)
	}
}

func (ts *targets) closeAll() {
	ts.mu.Lock()
	all := ts.byID
	ts.byID = map[string]*target{}
	ts.changes++
	ts.mu.Unlock()
	for _, t := range all {
		t.close(false)
	}
}

// target is a running session: its record, its connections and its activity.
type target struct {
	rt        *Router
	id        string
	inFlight  int            // requests under way; guarded by targets.mu
	key       *rsa.PublicKey // nil unless the session is key-bound
	transport *http.Transport
	activity  activity
	tokens    tokens
	done      chan struct{} // closed with the target
	reading   chan struct{} // held by who looks at the record again
	watching  bool          // its record, as requests are under way; guarded by targets.mu
	used      time.Time     // when a request last ended; guarded by targets.mu

	mu     sync.Mutex
	rec    session.Session
	known  known
	conns  map[*trackedConn]struct{}
	closed bool
	paused bool // closed, as the session was paused
}

func (rt *Router) newTarget(rec session.Session) *target {
	t := &target{rt: rt, id: rec.ID, rec: rec, key: publicKey(rec), conns: map[*trackedConn]struct{}{}, done: make(chan struct{}), reading: make(chan struct{}, 1)}
	t.activity.init(rt, rec)
	t.tokens.key, t.tokens.session = rt.cfg.SigningKey, rec.ID
	t.transport = &http.Transport{
		DialContext:         t.dial,
		DisableCompression:  true,
		MaxIdleConnsPerHost: 32,
		IdleConnTimeout:     time.Minute,
		// What comes before the body of an answer is kept in memory.
		MaxResponseHeaderBytes: 256 << 10,
		WriteBufferSize:        bufferSize,
		ReadBufferSize:         bufferSize,
		// The stream comes from the driver and ends inside the sandbox: there is
		// nobody in between whom a certificate would keep out.
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}, //nolint:gosec // as said
	}
	return t
}

func publicKey(rec session.Session) *rsa.PublicKey {
	if rec.Auth != api.AuthClientKey {
		return nil
	}
	key, err := auth.ParsePublicKeyPEM(rec.PublicKey)
	if err != nil {
		return nil
	}
	return key
}

// keyOf is the key of a session that has a target, or of one that has none.
func (t *target) keyOf(rec session.Session) *rsa.PublicKey {
	if t != nil {
		return t.key
	}
	return publicKey(rec)
}

func (t *target) record() session.Session {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.rec
}

func (t *target) setRecord(rec session.Session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rec = rec
}

// dial opens a connection to the port that the address of a call names.
func (t *target) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	_, text, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("dial sandbox: %w", err)
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("dial sandbox: %w", err)
	}
	return t.dialPort(ctx, uint16(port))
}

func (t *target) dialPort(ctx context.Context, port uint16) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, t.rt.cfg.DialTimeout)
	defer cancel()
	conn, err := t.rt.cfg.Dialer.Dial(ctx, t.record(), port)
	if err != nil {
		return nil, err
	}
	return t.track(conn)
}

// track remembers a connection, so that close reaches it.
func (t *target) track(conn net.Conn) (net.Conn, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		err := sandbox.ErrNotRunning
		if t.paused {
			err = sandbox.ErrPaused
		}
		return nil, errors.Join(err, conn.Close())
	}
	c := &trackedConn{Conn: conn, target: t}
	t.conns[c] = struct{}{}
	return c, nil
}

// wasPaused reports whether the target was closed because of a pause.
func (t *target) wasPaused() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.paused
}

// close ends every connection; requests under way break off.
func (t *target) close(paused bool) {
	t.mu.Lock()
	if !t.closed {
		t.closed, t.paused = true, paused
		close(t.done)
	}
	conns := make([]*trackedConn, 0, len(t.conns))
	for c := range t.conns {
		conns = append(conns, c)
	}
	t.mu.Unlock()
	t.activity.stop()
	t.transport.CloseIdleConnections()
	for _, c := range conns {
		_ = c.Close()
	}
}
