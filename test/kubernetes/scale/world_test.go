package scale

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/volcano-sh/agentcube/api/v1alpha1"
	"github.com/volcano-sh/agentcube/internal/session/redis/redistest"
	"github.com/volcano-sh/agentcube/test/kubernetes/cluster"
)

const (
	namespace = "default"
	warm      = "warm" // the template with a pool
	cold      = "cold"
	patience  = 5 * time.Minute
)

// world is a cluster with AgentCube in it.
type world struct {
	size
	cluster *cluster.Cluster
	client  *kubernetes.Clientset
	dynamic *dynamic.DynamicClient
	redis   *redistest.Server
	dir     string

	managers, routers []*process
	token             string
	key               *rsa.PrivateKey
	publicKey         string
	signed            string // by key
	http              *http.Client
}

// size is how much is simulated.
type size struct {
	nodes, sessions, pool, concurrency, requests int
	managers, routers                            int
	idle, ends, retention                        time.Duration
}

func startWorld(t *testing.T, of size) *world {
	t.Helper()
	binaries, program := os.Getenv("AGENTCUBE_KUBERNETES"), os.Getenv("AGENTCUBE_BIN")
	if binaries == "" || program == "" {
		t.Fatal("AGENTCUBE_KUBERNETES or AGENTCUBE_BIN is not set; run these tests with make test-kubernetes or make simulate-cluster")
	}
	c, err := cluster.Start(t.Context(), cluster.Options{Binaries: binaries, Controllers: true})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{size: of, cluster: c, dir: t.TempDir(), http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: of.concurrency}}}
	t.Cleanup(func() {
		w.http.CloseIdleConnections()
		if t.Failed() {
			c.WriteLogs(t.Output())
		}
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	config, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	config.QPS, config.WarningHandler = -1, rest.NoWarnings{}
	if w.dynamic, err = dynamic.NewForConfig(config); err != nil {
		t.Fatal(err)
	}
	config.ContentType = "application/vnd.kubernetes.protobuf" // as kubelet
	if w.client, err = kubernetes.NewForConfig(config); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(c.Define(t.Context(), "../../../deploy/chart/crds"), w.prepare(t)); err != nil {
		t.Fatal(err)
	}
	if err := serveAgents(t.Context(), of.nodes); err != nil {
		t.Fatal(err)
	}
	n, err := startNodes(t.Context(), w.client, of.nodes, of.ends, func(err error) { t.Log("simulated node:", err) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.work.Wait)
	w.redis = redistest.Any(t).Start(t, "--appendonly", "yes")
	for range of.managers {
		w.managers = append(w.managers, w.startManager(t, program))
	}
	for range of.routers {
		w.routers = append(w.routers, w.start(t, program, "router", "--router-key-file", w.path("router.key"), "--workload-manager-url", w.managers[0].url))
	}
	return w
}

func (w *world) startManager(t *testing.T, program string) *process {
	t.Helper()
	return w.start(t, program, "workload-manager", "--agent-image", "agentcube.test/agentcube:1",
		"--bootstrap-key-file", w.path("bootstrap.key"), "--router-certificate-file", w.path("router.crt"),
		"--max-sessions-per-owner", "1000000", "--max-create-rate-per-owner", "1000000", "--ended-retention", w.retention.String())
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

// prepare makes the keys, and an account that may use all templates.
func (w *world) prepare(t *testing.T) error {
	ctx := t.Context()
	for _, name := range []string{"agentcube", leases} {
		if _, err := w.client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil && name != leases {
			return err
		}
	}
	keys := map[string]*rsa.PrivateKey{}
	for _, name := range []string{"bootstrap", "router", "session"} {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			return err
		}
		text := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
		if err := os.WriteFile(w.path(name+".key"), text, 0o600); err != nil {
			return err
		}
		keys[name] = key
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "router"}, NotAfter: time.Now().Add(24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &keys["router"].PublicKey, keys["router"])
	if err != nil {
		return err
	}
	if err := os.WriteFile(w.path("router.crt"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		return err
	}
	// One key for all sessions: making them is the clients' work, which is not measured.
	w.key = keys["session"]
	public, err := x509.MarshalPKIXPublicKey(&w.key.PublicKey)
	if err != nil {
		return err
	}
	w.publicKey = base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}))
	return w.account(t)
}

func (w *world) account(t *testing.T) error {
	ctx := t.Context()
	const name = "agent"
	if _, err := w.client.CoreV1().ServiceAccounts(namespace).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
		return err
	}
	_, err := w.client.RbacV1().ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
		Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Name: name, Namespace: namespace}},
	}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	seconds := int64(24 * 3600)
	got, err := w.client.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, name, &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{Audiences: []string{"agentcube"}, ExpirationSeconds: &seconds},
	}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	w.token = got.Status.Token
	return nil
}

// sign makes the signature that requests carry: one of the older form, which is not
// bound to a request, so that the client has little to do.
func (w *world) sign(t *testing.T) {
	t.Helper()
	var err error
	now := time.Now()
	w.signed, err = jwt.NewWithClaims(jwt.SigningMethodRS256, jwt.MapClaims{"iat": now.Unix(), "exp": now.Add(4 * time.Minute).Unix()}).SignedString(w.key)
	if err != nil {
		t.Fatal(err)
	}
}

// define makes a template.
func (w *world) define(t *testing.T, name string, pool int) {
	t.Helper()
	u := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": v1alpha1.GroupVersion.String(), "kind": "CodeInterpreter", "metadata": map[string]any{"name": name, "namespace": namespace},
		"spec": map[string]any{"template": map[string]any{"image": "agentcube.test/python:1"}, "warmPoolSize": int64(pool)},
	}}
	if _, err := w.dynamic.Resource(v1alpha1.GroupVersion.WithResource("codeinterpreters")).Namespace(namespace).Create(t.Context(), u, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func (w *world) undefine(t *testing.T, name string) {
	t.Helper()
	if err := w.dynamic.Resource(v1alpha1.GroupVersion.WithResource("codeinterpreters")).Namespace(namespace).Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
}

// process is one of our programs that runs.
type process struct {
	name, url, metrics string
	args               []string
	cmd                *exec.Cmd
	log                *os.File
	ready              time.Duration // that it took to begin
}

// start starts a program and waits until it serves.
func (w *world) start(t *testing.T, program, part string, args ...string) *process {
	t.Helper()
	listen, metrics := fmt.Sprintf("127.0.0.1:%d", redistest.FreePort(t)), fmt.Sprintf("127.0.0.1:%d", redistest.FreePort(t))
	p := &process{name: part, url: "http://" + listen, metrics: "http://" + metrics + "/metrics", args: append([]string{
		part, "--listen", listen, "--metrics-listen", metrics, "--kubeconfig", w.cluster.Kubeconfig, "--store", "redis", "--redis-url", "redis://" + w.redis.Addr(),
		"--data-dir", filepath.Join(w.dir, "data-"+strings.TrimPrefix(listen, "127.0.0.1:")), "--log-level", "warn",
	}, args...)}
	var err error
	if p.log, err = os.CreateTemp(w.dir, part+"-*.log"); err != nil {
		t.Fatal(err)
	}
	p.begin(t, program)
	t.Cleanup(func() {
		p.kill()
		if text, err := os.ReadFile(p.log.Name()); err == nil && (t.Failed() || testing.Verbose()) {
			t.Logf("%s has said:\n%s", p.name, text[max(0, len(text)-4<<10):])
		}
		_ = p.log.Close()
	})
	return p
}

func (p *process) begin(t *testing.T, program string) {
	t.Helper()
	began := time.Now()
	p.cmd = exec.Command(program, p.args...)
	p.cmd.Env = []string{"HOME=" + filepath.Dir(p.log.Name())}
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	await(t, p.name, func() bool {
		resp, err := http.Get(p.url + "/health")
		if err != nil {
			return false
		}
		_ = resp.Body.Close()
		return true // whatever it answers: it serves
	})
	p.ready = time.Since(began)
}

// kill ends the program without asking it.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !done(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}
