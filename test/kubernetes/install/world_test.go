package install

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/volcano-sh/agentcube/client"
	"github.com/volcano-sh/agentcube/internal/sandbox/kube/podspec"
	"github.com/volcano-sh/agentcube/internal/trace/otlp/otlptest"
	"github.com/volcano-sh/agentcube/test/kubernetes/cluster"
)

const (
	release     = "agentcube"
	kubeImage   = "agentcube.test/agentcube:test"
	pythonImage = "agentcube.test/python:test"
	audience    = "agentcube"
	patience    = 3 * time.Minute
)

// world is a cluster with AgentCube in it.
type world struct {
	*cluster.Cluster
	config  *rest.Config
	client  *kubernetes.Clientset
	dynamic *dynamic.DynamicClient
	redis   *redisServer
	// collector is sent the traces.
	collector *otlptest.Receiver
	// manager and router are the URLs at which the node reaches the two planes.
	manager, router string
}

// object is a part of a values file or of a resource.
type object = map[string]any

func startWorld(t *testing.T) *world {
	t.Helper()
	logs := t.TempDir()
	c, err := cluster.Start(t.Context(), cluster.Options{Binaries: places.binaries, Services: true, Logs: logs})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{Cluster: c}
	t.Cleanup(func() {
		if t.Failed() {
			w.tell(t)
			c.WriteLogs(t.Output())
		}
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	if w.config, err = clientcmd.BuildConfigFromFlags("", c.Kubeconfig); err != nil {
		t.Fatal(err)
	}
	w.config.QPS, w.config.Burst = 500, 500
	if w.client, err = kubernetes.NewForConfig(w.config); err != nil {
		t.Fatal(err)
	}
	if w.dynamic, err = dynamic.NewForConfig(w.config); err != nil {
		t.Fatal(err)
	}
	for name, archive := range map[string]string{kubeImage: places.image, pythonImage: places.python} {
		if err := c.LoadImage(t.Context(), archive, name); err != nil {
			t.Fatal(err)
		}
	}
	w.redis, w.collector = startRedis(t), otlptest.NewAt(t, collectorAddress)
	w.helm(t, "install", nil)
	w.manager, w.router = w.url(t, "workloadmanager"), w.url(t, "agentcube-router")
	return w
}

// values are what the tests install with. Others come over them.
func (w *world) values() object {
	service := object{"type": "NodePort", "port": 8080}
	part := object{"service": service, "hosts": []string{cluster.NodeIP}, "replicas": 2,
		"config":    object{"tracing": true, "tracingEndpoint": "http://" + collectorAddress},
		"resources": object{"requests": object{"cpu": "10m", "memory": "64Mi"}}}
	return object{
		"image":           object{"repository": "agentcube.test/agentcube", "tag": "test"},
		"sandbox":         object{"defaultImage": pythonImage},
		"redis":           object{"addr": w.redis.addr, "password": w.redis.password},
		"router":          part,
		"workloadmanager": part,
		"metrics":         object{"dashboards": object{"enabled": true}},
		"log":             object{"level": "debug", "format": "text"},
	}
}

// helm installs or upgrades, and waits until everything is ready.
func (w *world) helm(t *testing.T, verb string, change func(values object)) {
	t.Helper()
	values := w.values()
	if change != nil {
		change(values)
	}
	text, err := json.Marshal(values)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "values.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	cmd := exec.CommandContext(t.Context(), places.helm, verb, release, places.chart, "--kubeconfig", w.Kubeconfig,
		"--namespace", release, "--create-namespace", "--values", file, "--wait", "--timeout", patience.String())
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("helm %s: %v\n%s", verb, err, out)
	}
	t.Logf("helm %s took %v", verb, time.Since(began).Round(time.Millisecond))
}

// url is where the node reaches a service.
func (w *world) url(t *testing.T, service string) string {
	t.Helper()
	s, err := w.client.CoreV1().Services(release).Get(t.Context(), service, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return "http://" + net.JoinHostPort(cluster.NodeIP, strconv.Itoa(int(s.Spec.Ports[0].NodePort)))
}

// account makes a service account that may use the templates of a namespace, or not,
// and returns a token of it.
func (w *world) account(t *testing.T, namespace, name string, may bool) string {
	t.Helper()
	ctx := t.Context()
	if _, err := w.client.CoreV1().ServiceAccounts(namespace).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if may {
		w.allow(t, namespace, name, namespace)
	}
	return w.token(t, namespace, name, audience)
}

// allow lets a service account use the templates of a namespace.
func (w *world) allow(t *testing.T, namespace, name, of string) {
	t.Helper()
	if _, err := w.client.RbacV1().RoleBindings(of).Create(t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: release + "-user"},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Name: name, Namespace: namespace}},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func (w *world) token(t *testing.T, namespace, name, audience string) string {
	t.Helper()
	seconds := int64(3600)
	got, err := w.client.CoreV1().ServiceAccounts(namespace).CreateToken(t.Context(), name, &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{Audiences: []string{audience}, ExpirationSeconds: &seconds},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return got.Status.Token
}

// as is a client that shows a token.
func (w *world) as(t *testing.T, token string) *client.Client {
	t.Helper()
	c, err := client.New(client.Config{WorkloadManagerURL: w.manager, RouterURL: w.router, Token: token})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// sandboxes are the Pods of all sandboxes, those in pools too.
func (w *world) sandboxes(t *testing.T) []corev1.Pod {
	t.Helper()
	list, err := w.client.CoreV1().Pods("").List(t.Context(), metav1.ListOptions{LabelSelector: podspec.LabelComponent + "=" + podspec.Component})
	if err != nil {
		t.Fatal(err)
	}
	return list.Items
}

func await(t *testing.T, what string, done func() (bool, error)) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		ok, err := done()
		if ok {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("wait for %s: %v", what, err)
		}
	}
}

// tell writes what the parts have said, and what the Pods are in.
func (w *world) tell(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	pods, err := w.client.CoreV1().Pods("").List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Log(err)
		return
	}
	for _, p := range pods.Items {
		t.Logf("Pod %s/%s is %s %v", p.Namespace, p.Name, p.Status.Phase, p.Status.ContainerStatuses)
		if p.Namespace != release {
			continue
		}
		lines := int64(200)
		stream, err := w.client.CoreV1().Pods(p.Namespace).GetLogs(p.Name, &corev1.PodLogOptions{TailLines: &lines}).Stream(ctx)
		if err != nil {
			t.Log(err)
			continue
		}
		text, err := io.ReadAll(stream)
		t.Logf("log of %s: %v\n%s", p.Name, err, bytes.TrimSpace(text))
		_ = stream.Close()
	}
}

// redisServer is a Redis on the node, outside of the cluster.
type redisServer struct {
	addr, password, dir string
	kill                func()
}

// startRedis starts Debian's server, which the package redis-tools has by another name.
func startRedis(t *testing.T) *redisServer {
	t.Helper()
	s := &redisServer{addr: net.JoinHostPort(cluster.NodeIP, "6399"), password: "secret of a test", dir: t.TempDir()}
	s.start(t)
	t.Cleanup(func() { s.kill() })
	return s
}

func (s *redisServer) start(t *testing.T) {
	t.Helper()
	path, err := exec.LookPath("redis-check-rdb")
	if err != nil {
		t.Fatal(err)
	}
	host, port, err := net.SplitHostPort(s.addr)
	if err != nil {
		t.Fatal(err)
	}
	cmd := &exec.Cmd{Path: path, Dir: s.dir, Args: []string{
		"redis-server", "--bind", host, "--port", port, "--requirepass", s.password, "--appendonly", "yes", "--save", "",
	}}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.kill = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		conn, err := net.Dial("tcp", s.addr)
		if err == nil {
			_ = conn.Close()
			return
		}
		if time.Now().After(end) {
			t.Fatalf("start Redis: %v\n%s", err, out.String())
		}
	}
}

func mustContain(t *testing.T, what, text, want string) {
	t.Helper()
	if !strings.Contains(text, want) {
		t.Errorf("%s is %q, want %q in it", what, text, want)
	}
}
