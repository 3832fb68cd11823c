package driver

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/remotecommand"

	"github.com/volcano-sh/agentcube/internal/auth"
	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/sandbox/kube"
	"github.com/volcano-sh/agentcube/internal/sandbox/kube/podspec"
	"github.com/volcano-sh/agentcube/test/kubernetes/cluster"
)

// guard is how long a test waits for something that must happen at all.
const guard = 3 * time.Minute

// bootstrap is whose holder may lock a PicoD; it is slow to make.
var bootstrap = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, auth.MinRSABits)
	if err != nil {
		panic(err) // the system has no randomness
	}
	return key
})

func publicKey(t *testing.T, key *rsa.PrivateKey) string {
	t.Helper()
	text, err := auth.PublicKeyPEM(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// runtimes are what isolates, with the runtime class for each.
func runtimes() map[string]string { return map[string]string{"runc": "", "gvisor": cluster.GVisor} }

// newNamespace makes one for a test, and removes it with all that is in it.
func newNamespace(t *testing.T, labels map[string]string) string {
	t.Helper()
	ns, err := node.client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "t-", Labels: labels},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := node.client.CoreV1().Namespaces().Delete(context.Background(), ns.Name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	return ns.Name
}

// podSettings are those of all drivers here.
func podSettings() podspec.Settings {
	return podspec.Settings{AgentImage: agentImage, AgentPullPolicy: corev1.PullIfNotPresent}
}

func openDriver(t *testing.T, cfg kube.Config) *kube.Driver {
	t.Helper()
	if cfg.Client == nil {
		cfg.Client = node.client
	}
	home := cfg.Pods.Home
	cfg.Pods = podSettings()
	cfg.Pods.Home = home
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

// newSpec is that of a sandbox with PicoD, with a runtime class where one is named.
func newSpec(t *testing.T, namespace, class string) (sandbox.Spec, *podspec.Extras) {
	t.Helper()
	c := corev1.Container{Name: podspec.ContainerName, ImagePullPolicy: corev1.PullIfNotPresent}
	x := &podspec.Extras{Agent: true, Namespace: namespace, Pod: corev1.PodSpec{Containers: []corev1.Container{c}}}
	if class != "" {
		x.Pod.RuntimeClassName = &class
	}
	return sandbox.Spec{
		ID: "t-" + strings.ToLower(rand.Text()), Image: pythonImage, Workspace: "/workspace", BootstrapKey: publicKey(t, bootstrap()),
		Resources: sandbox.Resources{CPUMillis: 1000, MemoryBytes: 256 << 20, DiskBytes: 256 << 20}, Extras: x,
	}, x
}

// create makes a sandbox, and removes it when the test is over.
func create(t *testing.T, d *kube.Driver, spec sandbox.Spec) sandbox.Sandbox {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), guard)
	defer cancel()
	made, err := d.Create(ctx, spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Delete(context.Background(), spec.ID); err != nil && !errors.Is(err, sandbox.ErrClosed) {
			t.Error(err)
		}
	})
	return made
}

// podOf is the one Pod of a sandbox.
func podOf(t *testing.T, namespace, id string) *corev1.Pod {
	t.Helper()
	p, err := findPod(t.Context(), namespace, id)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func findPod(ctx context.Context, namespace, id string) (*corev1.Pod, error) {
	list, err := node.client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: podspec.LabelSandbox + "=" + id})
	if err != nil || len(list.Items) != 1 {
		return nil, fmt.Errorf("%d Pods, %w", len(list.Items), err)
	}
	return &list.Items[0], nil
}

// awaitExit waits for the exit of a sandbox; others are not expected.
func awaitExit(t *testing.T, d *kube.Driver, id string) sandbox.Exit {
	t.Helper()
	select {
	case e := <-d.Exits():
		if e.ID != id {
			t.Fatalf("exit of %s, want that of %s", e.ID, id)
		}
		return e
	case <-time.After(guard):
		t.Fatalf("no exit of %s was delivered", id)
	}
	return sandbox.Exit{}
}

// exec runs a command in the Pod of a sandbox, beside PicoD, once kubelet has seen that
// its container runs: the sandbox can be used before.
func exec(ctx context.Context, namespace, id string, command ...string) (string, error) {
	p, err := findPod(ctx, namespace, id)
	for ; err == nil && !running(p.Status.ContainerStatuses); p, err = findPod(ctx, namespace, id) {
		time.Sleep(10 * time.Millisecond)
	}
	if err != nil {
		return "", err
	}
	req := node.client.CoreV1().RESTClient().Post().Resource("pods").Namespace(namespace).Name(p.Name).SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{Container: p.Spec.Containers[0].Name, Command: command, Stdout: true, Stderr: true}, scheme.ParameterCodec)
	stream, err := remotecommand.NewSPDYExecutor(node.config, "POST", req.URL())
	if err != nil {
		return "", err
	}
	var stdout, stderr bytes.Buffer
	err = stream.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: &stdout, Stderr: &stderr})
	return stdout.String() + stderr.String(), err
}

// end makes the first process of a sandbox end.
func end(ctx context.Context, namespace, id string) error {
	_, err := exec(ctx, namespace, id, "sh", "-c", "kill 1")
	if err != nil && strings.Contains(err.Error(), "137") {
		err = nil // it went with what it ended
	}
	return err
}

// session is a sandbox whose PicoD is locked to a key.
type session struct {
	t   *testing.T
	d   *kube.Driver
	id  string
	key *rsa.PrivateKey
}

// lock hands a sandbox its session key, as the Workload Manager does.
func lock(t *testing.T, d *kube.Driver, made sandbox.Sandbox) session {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, auth.MinRSABits)
	if err != nil {
		t.Fatal(err)
	}
	s := session{t, d, made.ID, key}
	body := []byte(`{"sessionId":"` + made.ID + `"}`)
	token, err := auth.SignInit(bootstrap(), auth.Init{
		SessionID: made.ID, SandboxID: made.AgentID, Mode: auth.InitKeyBound, PublicKey: publicKey(t, key), Body: body,
	}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if status, answer, err := s.post("/init", token, body); err != nil || status != http.StatusOK {
		t.Fatalf("init answered %d %s, %v", status, answer, err)
	}
	return s
}

func (s session) post(path, token string, body []byte) (int, []byte, error) {
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return s.d.Dial(ctx, s.id, sandbox.AgentPort)
	}}
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, "http://sandbox"+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return resp.StatusCode, answer, err
}

// run runs a shell's command as user code is run.
func (s session) run(script string) (code int, output string, err error) {
	body, err := json.Marshal(map[string]any{"command": []string{"sh", "-c", script}, "timeout": "60s"})
	if err != nil {
		return 0, "", err
	}
	token, err := jwt.NewWithClaims(jwt.SigningMethodRS256, jwt.MapClaims{
		"iat": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix(),
	}).SignedString(s.key)
	if err != nil {
		return 0, "", err
	}
	status, answer, err := s.post("/api/execute", token, body)
	if err != nil {
		return 0, "", err
	}
	var got struct {
		ExitCode       int `json:"exit_code"`
		Stdout, Stderr string
	}
	if err := json.Unmarshal(answer, &got); err != nil || status != http.StatusOK {
		return 0, "", fmt.Errorf("execute answered %d %s", status, answer)
	}
	return got.ExitCode, got.Stdout + got.Stderr, nil
}
