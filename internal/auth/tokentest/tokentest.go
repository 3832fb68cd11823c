// Package tokentest is the suite that every auth.TokenStore passes. A store's
// test calls [Run] with a function that makes an empty store; one that can be
// opened again on the same data is a [Reopener] too.
package tokentest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/volcano-sh/agentcube/internal/auth"
)

// Reopener is a store that can be closed and opened again on the same data.
type Reopener interface {
	// ReopenTokens closes the store and returns one that has the same data.
	ReopenTokens(t *testing.T) auth.TokenStore
}

// guard bounds a test that would otherwise hang.
const guard = time.Minute

var epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// Run runs the suite. newStore returns an empty store that is closed when the
// test it was made for ends.
func Run(t *testing.T, newStore func(t *testing.T) auth.TokenStore) {
	for _, test := range []struct {
		name string
		run  func(t *testing.T, ctx context.Context, st auth.TokenStore)
	}{
		{"create and find", testFind},
		{"odd values", testOddValues},
		{"name and hash are taken for ever", testTaken},
		{"not there", testMissing},
		{"list", testList},
		{"list what is valid", testListValid},
		{"revoke", testRevoke},
		{"use", testUse},
		{"50 of one name at once", testCreateRace},
		{"revoked and used at once", testRevokeRace},
		{"reopen", testReopen},
		{"cancelled context", testCancelled},
	} {
		t.Run(test.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), guard)
			defer cancel()
			test.run(t, ctx, newStore(t))
		})
	}
}

// New is the record of a valid token, the n-th.
func New(n int) auth.TokenRecord {
	return auth.TokenRecord{
		Name: fmt.Sprintf("token-%03d", n), Hash: sha256.Sum256(fmt.Append(nil, "act_", n)),
		Scopes: auth.ScopeCreate | auth.ScopeUse, CreatedBy: auth.LocalName, CreatedAt: epoch.Add(time.Duration(n) * time.Second),
	}
}

func mustCreate(t *testing.T, ctx context.Context, st auth.TokenStore, all ...auth.TokenRecord) {
	t.Helper()
	for _, r := range all {
		if err := st.CreateToken(ctx, r); err != nil {
			t.Fatalf("CreateToken(%s): %v", r.Name, err)
		}
	}
}

func wantFound(t *testing.T, ctx context.Context, st auth.TokenStore, want auth.TokenRecord) {
	t.Helper()
	got, err := st.FindToken(ctx, want.Hash)
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("FindToken(%s): %v (-want +got):\n%s", want.Name, err, diff)
	}
}

func wantCount(t *testing.T, ctx context.Context, st auth.TokenStore, want int) {
	t.Helper()
	if n, err := st.CountTokens(ctx); err != nil || n != want {
		t.Errorf("CountTokens = %d, %v, want %d", n, err, want)
	}
}

func testFind(t *testing.T, ctx context.Context, st auth.TokenStore) {
	wantCount(t, ctx, st, 0)
	for scopes := auth.Scopes(1); scopes <= auth.AllScopes; scopes++ {
		r := New(int(scopes))
		r.Scopes = scopes
		mustCreate(t, ctx, st, r)
		wantFound(t, ctx, st, r)
		wantCount(t, ctx, st, int(scopes))
	}
}

func testOddValues(t *testing.T, ctx context.Context, st auth.TokenStore) {
	odd := New(1)
	odd.Name, odd.CreatedBy = "o'dd %_-\u00e9\u0301;-- DROP TABLE", "system:serviceaccount:a:b\x00\n"
	odd.CreatedAt = time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.FixedZone("far east", 9*3600))
	odd.ExpiresAt = odd.CreatedAt.Add(10 * 365 * 24 * time.Hour)
	mustCreate(t, ctx, st, odd)
	odd.CreatedAt, odd.ExpiresAt = odd.CreatedAt.UTC(), odd.ExpiresAt.UTC()
	wantFound(t, ctx, st, odd)
}

func testTaken(t *testing.T, ctx context.Context, st auth.TokenStore) {
	first := New(1)
	first.ExpiresAt = first.CreatedAt.Add(time.Second)
	mustCreate(t, ctx, st, first)
	refused := func(when string) {
		t.Helper()
		sameName, sameHash := New(2), New(2)
		sameName.Name, sameHash.Hash = first.Name, first.Hash
		for what, r := range map[string]auth.TokenRecord{"name": sameName, "hash": sameHash, "name and hash": first} {
			if err := st.CreateToken(ctx, r); !errors.Is(err, auth.ErrTokenExists) {
				t.Errorf("CreateToken with the %s of one that is %s: %v, want ErrTokenExists", what, when, err)
			}
		}
		wantCount(t, ctx, st, 1)
	}
	refused("valid") // or expired, which a store knows nothing of
	if _, err := st.RevokeToken(ctx, first.Name, epoch); err != nil {
		t.Fatal(err)
	}
	refused("revoked")
	first.RevokedAt = epoch
	wantFound(t, ctx, st, first)
}

func testMissing(t *testing.T, ctx context.Context, st auth.TokenStore) {
	mustCreate(t, ctx, st, New(1))
	for _, hash := range []auth.TokenHash{{}, New(2).Hash} {
		if r, err := st.FindToken(ctx, hash); !errors.Is(err, auth.ErrNoToken) || r != (auth.TokenRecord{}) {
			t.Errorf("FindToken: %+v, %v, want ErrNoToken", r, err)
		}
	}
	for _, name := range []string{"", "%", "token", "TOKEN-001", "token-001 "} {
		if r, err := st.RevokeToken(ctx, name, epoch); !errors.Is(err, auth.ErrNoToken) || r != (auth.TokenRecord{}) {
			t.Errorf("RevokeToken(%q): %+v, %v, want ErrNoToken", name, r, err)
		}
		if err := st.UseToken(ctx, name, epoch); err != nil {
			t.Errorf("UseToken(%q): %v", name, err)
		}
	}
	wantFound(t, ctx, st, New(1))
}

func wantList(t *testing.T, ctx context.Context, st auth.TokenStore, q auth.TokenQuery, want ...auth.TokenRecord) {
	t.Helper()
	got, err := st.ListTokens(ctx, q)
	if err != nil || len(got) != len(want) {
		t.Errorf("ListTokens(%+v) = %d, %v, want %d", q, len(got), err, len(want))
		return
	}
	for i := range want {
		if diff := cmp.Diff(want[i], got[i]); diff != "" {
			t.Errorf("ListTokens(%+v)[%d] (-want +got):\n%s", q, i, diff)
		}
	}
}

func testList(t *testing.T, ctx context.Context, st auth.TokenStore) {
	wantList(t, ctx, st, auth.TokenQuery{})
	mustCreate(t, ctx, st, New(3), New(1), New(2))
	for _, test := range []struct {
		q    auth.TokenQuery
		want []auth.TokenRecord
	}{
		{auth.TokenQuery{}, []auth.TokenRecord{New(1), New(2), New(3)}},
		{auth.TokenQuery{Limit: 2}, []auth.TokenRecord{New(1), New(2)}},
		{auth.TokenQuery{Limit: 2, After: New(2).Name}, []auth.TokenRecord{New(3)}},
		{auth.TokenQuery{After: "token-0015"}, []auth.TokenRecord{New(2), New(3)}}, // which there is not
		{auth.TokenQuery{After: New(3).Name}, nil},
		{auth.TokenQuery{Limit: 1000}, []auth.TokenRecord{New(1), New(2), New(3)}},
	} {
		wantList(t, ctx, st, test.q, test.want...)
	}
}

func testListValid(t *testing.T, ctx context.Context, st auth.TokenStore) {
	ends, revoked, endless := New(1), New(2), New(3)
	ends.ExpiresAt = epoch.Add(time.Hour)
	mustCreate(t, ctx, st, ends, revoked, endless)
	revoked.RevokedAt = epoch.Add(time.Minute)
	if _, err := st.RevokeToken(ctx, revoked.Name, revoked.RevokedAt); err != nil {
		t.Fatal(err)
	}
	wantList(t, ctx, st, auth.TokenQuery{}, ends, revoked, endless)
	for at, want := range map[time.Time][]auth.TokenRecord{
		epoch:                             {ends, endless},
		ends.ExpiresAt.Add(-time.Second):  {ends, endless},
		ends.ExpiresAt:                    {endless},
		ends.ExpiresAt.AddDate(100, 0, 0): {endless},
	} {
		wantList(t, ctx, st, auth.TokenQuery{ValidAt: at}, want...)
	}
	wantList(t, ctx, st, auth.TokenQuery{ValidAt: epoch, Limit: 1, After: ends.Name}, endless)
}

func testRevoke(t *testing.T, ctx context.Context, st auth.TokenStore) {
	r, other := New(1), New(2)
	mustCreate(t, ctx, st, r, other)
	r.RevokedAt = epoch.Add(time.Minute)
	for _, at := range []time.Duration{time.Minute, time.Hour, 0} { // the first time counts
		got, err := st.RevokeToken(ctx, r.Name, epoch.Add(at))
		if diff := cmp.Diff(r, got); err != nil || diff != "" {
			t.Errorf("RevokeToken: %v (-want +got):\n%s", err, diff)
		}
		wantFound(t, ctx, st, r)
	}
	wantFound(t, ctx, st, other)
	wantCount(t, ctx, st, 2)
}

func testUse(t *testing.T, ctx context.Context, st auth.TokenStore) {
	r, other := New(1), New(2)
	mustCreate(t, ctx, st, r, other)
	for _, step := range []struct{ at, want time.Duration }{{time.Minute, time.Minute}, {time.Second, time.Minute}, {time.Hour, time.Hour}} {
		if err := st.UseToken(ctx, r.Name, epoch.Add(step.at)); err != nil {
			t.Fatal(err)
		}
		r.LastUsedAt = epoch.Add(step.want)
		wantFound(t, ctx, st, r)
	}
	wantFound(t, ctx, st, other)
}

func testCreateRace(t *testing.T, ctx context.Context, st auth.TokenStore) {
	var made atomic.Int32
	var wg sync.WaitGroup
	for n := range 50 {
		wg.Go(func() {
			r := New(n)
			r.Name = "one-for-all"
			err := st.CreateToken(ctx, r)
			if err == nil {
				made.Add(1)
			} else if !errors.Is(err, auth.ErrTokenExists) {
				t.Errorf("CreateToken: %v", err)
			}
		})
	}
	wg.Wait()
	if n := made.Load(); n != 1 {
		t.Errorf("%d tokens of one name were made, want 1", n)
	}
}

// testRevokeRace: once a revocation has been acknowledged, nobody finds the token
// as it was before, whatever else is written.
func testRevokeRace(t *testing.T, ctx context.Context, st auth.TokenStore) {
	r := New(1)
	mustCreate(t, ctx, st, r)
	var revoked atomic.Bool
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 200 {
				before := revoked.Load()
				got, err := st.FindToken(ctx, r.Hash)
				if err != nil || before && got.RevokedAt.IsZero() {
					t.Errorf("FindToken after the revocation: %+v, %v", got, err)
				}
				if err := st.UseToken(ctx, r.Name, epoch.Add(time.Duration(i)*time.Second)); err != nil {
					t.Errorf("UseToken: %v", err)
				}
			}
		})
	}
	wg.Go(func() {
		if _, err := st.RevokeToken(ctx, r.Name, epoch); err != nil {
			t.Errorf("RevokeToken: %v", err)
		}
		revoked.Store(true)
	})
	wg.Wait()
	r.RevokedAt, r.LastUsedAt = epoch, epoch.Add(199*time.Second)
	wantFound(t, ctx, st, r)
}

func testReopen(t *testing.T, ctx context.Context, st auth.TokenStore) {
	reopener, ok := st.(Reopener)
	if !ok {
		t.Log("this store cannot be reopened")
		return
	}
	r, revoked := New(1), New(2)
	r.ExpiresAt = epoch.Add(time.Hour)
	mustCreate(t, ctx, st, r, revoked)
	revoked.RevokedAt = epoch
	if _, err := st.RevokeToken(ctx, revoked.Name, epoch); err != nil {
		t.Fatal(err)
	}
	st = reopener.ReopenTokens(t)
	wantFound(t, ctx, st, r)
	wantFound(t, ctx, st, revoked)
	if err := st.CreateToken(ctx, r); !errors.Is(err, auth.ErrTokenExists) {
		t.Errorf("CreateToken: %v, want ErrTokenExists", err)
	}
}

func testCancelled(t *testing.T, ctx context.Context, st auth.TokenStore) {
	r := New(1)
	mustCreate(t, ctx, st, r)
	gone, cancel := context.WithCancel(ctx)
	cancel()
	_, findErr := st.FindToken(gone, r.Hash)
	_, revokeErr := st.RevokeToken(gone, r.Name, epoch)
	_, listErr := st.ListTokens(gone, auth.TokenQuery{})
	for what, err := range map[string]error{
		"CreateToken": st.CreateToken(gone, New(2)), "FindToken": findErr, "RevokeToken": revokeErr, "ListTokens": listErr,
	} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v, want context.Canceled", what, err)
		}
	}
	wantFound(t, ctx, st, r)
	wantCount(t, ctx, st, 1)
}
