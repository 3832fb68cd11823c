package smoke

import (
	"bytes"
	"context"
	"fmt"
	"io"
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

	"github.com/volcano-sh/agentcube/test/kubernetes/cluster"
)

// image is what the Pods of these tests run: it says its kernel's release, and waits.
const image = "agentcube.test/probe:latest"

// node is a cluster with a node, and a client for it.
type node struct {
	*cluster.Cluster
	config *rest.Config
	client *kubernetes.Clientset
}

func startNode(t *testing.T, options cluster.Options) *node {
	t.Helper()
	options.Binaries, options.Node, options.Logs = binaries, true, t.TempDir()
	began := time.Now()
	c, err := cluster.Start(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the node was ready after %v", time.Since(began).Round(10*time.Millisecond))
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
	if n.client, err = kubernetes.NewForConfig(n.config); err != nil {
		t.Fatal(err)
	}
	archive := t.TempDir() + "/probe.tar"
	if err := cluster.WriteImage(t.Context(), archive, image, binaries+"/pause"); err != nil {
		t.Fatal(err)
	}
	if err := c.LoadImage(t.Context(), archive, image); err != nil {
		t.Fatal(err)
	}
	return n
}

func probe(name string) *corev1.Pod {
	seconds := int64(1)
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{
			TerminationGracePeriodSeconds: &seconds,
			Containers:                    []corev1.Container{{Name: "main", Image: image, ImagePullPolicy: corev1.PullIfNotPresent}},
		},
	}
}

// run makes a Pod and waits until it is ready.
func (n *node) run(t *testing.T, pod *corev1.Pod) *corev1.Pod {
	t.Helper()
	began := time.Now()
	pods := n.client.CoreV1().Pods("default")
	pod, err := pods.Create(t.Context(), pod, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	n.await(t, "Pod "+pod.Name, func() (bool, error) {
		if pod, err = pods.Get(t.Context(), pod.Name, metav1.GetOptions{}); err != nil {
			return false, err
		}
		for _, c := range pod.Status.Conditions {
			if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
				return true, nil
			}
		}
		return false, fmt.Errorf("it is %v", pod.Status)
	})
	t.Logf("Pod %s was ready after %v", pod.Name, time.Since(began).Round(10*time.Millisecond))
	return pod
}

func (n *node) await(t *testing.T, what string, done func() (bool, error)) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		ok, err := done()
		if ok {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("wait for %s: %v", what, err)
		}
	}
}

func (n *node) log(t *testing.T, pod string) string {
	t.Helper()
	stream, err := n.client.CoreV1().Pods("default").GetLogs(pod, &corev1.PodLogOptions{}).Stream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	data, err := io.ReadAll(stream)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func (n *node) exec(t *testing.T, pod string, args ...string) string {
	t.Helper()
	req := n.client.CoreV1().RESTClient().Post().Resource("pods").Namespace("default").Name(pod).SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{Command: args, Stdout: true, Stderr: true}, scheme.ParameterCodec)
	executor, err := remotecommand.NewWebSocketExecutor(n.config, "GET", req.URL().String())
	if err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer // written to at the same time
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: &stdout, Stderr: &stderr}); err != nil {
		t.Fatalf("exec in %s: %v\n%s%s", pod, err, stdout.String(), stderr.String())
	}
	return stdout.String() + stderr.String()
}

func (n *node) remove(t *testing.T, pod string) {
	t.Helper()
	pods := n.client.CoreV1().Pods("default")
	if err := pods.Delete(t.Context(), pod, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	n.await(t, "the end of Pod "+pod, func() (bool, error) {
		list, err := pods.List(t.Context(), metav1.ListOptions{FieldSelector: "metadata.name=" + pod})
		return err == nil && len(list.Items) == 0, err
	})
}

// TestPods: what a Pod runs on is what its class says, and logs and exec reach it.
func TestPods(t *testing.T) {
	n := startNode(t, cluster.Options{})
	class, no := cluster.GVisor, false
	plain, sandboxed, mapped := probe("plain"), probe("sandboxed"), probe("mapped")
	sandboxed.Spec.RuntimeClassName = &class
	mapped.Spec.HostUsers = &no
	release := map[string]string{}
	for _, pod := range []*corev1.Pod{plain, sandboxed, mapped} {
		pod = n.run(t, pod)
		if !strings.HasPrefix(pod.Status.PodIP, "10.200.") || pod.Status.HostIP != cluster.NodeIP {
			t.Errorf("Pod %s has the address %q on %q", pod.Name, pod.Status.PodIP, pod.Status.HostIP)
		}
		release[pod.Name] = n.exec(t, pod.Name, "/pause", "kernel")
		if log := n.log(t, pod.Name); log != release[pod.Name] {
			t.Errorf("the log of Pod %s is %q, and exec in it says %q", pod.Name, log, release[pod.Name])
		}
	}
	if !strings.Contains(release["sandboxed"], "gvisor") {
		t.Errorf("the RuntimeClass %s runs on %q", class, release["sandboxed"])
	}
	if release["plain"] != release["mapped"] || strings.Contains(release["plain"], "gvisor") {
		t.Errorf("without a RuntimeClass Pods run on %q and %q", release["plain"], release["mapped"])
	}
	n.remove(t, "plain")
	n.remove(t, "sandboxed")
}

// TestServices: the API server is reached by the address of its service, from Pods
// of either kind.
func TestServices(t *testing.T) {
	n := startNode(t, cluster.Options{Services: true})
	service, err := n.client.CoreV1().Services("default").Get(t.Context(), "kubernetes", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	class := cluster.GVisor
	plain, sandboxed := probe("plain"), probe("sandboxed")
	sandboxed.Spec.RuntimeClassName = &class
	for _, pod := range []*corev1.Pod{plain, sandboxed} {
		n.run(t, pod)
		if said := n.exec(t, pod.Name, "/pause", "dial", service.Spec.ClusterIP+":443"); said != "connected\n" {
			t.Errorf("from Pod %s: %s", pod.Name, said)
		}
	}
}
