package templates

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/volcano-sh/agentcube/test/kubernetes/cluster"
)

// server is an API server that has the custom resources. It is set by TestMain before
// any test runs, and never changed.
var server struct {
	config *rest.Config
	client *dynamic.DynamicClient
}

func TestMain(m *testing.M) {
	code, err := run(m.Run)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(tests func() int) (code int, err error) {
	binaries := os.Getenv("AGENTCUBE_KUBERNETES")
	if binaries == "" {
		return 1, errors.New("AGENTCUBE_KUBERNETES is not set; run these tests with: make test-kubernetes")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	c, err := cluster.Start(ctx, cluster.Options{Binaries: binaries})
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, c.Stop()) }()
	if server.config, err = clientcmd.BuildConfigFromFlags("", c.Kubeconfig); err != nil {
		return 1, err
	}
	server.config.QPS, server.config.WarningHandler = -1, rest.NoWarnings{}
	if server.client, err = dynamic.NewForConfig(server.config); err != nil {
		return 1, err
	}
	if err := c.Define(ctx, "../../../deploy/chart/crds"); err != nil {
		return 1, err
	}
	return tests(), nil
}
