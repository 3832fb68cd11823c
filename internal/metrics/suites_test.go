package metrics

import (
	"context"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/volcano-sh/agentcube/internal/auth"
	"github.com/volcano-sh/agentcube/internal/auth/authtest"
	"github.com/volcano-sh/agentcube/internal/auth/tokentest"
	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/sandbox/fake"
	"github.com/volcano-sh/agentcube/internal/sandbox/sandboxtest"
	"github.com/volcano-sh/agentcube/internal/session"
	"github.com/volcano-sh/agentcube/internal/session/redis"
	"github.com/volcano-sh/agentcube/internal/session/redis/redistest"
	"github.com/volcano-sh/agentcube/internal/session/sqlite"
	"github.com/volcano-sh/agentcube/internal/session/storetest"
)

// TestStores: a store that is measured is as good as it was.
func TestStores(t *testing.T) {
	m := New("1")
	file := func(t *testing.T) Store {
		st := sqlite.New(filepath.Join(t.TempDir(), "sessions.db"))
		if err := st.Open(t.Context()); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = st.Close() })
		return m.Store(st)
	}
	server := redistest.Any(t).Start(t)
	var n atomic.Int32
	shared := func(t *testing.T) SharedStore {
		st := redis.New(redis.Config{URL: "redis://" + server.Addr(), Prefix: fmt.Sprintf("suite-%d:", n.Add(1))})
		if err := st.Open(t.Context()); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = st.Close() })
		return m.SharedStore(st)
	}
	t.Run("file", func(t *testing.T) { storetest.Run(t, func(t *testing.T) session.Store { return file(t) }) })
	t.Run("tokens", func(t *testing.T) { tokentest.Run(t, func(t *testing.T) auth.TokenStore { return file(t) }) })
	t.Run("shared", func(t *testing.T) { storetest.Run(t, func(t *testing.T) session.Store { return shared(t) }) })
	t.Run("rates", func(t *testing.T) { storetest.RunRates(t, func(t *testing.T) session.Rates { return shared(t) }) })
	t.Run("seats", func(t *testing.T) { storetest.RunSeats(t, func(t *testing.T) session.Seats { return shared(t) }) })
	t.Run("living", func(t *testing.T) {
		storetest.RunLiving(t, func(t *testing.T) storetest.LivingStore { return shared(t) })
	})
}

// TestDriver: a driver that is measured is as good as it was.
func TestDriver(t *testing.T) {
	m := New("1")
	type inner struct {
		driver *fake.Driver
		host   *fake.Host
	}
	made := map[sandbox.Driver]inner{}
	bootstrap := authtest.NewKey()
	public, err := auth.PublicKeyPEM(&bootstrap.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	open := func(t *testing.T, h *fake.Host) sandbox.Driver {
		d := fake.New(fake.Config{Host: h, Images: []string{"python"}})
		if err := d.Open(t.Context()); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = d.Close() })
		measured := m.Driver(d)
		made[measured] = inner{d, h}
		return measured
	}
	sandboxtest.Run(t, sandboxtest.Config{
		Image: "python", MissingImage: "no-such-image", BootstrapKey: public, Bootstrap: bootstrap,
		Waiting: func(d sandbox.Driver) int { return made[d].driver.Waiting() },
		New:     func(t *testing.T) sandbox.Driver { return open(t, fake.NewHost(nil)) },
		Reopen: func(t *testing.T, d sandbox.Driver) sandbox.Driver {
			_ = made[d].driver.Close()
			return open(t, made[d].host)
		},
		Kill: func(_ context.Context, d sandbox.Driver, id string) error {
			return made[d].host.Exit(id, sandbox.ExitStopped, "killed by the test")
		},
		Residue: func(string) []string { return nil },
	})
}
