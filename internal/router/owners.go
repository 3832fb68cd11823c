package router

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/volcano-sh/agentcube/internal/auth"
	"github.com/volcano-sh/agentcube/internal/httpserve"
)

// errRevoked is why a request ends whose token has been revoked.
var errRevoked = errors.New("the token was revoked while the request ran")

// owners counts the requests under way of each owner, so that none takes the
// place of all others, and ends those whose token is revoked. Who has no request
// under way is not in it.
type owners struct {
	limit    int // 0 means no bound
	rejected func(limit string)

	mu      sync.Mutex
	byName  map[string]map[*visit]struct{}
	revoked uint64 // counts calls of revoke
}

func newOwners(limit int, rejected func(limit string)) *owners {
	return &owners{limit: limit, rejected: rejected, byName: map[string]map[*visit]struct{}{}}
}

// visit is a request, from when it comes; it is an owner's once that is known.
type visit struct {
	owners *owners
	owner  string
	cancel context.CancelCauseFunc
	token  bool        // it is here because of the owner's token, and ends with that
	timer  *time.Timer // until the token is looked at again; nil: never
	over   bool
}

// visit returns r with a context of its own. The caller ends the visit.
func (o *owners) visit(r *http.Request) (*visit, *http.Request) {
	ctx, cancel := context.WithCancelCause(r.Context())
	return &visit{owners: o, cancel: cancel}, r.WithContext(ctx)
}

func (v *visit) end() {
	defer v.cancel(nil)
	o := v.owners
	o.mu.Lock()
	defer o.mu.Unlock()
	v.over = true
	if v.timer != nil {
		v.timer.Stop()
	}
	delete(o.byName[v.owner], v)
	if len(o.byName[v.owner]) == 0 {
		delete(o.byName, v.owner)
	}
}

// revocations counts the tokens that have been revoked. Whoever is authenticated
// after it was read, and enters with it, is not one of them.
func (o *owners) revocations() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.revoked
}

// enter makes the visit an owner's, once. The error is a 429 when the owner has as
// many as one may have.
func (v *visit) enter(owner string) error {
	v.owners.mu.Lock()
	defer v.owners.mu.Unlock()
	return v.enterLocked(owner)
}

// enterByToken is enter for a visit that ends when a token of the owner's is
// revoked. It is false when one was since revocations were counted.
func (v *visit) enterByToken(owner string, revocations uint64) (bool, error) {
	v.owners.mu.Lock()
	defer v.owners.mu.Unlock()
	if v.owners.revoked != revocations {
		return false, nil
	}
	v.token = true
	return true, v.enterLocked(owner)
}

func (v *visit) enterLocked(owner string) error {
	if v.owner != "" {
		return nil // it looks for its session once more
	}
	o := v.owners
	if o.limit > 0 && len(o.byName[owner]) >= o.limit {
		o.rejected("owner")
		return httpserve.Overloaded().WithHint("you have %d requests under way, which is the limit", o.limit)
	}
	if o.byName[owner] == nil {
		o.byName[owner] = map[*visit]struct{}{}
	}
	v.owner = owner
	o.byName[owner][v] = struct{}{}
	return nil
}

// revoke ends the visits that are here because of a token of this name.
func (o *owners) revoke(owner string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.revoked++
	for v := range o.byName[owner] {
		if v.token {
			v.cancel(errRevoked)
		}
	}
}

// Revoked tells the Router that a token of this name is not valid any more: the
// requests that were let in with it, to sessions that are not bound to a key, are
// answered 401 or, where the answer has begun, break off.
func (rt *Router) Revoked(name string) { rt.owners.revoke(name) }

// identify authenticates the caller of a request, has them checked, and counts
// the request as theirs.
func (rt *Router) identify(r *http.Request, v *visit, check func(auth.Principal) error) (auth.Principal, error) {
	for {
		revocations := rt.owners.revocations()
		who, err := rt.cfg.Authenticator.Authenticate(r)
		if err == nil {
			err = check(who)
		}
		if err != nil {
			return auth.Principal{}, err
		}
		entered, err := v.enterByToken(who.Name, revocations)
		if entered && err == nil {
			v.watch(rt, r)
		}
		if entered || err != nil {
			return who, err
		}
	}
}

// afterRevocation is what a request is answered that failed with err: that its
// token is not valid, if that is why.
func afterRevocation(ctx context.Context, err error) error {
	if err != nil && errors.Is(context.Cause(ctx), errRevoked) {
		e := auth.WrongToken()
		return e.WithCause(errRevoked)
	}
	return err
}
