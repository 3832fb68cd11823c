package auth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/auth"
	"github.com/volcano-sh/agentcube/internal/auth/kubeauth"
	"github.com/volcano-sh/agentcube/test/kubernetes/cluster"
)

// guard keeps a broken test from hanging; no test waits for it.
const guard = time.Minute

// server is an API server. It is set by TestMain before any test runs, and never
// changed.
var server struct {
	binaries string
	config   *rest.Config
	admin    *kubernetes.Clientset
	key      string // file of the key that tokens are signed with
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
	if server.binaries = os.Getenv("AGENTCUBE_KUBERNETES"); server.binaries == "" {
		return 1, errors.New("AGENTCUBE_KUBERNETES is not set; run these tests with: make test-kubernetes")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	c, err := cluster.Start(ctx, cluster.Options{Binaries: server.binaries})
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, c.Stop()) }()
	server.key = strings.TrimSuffix(c.Kubeconfig, "kubeconfig") + "certs/accounts.key"
	if server.config, server.admin, err = connect(c); err != nil {
		return 1, err
	}
	return tests(), nil
}

// connect is a client that may do everything, and does so as often as it likes.
func connect(c *cluster.Cluster) (*rest.Config, *kubernetes.Clientset, error) {
	config, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig)
	if err != nil {
		return nil, nil, err
	}
	config.QPS = -1
	client, err := kubernetes.NewForConfig(config)
	return config, client, err
}

// counter counts requests by the last part of their path.
type counter struct {
	mu sync.Mutex
	n  map[string]int
}

// of is how many there were.
func (c *counter) of(resource string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n[resource]
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

const (
	reviews = "tokenreviews"
	access  = "subjectaccessreviews"
)

// newCluster is what is tested, with a memory of its own, and a count of what it asks.
func newCluster(t *testing.T, config *rest.Config, change func(*kubeauth.Config)) (*kubeauth.Cluster, *counter) {
	t.Helper()
	asked := &counter{n: map[string]int{}}
	config = rest.CopyConfig(config)
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(r *http.Request) (*http.Response, error) {
			asked.mu.Lock()
			asked.n[r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]]++
			asked.mu.Unlock()
			return next.RoundTrip(r)
		})
	})
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	cfg := kubeauth.Config{Client: client, Audiences: []string{"agentcube"}}
	if change != nil {
		change(&cfg)
	}
	c, err := kubeauth.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c, asked
}

// namespace makes a namespace of the test's own, which stays.
func namespace(t *testing.T) string {
	t.Helper()
	made, err := server.admin.CoreV1().Namespaces().Create(t.Context(),
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return made.Name
}

// account makes a service account and returns what it is called as a user.
func account(t *testing.T, admin *kubernetes.Clientset, namespace, name string) string {
	t.Helper()
	_, err := admin.CoreV1().ServiceAccounts(namespace).Create(t.Context(),
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	return auth.ServiceAccountPrefix + namespace + ":" + name
}

// token is a fresh one for audiences; without, for the API server's own.
func token(t *testing.T, admin *kubernetes.Clientset, namespace, name string, audiences ...string) string {
	t.Helper()
	life := int64(600)
	made, err := admin.CoreV1().ServiceAccounts(namespace).CreateToken(t.Context(), name, &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{Audiences: audiences, ExpirationSeconds: &life},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return made.Status.Token
}

// request carries a token.
func request(ctx context.Context, token string) *http.Request {
	return (&http.Request{Header: http.Header{"Authorization": {"Bearer " + token}}}).WithContext(ctx)
}

// wantError holds an error to what its caller is told.
func wantError(t *testing.T, what string, err error, status int, code api.Code, text string) *api.Error {
	t.Helper()
	e, ok := errors.AsType[*api.Error](err)
	if !ok || e.Status != status || e.Code != code || !strings.Contains(e.Text, text) {
		t.Errorf("%s: %v, want %d %s with %q", what, err, status, code, text)
		return &api.Error{}
	}
	return e
}

// eventually waits for what another process does.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), guard)
	defer cancel()
	for !ok() {
		select {
		case <-ctx.Done():
			t.Fatalf("never happened: %s", what)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
