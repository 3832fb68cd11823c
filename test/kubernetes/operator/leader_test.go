package operator

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	coordinationv1 "k8s.io/api/coordination/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/volcano-sh/agentcube/api/v1alpha1"
	"github.com/volcano-sh/agentcube/internal/operator"
)

// process runs an operator as a process of its own, which the test can kill.
func (s space) process(identity string) *exec.Cmd {
	s.Helper()
	cmd := exec.Command(os.Args[0], world.cluster.Kubeconfig)
	cmd.Env = append(os.Environ(), childVariable+"="+identity)
	cmd.Stderr = s.Output()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	s.must(cmd.Start())
	s.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd
}

// leads waits until the lease is held by that operator.
func (s space) leads(identity string) {
	s.Helper()
	s.until(func() string {
		var lease coordinationv1.Lease
		err := world.client.Get(s.Context(), client.ObjectKey{Namespace: leases, Name: operator.LeaseName}, &lease)
		switch {
		case err != nil:
			return err.Error()
		case lease.Spec.HolderIdentity == nil || *lease.Spec.HolderIdentity != identity:
			return identity + " holds the lease"
		}
		return ""
	})
}

// TestLeader: of two operators one works; when it is killed, the other does.
func TestLeader(t *testing.T) {
	s := newSpace(t)
	s.kubelet(isPod)
	first := s.process("first")
	s.leads("first")
	s.process("second")
	ci := s.interpreter("a", 2)
	s.status(ci, func(st v1alpha1.CodeInterpreterStatus) bool { return hasPool(st, 2, 2, 0) })
	s.leads("first")
	s.must(first.Process.Kill())
	size := int32(3)
	edit(s, ci, func(ci *v1alpha1.CodeInterpreter) { ci.Spec.WarmPoolSize = &size })
	s.status(ci, func(st v1alpha1.CodeInterpreterStatus) bool { return isFine(st) && hasPool(st, 3, 3, 0) })
	s.leads("second")
	if name := s.theSet().Name; !strings.HasPrefix(name, "a-") {
		t.Errorf("the pool is %s", name)
	}
}

// TestServerAway: an operator that has lost the API server, and its lease with it, goes
// on where it was.
func TestServerAway(t *testing.T) {
	s := newSpace(t)
	o := s.operate(func(cfg *operator.Config) {
		cfg.LeaderElection, cfg.LeaseNamespace, cfg.Identity = true, leases, "away"
	})
	ci := s.interpreter("a", 1)
	set := s.theSet()
	s.must(world.cluster.StopAPIServer())
	s.until(func() string { // it has stopped, as somebody else may work now
		if o.Healthy() == nil {
			return "it says that it does not work"
		}
		return ""
	})
	s.must(world.cluster.StartAPIServer(t.Context()))
	s.fill(ci, set, 1)
	size := int32(2)
	edit(s, ci, func(ci *v1alpha1.CodeInterpreter) { ci.Spec.WarmPoolSize = &size })
	s.kubelet(isPod)
	s.status(ci, func(st v1alpha1.CodeInterpreterStatus) bool { return isFine(st) && hasPool(st, 2, 2, 0) })
	if err := o.Healthy(); err != nil {
		t.Error(err)
	}
	s.leads("away")
}

// TestWatchLost: without leader election nothing but the watches is lost.
func TestWatchLost(t *testing.T) {
	s := newSpace(t)
	o := s.operate()
	ci := s.interpreter("a", 1)
	s.theSet()
	s.must(world.cluster.StopAPIServer())
	s.must(world.cluster.StartAPIServer(t.Context()))
	size := int32(2)
	edit(s, ci, func(ci *v1alpha1.CodeInterpreter) { ci.Spec.WarmPoolSize = &size })
	s.kubelet(isPod)
	s.status(ci, func(st v1alpha1.CodeInterpreterStatus) bool { return isFine(st) && hasPool(st, 2, 2, 0) })
	if err := o.Healthy(); err != nil {
		t.Error(err)
	}
}
