package templates

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"

	"github.com/volcano-sh/agentcube/internal/kubetemplate"
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
	if err := define(ctx); err != nil {
		return 1, err
	}
	return tests(), nil
}

// define gives the API server the definitions of the custom resources, and waits until
// it serves them.
func define(ctx context.Context) error {
	files, err := filepath.Glob("../../../deploy/chart/crds/*.yaml")
	if err != nil || len(files) == 0 {
		return fmt.Errorf("there are %d definitions, %w", len(files), err)
	}
	definitions := schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		definition := &unstructured.Unstructured{}
		if err := yaml.Unmarshal(text, &definition.Object); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		if _, err := server.client.Resource(definitions).Create(ctx, definition, metav1.CreateOptions{}); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	for _, resource := range kubetemplate.Resources() {
		for {
			_, err := server.client.Resource(resource).List(ctx, metav1.ListOptions{})
			if err == nil {
				break
			}
			if !apierrors.IsNotFound(err) {
				return fmt.Errorf("wait for %s: %w", resource.Resource, err)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	return nil
}
