package operator_test

import (
	"context"
	"log/slog"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"
	"k8s.io/client-go/rest"

	"github.com/volcano-sh/agentcube/internal/operator"
	"github.com/volcano-sh/agentcube/internal/sandbox/kube/podspec"
)

// What works is tested against a real API server, in test/kubernetes/operator.

// TestConfig: what is not possible is refused, and nothing is tried.
func TestConfig(t *testing.T) {
	for name, cfg := range map[string]operator.Config{
		"no cluster":            {},
		"no namespace of lease": {REST: &rest.Config{}, LeaderElection: true},
		"anybody calls":         {REST: &rest.Config{}, Callers: podspec.Callers{Namespace: "agentcube"}},
	} {
		if err := operator.New(cfg).Run(t.Context()); err == nil {
			t.Errorf("%s: it has run", name)
		}
	}
}

// TestNoCluster: where nobody answers, an operator says so, goes on trying, and ends
// without leaving anything when it is told to.
func TestNoCluster(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	o := operator.New(operator.Config{
		REST: &rest.Config{Host: "http://" + l.Addr().String()}, Namespace: "somewhere", Logger: slog.New(slog.DiscardHandler),
	})
	if o.Healthy() == nil {
		t.Error("it works before it runs")
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error)
	go func() { done <- o.Run(ctx) }()
	before := o.Healthy()
	for end := time.Now().Add(time.Minute); o.Healthy() == nil || o.Healthy() == before; time.Sleep(time.Millisecond) { //nolint:errorlint // the same one
		if time.Now().After(end) {
			t.Fatalf("it says %v", o.Healthy())
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if o.Healthy() == nil {
		t.Error("it works after it has ended")
	}
}
