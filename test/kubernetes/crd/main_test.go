package crd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"

	"github.com/volcano-sh/agentcube/api/v1alpha1"
	"github.com/volcano-sh/agentcube/test/kubernetes/cluster"
)

// server is an API server that has the definitions. It is set by TestMain before
// any test runs, and never changed.
var server struct {
	dynamic *dynamic.DynamicClient
	typed   *kubernetes.Clientset
}

var definitions = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}

func TestMain(m *testing.M) {
	code, err := run(m.Run)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// run starts an API server, gives it the definitions, and runs the tests.
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
	config, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig)
	if err != nil {
		return 1, err
	}
	config.QPS, config.WarningHandler = -1, rest.NoWarnings{} // neither limited nor told of fields that are dropped
	if server.dynamic, err = dynamic.NewForConfig(config); err != nil {
		return 1, err
	}
	if server.typed, err = kubernetes.NewForConfig(config); err != nil {
		return 1, err
	}
	if err := define(ctx); err != nil {
		return 1, err
	}
	return tests(), nil
}

// define gives the API server all definitions and waits until it serves them.
func define(ctx context.Context) error {
	files, err := filepath.Glob("../../../deploy/chart/crds/*.yaml")
	if err != nil || len(files) != 2 {
		return fmt.Errorf("there are %d definitions, %w", len(files), err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		definition, err := object(string(text))
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		client := server.dynamic.Resource(definitions)
		if _, err := client.Create(ctx, definition, metav1.CreateOptions{FieldValidation: metav1.FieldValidationStrict}); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		if err := established(ctx, client, definition.GetName()); err != nil {
			return err
		}
	}
	return nil
}

func established(ctx context.Context, client dynamic.ResourceInterface, name string) error {
	for {
		got, err := client.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if isTrue(got, "Established") {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is not established: %v", name, got.Object["status"])
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func isTrue(of *unstructured.Unstructured, condition string) bool {
	all, _, _ := unstructured.NestedSlice(of.Object, "status", "conditions")
	for _, c := range all {
		if c, ok := c.(map[string]any); ok && c["type"] == condition {
			return c["status"] == "True"
		}
	}
	return false
}

// object reads one document of YAML, as kubectl does.
func object(text string) (*unstructured.Unstructured, error) {
	data, err := yaml.YAMLToJSONStrict([]byte(text))
	if err != nil {
		return nil, err
	}
	out := &unstructured.Unstructured{}
	return out, out.UnmarshalJSON(data)
}

// resource is the client for what an object is, in its namespace.
func resource(of *unstructured.Unstructured) dynamic.ResourceInterface {
	namespace := of.GetNamespace()
	if namespace == "" {
		namespace = "default"
	}
	return server.dynamic.Resource(v1alpha1.GroupVersion.WithResource(strings.ToLower(of.GetKind()) + "s")).Namespace(namespace)
}

// submit has the API server look at a document without keeping it.
func submit(t *testing.T, text string) (*unstructured.Unstructured, error) {
	t.Helper()
	o, err := object(text)
	if err != nil {
		return nil, err
	}
	return resource(o).Create(t.Context(), o, metav1.CreateOptions{
		FieldValidation: metav1.FieldValidationStrict, DryRun: []string{metav1.DryRunAll},
	})
}

// create keeps a document until the test ends.
func create(t *testing.T, text string) *unstructured.Unstructured {
	t.Helper()
	o, err := object(text)
	if err != nil {
		t.Fatal(err)
	}
	if namespace := o.GetNamespace(); namespace != "" {
		makeNamespace(t, namespace)
	}
	client := resource(o)
	got, err := client.Create(t.Context(), o, metav1.CreateOptions{FieldValidation: metav1.FieldValidationStrict})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.Delete(context.WithoutCancel(t.Context()), o.GetName(), metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	return got
}

func makeNamespace(t *testing.T, name string) {
	t.Helper()
	namespace, err := object("apiVersion: v1\nkind: Namespace\nmetadata: {name: " + name + "}")
	if err != nil {
		t.Fatal(err)
	}
	_, err = server.dynamic.Resource(schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}).
		Create(t.Context(), namespace, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
}
