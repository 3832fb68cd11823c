package driver

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/sandbox/kube"
)

// untilTold is a first process that waits to be told, and then does something else.
func untilTold(then string) []string {
	return []string{"sh", "-c", "until [ -e /tmp/go ]; do sleep 0.1; done; exec " + then}
}

func tell(t *testing.T, namespace, id string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), guard)
	defer cancel()
	if out, err := exec(ctx, namespace, id, "touch", "/tmp/go"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// memoryBomb takes more than sandboxes have here, and touches it.
const memoryBomb = `python3 -c 'a = bytearray(600 << 20)'`

// TestOutOfMemory: where the first process goes over the limit, the sandbox has that
// fate.
func TestOutOfMemory(t *testing.T) {
	for name, class := range runtimes() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ns := newNamespace(t, nil)
			d := openDriver(t, kube.Config{Namespace: ns})
			spec, x := newSpec(t, ns, class)
			spec.Command, x.Agent = untilTold(memoryBomb), false
			create(t, d, spec)
			tell(t, ns, spec.ID)
			e := awaitExit(t, d, spec.ID)
			t.Logf("%+v, Pod: %+v", e, podOf(t, ns, spec.ID).Status.ContainerStatuses)
			if e.Reason != sandbox.ExitOutOfMemory {
				t.Errorf("exit is %+v, want out-of-memory", e)
			}
			got, err := d.Get(t.Context(), spec.ID)
			if err != nil || got.Exit == nil || got.Exit.Reason != e.Reason {
				t.Errorf("Get = %+v, %v, want the same exit", got, err)
			}
		})
	}
}

// TestCommandOutOfMemory: where a command does, it is killed, or the sandbox with it:
// which is the kernel's choice. Nothing else.
func TestCommandOutOfMemory(t *testing.T) {
	for name, class := range runtimes() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ns := newNamespace(t, nil)
			d := openDriver(t, kube.Config{Namespace: ns})
			spec, _ := newSpec(t, ns, class)
			s := lock(t, d, create(t, d, spec))
			code, out, err := s.run(memoryBomb)
			if err != nil {
				if e := awaitExit(t, d, spec.ID); e.Reason != sandbox.ExitOutOfMemory {
					t.Errorf("exit is %+v, want out-of-memory", e)
				}
				t.Log("the sandbox was ended")
				return
			}
			if code == 0 {
				t.Errorf("a command had more memory than there is: %s", out)
			}
			t.Logf("the command was ended: exit code %d %s", code, out)
			if code, out, err := s.run("echo well"); err != nil || code != 0 || out != "well\n" {
				t.Errorf("afterwards: %d %q, %v", code, out, err)
			}
		})
	}
}

// TestOwnEnd: what a template's own server ends with is told.
func TestOwnEnd(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t, nil)
	d := openDriver(t, kube.Config{Namespace: ns})
	spec, x := newSpec(t, ns, "")
	spec.Command, x.Agent = untilTold("sh -c 'exit 7'"), false
	create(t, d, spec)
	tell(t, ns, spec.ID)
	if e := awaitExit(t, d, spec.ID); e.Reason != sandbox.ExitStopped || e.Detail != "its first process ended with exit code 7" {
		t.Errorf("exit is %+v", e)
	}
}

// TestDeletedByOthers: whoever deletes or evicts a Pod ends its sandbox, and every
// driver hears of it once.
func TestDeletedByOthers(t *testing.T) {
	for name, remove := range map[string]func(ctx context.Context, namespace, pod string) error{
		"deleted": func(ctx context.Context, namespace, pod string) error {
			return node.client.CoreV1().Pods(namespace).Delete(ctx, pod, metav1.DeleteOptions{})
		},
		"evicted": func(ctx context.Context, namespace, pod string) error {
			return node.client.PolicyV1().Evictions(namespace).Evict(ctx, &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: pod}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ns := newNamespace(t, nil)
			a, b := openDriver(t, kube.Config{Namespace: ns}), openDriver(t, kube.Config{Namespace: ns})
			spec, _ := newSpec(t, ns, "")
			marker, _ := newSpec(t, ns, "")
			create(t, a, spec)
			create(t, b, marker)
			if err := remove(t.Context(), ns, podOf(t, ns, spec.ID).Name); err != nil {
				t.Fatal(err)
			}
			for _, d := range []*kube.Driver{a, b} {
				if e := awaitExit(t, d, spec.ID); e.Reason != sandbox.ExitLost || e.Detail != "its Pod was deleted" || e.At.IsZero() {
					t.Errorf("exit is %+v, want lost", e)
				}
			}
			await(t, "the Pod to be gone", func() bool {
				_, err := findPod(t.Context(), ns, spec.ID)
				return err != nil
			})
			// The next exit is that of another sandbox.
			ctx, cancel := context.WithTimeout(t.Context(), guard)
			defer cancel()
			if err := end(ctx, ns, marker.ID); err != nil {
				t.Fatal(err)
			}
			for _, d := range []*kube.Driver{a, b} {
				if e := awaitExit(t, d, marker.ID); e.Reason != sandbox.ExitStopped {
					t.Errorf("exit is %+v, want stopped", e)
				}
			}
		})
	}
}

// TestDiskFull: kubelet ends the Pod of a sandbox that writes too much. Mostly it says
// so; sometimes its own record is that the Pod came to a good end.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t, nil)
	d := openDriver(t, kube.Config{Namespace: ns})
	spec, _ := newSpec(t, ns, "")
	spec.Resources.DiskBytes = 16 << 20
	s := lock(t, d, create(t, d, spec))
	if code, out, err := s.run("head -c 64000000 /dev/zero > /tmp/big"); err != nil || code != 0 {
		t.Fatalf("write: %d %s, %v", code, out, err)
	}
	e := awaitExit(t, d, spec.ID)
	t.Logf("%+v", e)
	switch status := podOf(t, ns, spec.ID).Status; status.Reason {
	case "Evicted":
		if e.Reason != sandbox.ExitLost || !strings.Contains(e.Detail, "Evicted: Pod ephemeral local storage usage exceeds") {
			t.Errorf("exit is %+v, want lost, as evicted", e)
		}
	case "":
		if e.Reason != sandbox.ExitStopped {
			t.Errorf("exit is %+v, want stopped", e)
		}
	default:
		t.Errorf("status is %+v", status)
	}
}

// TestDeleteUnseen: a manager ends a sandbox that its watch has not shown it yet.
func TestDeleteUnseen(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t, nil)
	watch, client := lagging(t)
	a, b := openDriver(t, kube.Config{Namespace: ns}), openDriver(t, kube.Config{Namespace: ns, Client: client})
	spec, _ := newSpec(t, ns, "")
	watch.stop()
	create(t, a, spec)
	if list, err := b.List(t.Context()); err != nil || len(list) > 0 {
		t.Fatalf("List of what the watch has not shown = %v, %v", list, err)
	}
	if err := b.Delete(t.Context(), spec.ID); err != nil {
		t.Fatal(err)
	}
	if e := awaitExit(t, a, spec.ID); e.Reason != sandbox.ExitLost {
		t.Errorf("the other driver was told %+v", e)
	}
	watch.goOn()
	marker, _ := newSpec(t, ns, "")
	create(t, b, marker) // by when the watch has shown all that was before
	if got, err := b.Get(t.Context(), spec.ID); !errors.Is(err, sandbox.ErrNotFound) {
		t.Errorf("what was deleted is back: %+v, %v", got, err)
	}
	select {
	case e := <-b.Exits():
		t.Errorf("the driver that deleted it was told %+v", e)
	case <-time.After(10 * time.Millisecond):
	}
}
