package driver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/volcano-sh/agentcube/test/kubernetes/cluster"
)

// Images that the node has.
const (
	pythonImage = "agentcube.test/python:latest"
	agentImage  = "agentcube.test/agent:latest"
)

// node is a cluster with one node that has the images. It is set by TestMain before any
// test runs, and never changed.
var node struct {
	config *rest.Config
	client *kubernetes.Clientset
}

func TestMain(m *testing.M) {
	code, err := cluster.Enter(func() int {
		code, err := run(m.Run)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return code
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// run starts the cluster and runs the tests, which all share it.
func run(tests func() int) (code int, err error) {
	var binaries, image, picod string
	for name, place := range map[string]*string{
		"AGENTCUBE_KUBERNETES": &binaries, "AGENTCUBE_IMAGE": &image, "AGENTCUBE_PICOD": &picod,
	} {
		if *place = os.Getenv(name); *place == "" {
			return 1, errors.New(name + " is not set; run these tests with: make test-kubernetes")
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	c, err := cluster.Start(ctx, cluster.Options{Binaries: binaries, Node: true})
	if err != nil {
		return 1, err
	}
	defer func() {
		if code != 0 {
			c.WriteLogs(os.Stderr)
		}
		err = errors.Join(err, c.Stop())
	}()
	if node.config, err = clientcmd.BuildConfigFromFlags("", c.Kubeconfig); err != nil {
		return 1, err
	}
	node.config.QPS = -1 // not limited
	if node.client, err = kubernetes.NewForConfig(node.config); err != nil {
		return 1, err
	}
	if err := c.Define(ctx, "../../../deploy/chart/crds"); err != nil {
		return 1, err
	}
	dir, err := os.MkdirTemp("", "driver-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	agent := filepath.Join(dir, "agent.tar")
	if err := cluster.WriteImage(ctx, agent, agentImage, picod); err != nil {
		return 1, err
	}
	for name, archive := range map[string]string{agentImage: agent, pythonImage: image} {
		if err := c.LoadImage(ctx, archive, name); err != nil {
			return 1, err
		}
	}
	return tests(), nil
}
