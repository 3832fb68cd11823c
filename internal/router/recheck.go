package router

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/httpserve"
	"github.com/volcano-sh/agentcube/internal/session"
)

const (
	// rereadTimeout bounds the reading of a record that is known, but old, and the
	// check of a token that was valid a moment ago.
	rereadTimeout = 2 * time.Second
	// firstSweep is from how many targets on unused ones are looked for, and maxUnused
	// for how long one is kept: longer than any connection without a request.
	firstSweep = 64
	maxUnused  = 5 * time.Minute
	// endPoll is how often a record is read while the news of a session's end is awaited.
	endPoll = 100 * time.Millisecond
)

// known is when the record of a target was read, where nobody tells of changes. It is
// guarded by target.mu.
type known struct {
	// read is when the reading of the record began, and tried when one last ended;
	// err is how, if it failed.
	read, tried time.Time
	err         error
}

// fresh reads the record of a target once more, if it is too old for another request.
// While the store does not answer, what is known counts, unless nothing in the sandbox
// would notice a request that is meant for another. It returns whether the target is
// still that of its session.
func (ts *targets) fresh(ctx context.Context, t *target) (current bool, err error) {
	if ts.rt.cfg.MaxRecordAge <= 0 {
		return true, nil
	}
	old, err := ts.old(t)
	if old {
		select {
		case t.reading <- struct{}{}:
		case <-ctx.Done():
			return false, ctx.Err()
		}
		if old, err = ts.old(t); old { // else somebody else has read it meanwhile
			err = ts.reread(ctx, t)
		}
		<-t.reading
	}
	if err != nil && t.record().Auth == api.AuthNone {
		return false, err
	}
	return ts.current(t), nil
}

// old reports whether the record of a target is to be read again, and how the last
// reading went.
func (ts *targets) old(t *target) (bool, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return time.Since(t.known.tried) >= ts.rt.cfg.MaxRecordAge, t.known.err
}

// reread reads the record of a target, and closes the target if its session does not
// run any more. It does not depend on who waits for it.
func (ts *targets) reread(ctx context.Context, t *target) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rereadTimeout)
	defer cancel()
	began := time.Now()
	rec, err := ts.rt.cfg.Sessions.Get(ctx, t.id)
	gone := errors.Is(err, session.ErrNotFound)
	if err != nil && !gone {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.known.tried, t.known.err = time.Now(), err
		ts.rt.log.Warn("session not looked at again", "session", t.id, "error", err)
		return err
	}
	t.mu.Lock()
	// Of two readings the one that began later has the newer record.
	newer := began.After(t.known.read)
	moved := rec.SandboxID != t.rec.SandboxID || rec.Address != t.rec.Address
	runs := !gone && rec.State == api.StateRunning && !moved
	if newer {
		t.known = known{read: began, tried: time.Now()}
		if runs {
			t.rec = rec
		}
	}
	t.mu.Unlock()
	if newer && !runs {
		ts.drop(t, rec.State == api.StatePaused)
	}
	return nil
}

// drop forgets a target, and closes it.
func (ts *targets) drop(t *target, paused bool) {
	ts.mu.Lock()
	ts.changes++
	if ts.byID[t.id] == t {
		delete(ts.byID, t.id)
	}
	ts.mu.Unlock()
	t.close(paused)
}

// sweepLocked forgets the targets that no request has come to for long, as nobody tells
// when their sessions end: each time that twice as many are known as were left the last
// time. Who takes them closes them.
func (ts *targets) sweepLocked() (unused []*target) {
	if ts.rt.cfg.MaxRecordAge <= 0 || len(ts.byID) < ts.sweepAt {
		return nil
	}
	for id, t := range ts.byID {
		if t.inFlight == 0 && time.Since(t.used) > maxUnused {
			delete(ts.byID, id)
			unused = append(unused, t)
		}
	}
	ts.sweepAt = max(2*len(ts.byID), firstSweep)
	return unused
}

// watchLocked looks at the record of a target from time to time, from now on for as
// long as requests are under way.
func (ts *targets) watchLocked(t *target) {
	if ts.rt.cfg.MaxRecordAge > 0 && !t.watching {
		t.watching = true
		time.AfterFunc(ts.rt.cfg.RecheckInterval, func() { ts.watched(t) })
	}
}

func (ts *targets) watched(t *target) {
	ts.mu.Lock()
	t.watching = false
	underWay := t.inFlight > 0 && ts.byID[t.id] == t
	if underWay {
		ts.watchLocked(t)
	}
	ts.mu.Unlock()
	if underWay {
		_ = ts.reread(context.Background(), t) // what failed is tried again
	}
}

// watch looks at the caller's token again from time to time, for as long as the visit
// lasts. r is the request that it came with.
func (v *visit) watch(rt *Router, r *http.Request) {
	if rt.cfg.MaxRecordAge <= 0 {
		return
	}
	// Without the body, which is being read.
	credentials := &http.Request{
		Method: r.Method, URL: r.URL, Host: r.Host, Header: r.Header, Body: http.NoBody, TLS: r.TLS, RemoteAddr: r.RemoteAddr,
		Proto: r.Proto, ProtoMajor: r.ProtoMajor, ProtoMinor: r.ProtoMinor, RequestURI: r.RequestURI,
	}
	v.owners.mu.Lock()
	defer v.owners.mu.Unlock()
	if v.timer == nil && !v.over {
		v.timer = time.AfterFunc(rt.cfg.RecheckInterval, func() { rt.recheck(v, credentials.WithContext(r.Context())) })
	}
}

// recheck ends a visit whose caller would not be let in any more.
func (rt *Router) recheck(v *visit, credentials *http.Request) {
	ctx, cancel := context.WithTimeout(credentials.Context(), rereadTimeout)
	defer cancel()
	who, err := rt.cfg.Authenticator.Authenticate(credentials.WithContext(ctx))
	refused := err == nil && who.Name != v.owner
	if err != nil {
		status := httpserve.AsError(err).Status
		refused = status == http.StatusUnauthorized || status == http.StatusForbidden
	}
	if refused {
		v.cancel(errRevoked)
		return
	}
	v.owners.mu.Lock()
	defer v.owners.mu.Unlock()
	if !v.over {
		v.timer.Reset(rt.cfg.RecheckInterval)
	}
}
