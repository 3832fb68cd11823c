package manager

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/auth"
	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/session"
)

// maxForks bounds the sessions that one request makes.
const maxForks = 64

// Fork makes sessions that start with the memory and files that a session has
// now: all that were asked for, or none. They are its owner's. agreement is the
// api.HeaderSessionSignature of the request and signed is what it must be about;
// sessions that are not bound to a key need none.
func (m *Manager) Fork(ctx context.Context, who auth.Principal, id string, req api.ForkRequest, agreement string, signed auth.Agreement) ([]session.Session, error) {
	rec, err := m.copyable(ctx, who, id, agreement, signed)
	if err != nil {
		return nil, err
	}
	plans, err := forkPlans(rec, req, m.clock.Now())
	if err != nil {
		return nil, err
	}
	if err := m.permit(ctx, rec.Owner, len(plans)); err != nil {
		return nil, err
	}
	for i, p := range plans {
		if err := m.takeSeat(ctx, p.record); err != nil {
			for _, taken := range plans[:i] {
				m.leaveSeat(ctx, taken.record)
			}
			return nil, err
		}
	}
	began := time.Now()
	forks, err := m.fork(ctx, rec, plans)
	if err != nil {
		return nil, err
	}
	m.log.Info("session forked", "session", id, "forks", len(forks), "duration", time.Since(began))
	return forks, nil
}

// copyable finds a session of which who may have copies.
func (m *Manager) copyable(ctx context.Context, who auth.Principal, id, agreement string, signed auth.Agreement) (session.Session, error) {
	if _, err := m.owned(ctx, who, id, auth.VerbCreate); err != nil {
		return session.Session{}, err
	}
	rec, err := m.made(ctx, id)
	if err != nil || rec.Auth != api.AuthClientKey {
		return rec, err
	}
	key, err := auth.ParsePublicKeyPEM(rec.PublicKey)
	if err != nil {
		return rec, fmt.Errorf("read session key: %w", err)
	}
	signed.Owner, signed.SessionID = rec.Owner, id
	switch err := m.agreed.Verify(ctx, key, agreement, signed, time.Now()); {
	case errors.Is(err, auth.ErrTooManyAgreements):
		return rec, crowded()
	case err != nil && !errors.Is(err, auth.ErrNotAgreed):
		return rec, fmt.Errorf("check agreement: %w", err)
	case err != nil:
		return rec, api.Errorf(http.StatusForbidden, api.CodeForbidden,
			"whoever holds the session's key has to agree to a copy: %v", err).
			WithHint("send a fresh signature of this very request in %s", api.HeaderSessionSignature).WithCause(err)
	}
	return rec, nil
}

// forkPlans are the sessions to be made, without the snapshot they start from.
func forkPlans(rec session.Session, req api.ForkRequest, now time.Time) ([]plan, error) {
	count := req.Count
	if count == 0 {
		count = max(len(req.PublicKeys), 1)
	}
	switch {
	case count < 1 || count > maxForks:
		return nil, invalid("count must be from 1 to %d", maxForks)
	case rec.Auth == api.AuthClientKey && len(req.PublicKeys) != count:
		return nil, invalid("publicKeys must be %d, one for each new session, are %d", count, len(req.PublicKeys))
	case rec.Auth != api.AuthClientKey && len(req.PublicKeys) > 0:
		return nil, invalid("publicKeys: the session is not bound to a key, and neither are its forks")
	}
	if err := checkOwn(req.TTL, req.Metadata); err != nil {
		return nil, err
	}
	plans := make([]plan, count)
	all := &together{missing: count, all: make(chan struct{})}
	used := map[string]bool{rec.PublicKey: rec.Auth == api.AuthClientKey}
	for i := range plans {
		var key string
		if rec.Auth == api.AuthClientKey {
			var err error
			field := fmt.Sprintf("publicKeys[%d]", i)
			if key, err = parseKey(field, req.PublicKeys[i]); err != nil {
				return nil, err
			}
			if key == "" || used[key] {
				return nil, invalid("%s: each new session needs a key of its own", field)
			}
			used[key] = true
		}
		plans[i] = plan{
			record:   moldOfSession(rec).record(rec.Owner, rec.Auth, key, req.TTL, req.Metadata, now),
			together: all, parent: rec.ID,
		}
	}
	return plans, nil
}

// fork makes the sessions of plans that have their slots.
func (m *Manager) fork(ctx context.Context, rec session.Session, plans []plan) ([]session.Session, error) {
	release := func() {
		for _, p := range plans {
			m.leaveSeat(ctx, p.record)
		}
	}
	name := sandbox.Transient + uuid.NewString()
	done, err := m.begin(name)
	if err != nil {
		release()
		return nil, err
	}
	defer done()
	defer m.dropSnapshot(name)
	if _, err := m.save(ctx, rec, name); err != nil {
		release()
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	forks, errs := make([]session.Session, len(plans)), make([]error, len(plans))
	var wg sync.WaitGroup
	for i, p := range plans {
		p.spec = m.copySpec(name, p.record)
		wg.Go(func() {
			if forks[i], errs[i] = m.make(ctx, p); errs[i] != nil {
				cancel(errForkFails)
			}
		})
	}
	wg.Wait()
	if err := firstCause(errs); err != nil {
		m.unfork(forks)
		return nil, err
	}
	return forks, nil
}

// firstCause is the error that a fork failed with: one that is not the echo of
// another.
func firstCause(errs []error) error {
	var first error
	for _, err := range errs {
		switch {
		case err == nil || errors.Is(err, errForkFails):
		case first == nil, errors.Is(first, context.Canceled):
			first = err
		}
	}
	return first
}

// unfork ends the forks that were made when others could not be.
func (m *Manager) unfork(forks []session.Session) {
	for _, made := range forks {
		if made.ID != "" {
			m.remove(made.SandboxID, &ending{id: made.ID, fate: api.FateFailed, reason: failureReason(errForkFails)})
		}
	}
}

// together makes several sessions count as running at the same moment: when all
// of them could.
type together struct {
	mu      sync.Mutex
	missing int
	all     chan struct{} // closed when none is missing
}

// wait returns when all others wait too.
func (t *together) wait(ctx context.Context) error {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	if t.missing--; t.missing == 0 {
		close(t.all)
	}
	t.mu.Unlock()
	select {
	case <-t.all:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
