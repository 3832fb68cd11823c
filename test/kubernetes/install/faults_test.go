package install

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/client"
	"github.com/volcano-sh/agentcube/internal/sandbox/kube/podspec"
)

// killOne ends one Pod of a part at once, as a lost node would.
func (w *world) killOne(t *testing.T, component string) {
	t.Helper()
	pods, err := w.client.CoreV1().Pods(release).List(t.Context(), metav1.ListOptions{LabelSelector: "app.kubernetes.io/component=" + component})
	if err != nil || len(pods.Items) == 0 {
		t.Fatalf("%d Pods of %s, %v", len(pods.Items), component, err)
	}
	now := int64(0)
	if err := w.client.CoreV1().Pods(release).Delete(t.Context(), pods.Items[0].Name, metav1.DeleteOptions{GracePeriodSeconds: &now}); err != nil {
		t.Fatal(err)
	}
}

// allReady waits until both parts have all of their replicas.
func (w *world) allReady(t *testing.T) {
	t.Helper()
	await(t, "all replicas", func() (bool, error) {
		list, err := w.client.AppsV1().Deployments(release).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			return false, err
		}
		for _, d := range list.Items {
			if s := d.Status; s.ReadyReplicas != *d.Spec.Replicas || s.UpdatedReplicas != s.Replicas || s.ObservedGeneration != d.Generation {
				return false, fmt.Errorf("%s has %d of %d", d.Name, s.ReadyReplicas, *d.Spec.Replicas)
			}
		}
		return true, nil
	})
}

// burst makes sessions, several at a time, each with a command run in it and deleted,
// and repeats what did not get through, as careful clients do: with the same key.
func (w *world) burst(t *testing.T, c *client.Client, sessions, together int, middle func()) {
	t.Helper()
	var begun, repeated atomic.Int64
	var once sync.Once
	var wg sync.WaitGroup
	work := make(chan int)
	for range together {
		wg.Go(func() {
			for n := range work {
				if begun.Add(1) == int64(sessions/2) {
					once.Do(middle)
				}
				if err := w.useOne(t, c, rand.Text(), &repeated); err != nil {
					t.Errorf("session %d: %v", n, err)
				}
			}
		})
	}
	for n := range sessions {
		work <- n
	}
	close(work)
	wg.Wait()
	t.Logf("%d sessions, %d calls had to be repeated", sessions, repeated.Load())
}

// useOne makes a session, runs a command in it, and deletes it.
func (w *world) useOne(t *testing.T, c *client.Client, key string, repeated *atomic.Int64) error {
	var s *client.Session
	private, err := client.NewKey()
	if err != nil {
		return err
	}
	again := func(what string, do func() error) error {
		for end := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
			err := do()
			if err == nil {
				return nil
			}
			if time.Now().After(end) {
				return fmt.Errorf("%s: %w", what, err)
			}
			if e, ok := errors.AsType[*client.APIError](err); ok && e.Status < 500 && e.Status != 429 {
				return fmt.Errorf("%s: %w", what, err)
			}
			repeated.Add(1)
		}
	}
	if err := again("create", func() (err error) {
		s, err = c.CreateSession(t.Context(), client.CreateOptions{IdempotencyKey: key, Key: private})
		return err
	}); err != nil {
		return err
	}
	if err := again("run", func() error {
		out, err := s.Execute(t.Context(), client.ExecRequest{Command: []string{"echo", key}})
		if err == nil && string(out.Stdout) != key+"\n" {
			t.Errorf("%s printed %q", key, out.Stdout)
		}
		return err
	}); err != nil {
		return err
	}
	return again("delete", func() error {
		err := c.DeleteSession(t.Context(), s.ID)
		if code := code(err); code == api.CodeSessionEnded || code == api.CodeSessionNotFound {
			return nil // the answer of the first attempt was lost
		}
		return err
	})
}

// faults: what a cluster does to its Pods loses no session, and leaves nothing.
func (w *world) faults(t *testing.T, token string) {
	c := w.as(t, token)
	keeper := w.create(t, c, client.CreateOptions{})
	if err := keeper.WriteFile(t.Context(), "word", []byte("kept")); err != nil {
		t.Fatal(err)
	}
	kept := func(t *testing.T) {
		t.Helper()
		await(t, "the session that was there before", func() (bool, error) {
			out, err := keeper.Execute(t.Context(), client.ExecRequest{Command: []string{"cat", "word"}})
			return err == nil && string(out.Stdout) == "kept", err
		})
	}
	t.Run("a Workload Manager and a Router die", func(t *testing.T) {
		w.burst(t, c, 40, 10, func() {
			w.killOne(t, "workloadmanager")
			w.killOne(t, "router")
		})
		w.allReady(t)
		kept(t)
	})
	t.Run("Redis restarts", func(t *testing.T) {
		w.burst(t, c, 20, 5, func() {
			w.redis.kill()
			w.redis.start(t)
		})
		kept(t)
	})
	t.Run("Redis is away", func(t *testing.T) {
		kept(t)
		w.redis.kill()
		// For longer than kubelet needs to find that a Pod is not ready.
		for end := time.Now().Add(15 * time.Second); time.Now().Before(end); time.Sleep(time.Second) {
			out, err := keeper.Execute(t.Context(), client.ExecRequest{Command: []string{"cat", "word"}})
			if err != nil || string(out.Stdout) != "kept" {
				t.Errorf("a session that is known answers %q, %v", out.Stdout, err)
			}
		}
		for _, p := range w.parts(t) {
			if !podspec.Ready(&p) {
				t.Errorf("%s is not ready", p.Name)
			}
		}
		_, err := c.CreateSession(t.Context(), client.CreateOptions{})
		if e, ok := errors.AsType[*client.APIError](err); !ok || e.Status != http.StatusServiceUnavailable {
			t.Errorf("a new session: %v, want 503", err)
		}
		w.redis.start(t)
		kept(t)
	})
	for what, restart := range map[string]func(context.Context) error{"the API server": w.RestartAPIServer, "kubelet": w.RestartKubelet} {
		t.Run(what+" restarts", func(t *testing.T) {
			w.burst(t, c, 10, 5, func() {
				if err := restart(t.Context()); err != nil {
					t.Error(err)
				}
			})
			kept(t)
		})
	}
	t.Run("an upgrade", func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		var served, failed atomic.Int64
		var wg sync.WaitGroup
		wg.Go(func() {
			for ctx.Err() == nil {
				if _, err := keeper.Execute(ctx, client.ExecRequest{Command: []string{"true"}}); err == nil {
					served.Add(1)
				} else if ctx.Err() == nil {
					failed.Add(1)
					t.Log(err)
				}
			}
		})
		// Long ones are under way in each Router that goes, for longer than by default.
		for range 4 {
			wg.Go(func() {
				out, err := keeper.Execute(t.Context(), client.ExecRequest{Command: []string{"sh", "-c", "sleep 40; echo over"}})
				if err != nil || string(out.Stdout) != "over\n" {
					t.Errorf("a long command during the upgrade: %q, %v", out.Stdout, err)
				}
			})
		}
		w.helm(t, "upgrade", func(values object) { values["log"] = object{"level": "info", "format": "text"} })
		w.allReady(t)
		stop()
		wg.Wait()
		t.Logf("%d requests were served during the upgrade, %d failed", served.Load(), failed.Load())
		// A request may meet a connection that is being closed, once for each Router that goes.
		if served.Load() == 0 || failed.Load() > 2 {
			t.Errorf("%d requests were served during the upgrade, %d were not", served.Load(), failed.Load())
		}
		kept(t)
	})
}
