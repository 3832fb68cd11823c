package driver

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/remotecommand"

	"github.com/volcano-sh/agentcube/internal/auth"
	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/sandbox/kube"
	"github.com/volcano-sh/agentcube/internal/sandbox/kube/podspec"
	"github.com/volcano-sh/agentcube/internal/sandbox/sandboxtest"
	"github.com/volcano-sh/agentcube/test/kubernetes/cluster"
)

// Images that the node has.
const (
	pythonImage = "agentcube.test/python:latest"
	agentImage  = "agentcube.test/agent:latest"
)

// node is a cluster with a node that has the images.
type node struct {
	*cluster.Cluster
	config *rest.Config
	client *kubernetes.Clientset
}

func startNode(t *testing.T) *node {
	t.Helper()
	c, err := cluster.Start(t.Context(), cluster.Options{Binaries: places.binaries, Node: true, Logs: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	n := &node{Cluster: c}
	t.Cleanup(func() {
		if t.Failed() {
			c.WriteLogs(t.Output())
		}
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	if n.config, err = clientcmd.BuildConfigFromFlags("", c.Kubeconfig); err != nil {
		t.Fatal(err)
	}
	n.config.QPS, n.config.Burst = 500, 500
	if n.client, err = kubernetes.NewForConfig(n.config); err != nil {
		t.Fatal(err)
	}
	archive := t.TempDir() + "/agent.tar"
	if err := cluster.WriteImage(t.Context(), archive, agentImage, places.picod); err != nil {
		t.Fatal(err)
	}
	for name, archive := range map[string]string{agentImage: archive, pythonImage: places.image} {
		if err := c.LoadImage(t.Context(), archive, name); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

// namespace makes one for a test, and removes it with all that is in it.
func (n *node) namespace(t *testing.T) string {
	t.Helper()
	ns, err := n.client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "t-"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.client.CoreV1().Namespaces().Delete(context.Background(), ns.Name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	return ns.Name
}

func (n *node) driver(t *testing.T, cfg kube.Config) *kube.Driver {
	t.Helper()
	cfg.Client = n.client
	cfg.Pods = podspec.Settings{AgentImage: agentImage, AgentPullPolicy: corev1.PullIfNotPresent}
	cfg.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	d, err := kube.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// exec runs a command in the Pod of a sandbox.
func (n *node) exec(ctx context.Context, namespace, id string, command ...string) (string, error) {
	list, err := n.client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: podspec.LabelSandbox + "=" + id})
	if err != nil || len(list.Items) != 1 {
		return "", fmt.Errorf("%d Pods, %w", len(list.Items), err)
	}
	req := n.client.CoreV1().RESTClient().Post().Resource("pods").Namespace(namespace).Name(list.Items[0].Name).SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{Container: list.Items[0].Spec.Containers[0].Name, Command: command, Stdout: true, Stderr: true}, scheme.ParameterCodec)
	stream, err := remotecommand.NewSPDYExecutor(n.config, "POST", req.URL())
	if err != nil {
		return "", err
	}
	var stdout, stderr bytes.Buffer
	err = stream.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: &stdout, Stderr: &stderr})
	return stdout.String() + stderr.String(), err
}

// classed makes every sandbox of a driver one with a runtime class.
type classed struct {
	*kube.Driver
	namespace, class string
}

func (d classed) Create(ctx context.Context, spec sandbox.Spec) (sandbox.Sandbox, error) {
	c := corev1.Container{Name: "code-interpreter", ImagePullPolicy: corev1.PullIfNotPresent}
	x := &podspec.Extras{Agent: true, Namespace: d.namespace, Pod: corev1.PodSpec{Containers: []corev1.Container{c}}}
	if d.class != "" {
		x.Pod.RuntimeClassName = &d.class
	}
	if spec.Image != "" {
		spec.Extras = x
	}
	return d.Driver.Create(ctx, spec)
}

func TestConformance(t *testing.T) {
	n := startNode(t)
	bootstrap, err := rsa.GenerateKey(rand.Reader, auth.MinRSABits)
	if err != nil {
		t.Fatal(err)
	}
	public, err := auth.PublicKeyPEM(&bootstrap.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, class := range map[string]string{"runc": "", "gvisor": cluster.GVisor} {
		t.Run(name, func(t *testing.T) {
			sandboxtest.Run(t, sandboxtest.Config{
				Image: pythonImage, MissingImage: "agentcube.test/none:latest", BootstrapKey: public, Bootstrap: bootstrap,
				New: func(t *testing.T) sandbox.Driver {
					ns := n.namespace(t)
					return classed{n.driver(t, kube.Config{Namespace: ns}), ns, class}
				},
				Reopen: func(t *testing.T, d sandbox.Driver) sandbox.Driver {
					old := d.(classed)
					if err := old.Close(); err != nil {
						t.Fatal(err)
					}
					return classed{n.driver(t, kube.Config{Namespace: old.namespace}), old.namespace, class}
				},
				Kill: func(ctx context.Context, d sandbox.Driver, id string) error {
					_, err := n.exec(ctx, d.(classed).namespace, id, "sh", "-c", "kill 1")
					if err != nil && strings.Contains(err.Error(), "137") {
						err = nil // it went with what it ended
					}
					return err
				},
				Guard: 3 * time.Minute,
			})
		})
	}
}
