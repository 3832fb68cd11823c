package fake_test

import (
	"context"
	"errors"
	"testing"

	"go.uber.org/goleak"

	"github.com/volcano-sh/agentcube/internal/auth"
	"github.com/volcano-sh/agentcube/internal/auth/authtest"
	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/sandbox/fake"
	"github.com/volcano-sh/agentcube/internal/sandbox/sandboxtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	t.Parallel()
	hosts := map[sandbox.Driver]*fake.Host{}
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
		hosts[d] = h
		return d
	}
	sandboxtest.Run(t, sandboxtest.Config{
		Image:        "python",
		MissingImage: "no-such-image",
		BootstrapKey: public,
		Bootstrap:    bootstrap,
		Waiting:      func(d sandbox.Driver) int { return d.(*fake.Driver).Waiting() },
		New:          func(t *testing.T) sandbox.Driver { return open(t, fake.NewHost(nil)) },
		Reopen: func(t *testing.T, d sandbox.Driver) sandbox.Driver {
			_ = d.(*fake.Driver).Close()
			return open(t, hosts[d])
		},
		Kill: func(_ context.Context, d sandbox.Driver, id string) error {
			return hosts[d].Exit(id, sandbox.ExitStopped, "killed by the test")
		},
		Residue: func(id string) []string {
			for _, h := range hosts {
				if _, ok := h.Spec(id); ok {
					return []string{"sandbox"}
				}
			}
			return nil
		},
	})
}

func TestCapacity(t *testing.T) {
	t.Parallel()
	d := fake.New(fake.Config{Host: fake.NewHost(nil), Capacity: 1})
	if err := d.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if _, err := d.Create(t.Context(), sandbox.Spec{ID: "a", Image: "i"}); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Create(t.Context(), sandbox.Spec{ID: "b", Image: "i"}); !isFull(err) {
		t.Errorf("Create over capacity = %v, want ErrFull", err)
	}
	if err := d.Delete(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
}

func isFull(err error) bool { return errors.Is(err, sandbox.ErrFull) }
