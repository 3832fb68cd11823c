package operator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	clientscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/volcano-sh/agentcube/api/v1alpha1"
	"github.com/volcano-sh/agentcube/internal/operator"
	"github.com/volcano-sh/agentcube/internal/sandbox/kube/podspec"
	"github.com/volcano-sh/agentcube/test/kubernetes/cluster"
)

const (
	// account is what the operator is to the API server: it may do what
	// docs/decisions/operator.md says, and nothing else.
	account = "system:serviceaccount:agentcube:operator"
	// leases is the namespace of the lease.
	leases = "agentcube"
	// agentAddress is the address of every Pod here: a server there says that it is
	// well, as PicoD does.
	agentAddress = "127.86.75.64"
	// childVariable has this program be an operator of that identity, until it is killed.
	childVariable = "AGENTCUBE_TEST_OPERATOR"
)

// world is the cluster of all tests. It is set by TestMain before any test runs, and
// never changed.
var world struct {
	cluster *cluster.Cluster
	config  *rest.Config
	client  client.Client
	log     *slog.Logger
}

func TestMain(m *testing.M) {
	if identity := os.Getenv(childVariable); identity != "" {
		fmt.Fprintln(os.Stderr, beOperator(identity))
		os.Exit(1)
	}
	code, err := run(m.Run)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// beOperator is what a child does: its only argument is a kubeconfig.
func beOperator(identity string) error {
	config, err := clientcmd.BuildConfigFromFlags("", os.Args[1])
	if err != nil {
		return err
	}
	cfg := operatorConfig(config, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	cfg.LeaderElection, cfg.LeaseNamespace, cfg.Identity = true, leases, identity
	return operator.New(cfg).Run(context.Background())
}

// operatorConfig is that of an operator which is nobody but its account.
func operatorConfig(config *rest.Config, log *slog.Logger) operator.Config {
	config = rest.CopyConfig(config)
	config.Impersonate = rest.ImpersonationConfig{UserName: account, Groups: []string{"system:serviceaccounts", "system:authenticated"}}
	return operator.Config{
		REST: config, DefaultImage: "agentcube.test/default:1", BootstrapPEM: "a key", Pods: pods(), Callers: callers(), Logger: log,
	}
}

// home is the namespace of the AgentCube that is tested.
const home = "agentcube"

func pods() podspec.Settings {
	return podspec.Settings{AgentImage: "agentcube.test/agent:1", Home: home}
}

func callers() podspec.Callers {
	return podspec.Callers{Namespace: home, Labels: map[string]string{"app": "agentcube"}}
}

// run starts a cluster without a node, gives it the definitions and the operator's
// account, and runs the tests.
func run(tests func() int) (code int, err error) {
	binaries := os.Getenv("AGENTCUBE_KUBERNETES")
	if binaries == "" {
		return 1, errors.New("AGENTCUBE_KUBERNETES is not set; run these tests with: make test-kubernetes")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	c, err := cluster.Start(ctx, cluster.Options{Binaries: binaries, Controllers: true})
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, c.Stop()) }()
	world.cluster = c
	if world.config, err = clientcmd.BuildConfigFromFlags("", c.Kubeconfig); err != nil {
		return 1, err
	}
	world.config.QPS, world.config.WarningHandler = -1, rest.NoWarnings{}
	scheme := runtime.NewScheme()
	if err := errors.Join(clientscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return 1, err
	}
	if world.client, err = client.New(world.config, client.Options{Scheme: scheme}); err != nil {
		return 1, err
	}
	if err := errors.Join(c.Define(ctx, "../../../deploy/chart/crds"), grant(ctx)); err != nil {
		return 1, err
	}
	stop, err := serveHealth(ctx)
	if err != nil {
		return 1, err
	}
	defer stop()
	logs, err := os.CreateTemp("", "operator-*.log")
	if err != nil {
		return 1, err
	}
	defer os.Remove(logs.Name())
	defer logs.Close()
	world.log = slog.New(slog.NewTextHandler(logs, &slog.HandlerOptions{Level: slog.LevelInfo}))
	if code = tests(); code != 0 {
		text, _ := os.ReadFile(logs.Name())
		fmt.Fprintf(os.Stderr, "operators have said:\n%s\n", text[max(0, len(text)-64<<10):])
	}
	return code, nil
}

// serveHealth is PicoD as far as whoever waits for a sandbox looks.
func serveHealth(ctx context.Context) (stop func(), err error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(agentAddress, "8080"))
	if err != nil {
		return nil, err
	}
	server := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), ReadHeaderTimeout: time.Minute}
	go func() { _ = server.Serve(l) }()
	return func() { _ = server.Close() }, nil
}

// grant gives the operator's account what the documentation says it needs.
func grant(ctx context.Context) error {
	text, err := os.ReadFile("../../../docs/decisions/operator.md")
	if err != nil {
		return err
	}
	_, rules, found := strings.Cut(string(text), "\n```text\n")
	rules, _, ends := strings.Cut(rules, "\n```\n")
	if !found || !ends {
		return errors.New("the documentation has no rules")
	}
	if err := world.client.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: leases}}); err != nil {
		return err
	}
	for rule := range strings.SplitSeq(rules, "\n---\n") {
		if err := apply(ctx, rule, leases); err != nil {
			return err
		}
	}
	who := []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: account}}
	return errors.Join(
		world.client.Create(ctx, &rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: "operator"}, Subjects: who,
			RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "agentcube-operator"},
		}),
		world.client.Create(ctx, &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Namespace: leases, Name: "operator"}, Subjects: who,
			RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "agentcube-operator"},
		}))
}

// apply makes what one document of YAML says.
func apply(ctx context.Context, text, namespace string) error {
	data, err := yaml.YAMLToJSONStrict([]byte(text))
	if err != nil {
		return err
	}
	u := &unstructured.Unstructured{}
	if err := u.UnmarshalJSON(data); err != nil {
		return err
	}
	if u.GetKind() == "Role" {
		u.SetNamespace(namespace)
	}
	return world.client.Create(ctx, u)
}
