package cli

import (
	"context"
	"crypto/rsa"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/dynamic"

	"github.com/volcano-sh/agentcube/internal/auth"
	"github.com/volcano-sh/agentcube/internal/kubetemplate"
	"github.com/volcano-sh/agentcube/internal/manager"
	"github.com/volcano-sh/agentcube/internal/metrics"
	"github.com/volcano-sh/agentcube/internal/operator"
	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/sandbox/kube"
	"github.com/volcano-sh/agentcube/internal/sandbox/kube/podspec"
	"github.com/volcano-sh/agentcube/internal/template"
)

func newWorkloadManager(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "workload-manager",
		Short: "Run the control plane on Kubernetes, one of several",
		Long: "Workload-manager makes sessions, whose sandboxes are Pods, looks after the pools of\n" +
			"templates, and ends what is over. Any number of them share the work; the chart in\n" +
			"deploy/chart runs two. SIGTERM ends it when the requests under way are done;\n" +
			"sessions live on.",
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := a.cfg.ValidateCluster("redisUrl", "agentImage", "bootstrapKeyFile", "routerCertificateFile"); err != nil {
				return err
			}
			return (&workloadManager{member: newMember(a, metrics.Manager)}).run(cmd.Context())
		},
	}
	a.cfg.BindFlags(cmd.Flags(), append(clusterSettings(),
		"watchNamespace", "agentImage", "agentImagePullPolicy", "agentImagePullSecrets", "defaultImage", "defaultIsolation", "podPendingTimeout", "networkPolicies",
		"bootstrapKeyFile", "routerCertificateFile", "maxSandboxes", "maxSessionsPerOwner", "maxCreateRatePerOwner", "maxParallelStarts",
		"sandboxCreateTimeout", "endedRetention",
	)...)
	return cmd
}

// workloadManager is the control plane in a cluster.
type workloadManager struct {
	*member
	routerKey *rsa.PublicKey
	driver    *kube.Driver
	templates *kubetemplate.Source
	manager   *manager.Manager
	operator  *operator.Operator
}

func (w *workloadManager) run(ctx context.Context) (err error) {
	var undo undoing
	defer func() { err = errors.Join(err, undo.all()) }()
	for _, step := range []func(context.Context) (func() error, error){w.open, w.openAudit, w.openTelemetry, w.openTemplates, w.openDriver, w.openManager} {
		back, err := step(ctx)
		undo.add(back)
		if err != nil {
			return err
		}
	}
	return w.serve(ctx, w.manager, loop{"watch sessions", w.manager.Run}, loop{"look after templates", w.operator.Run})
}

func (w *workloadManager) openTelemetry(ctx context.Context) (func() error, error) {
	var err error
	if w.routerKey, err = auth.ReadCertifiedKey(w.cfg.Cluster.RouterCertificateFile); err != nil {
		return nil, err
	}
	return w.member.openTelemetry(ctx, w.routerKey, operator.Metrics())
}

func (w *workloadManager) openTemplates(ctx context.Context) (func() error, error) {
	client, err := dynamic.NewForConfig(w.rest)
	if err != nil {
		return nil, fmt.Errorf("use cluster: %w", err)
	}
	w.templates = kubetemplate.New(kubetemplate.Config{
		Client: client, Namespace: w.cfg.Cluster.WatchNamespace, DefaultImage: w.cfg.DefaultImage, Logger: w.log,
	})
	if err := w.templates.Open(ctx); err != nil {
		return nil, err
	}
	return func() error { w.templates.Close(); return nil }, nil
}

// pods are what the Pods of this installation have in common.
func (w *workloadManager) pods() podspec.Settings {
	c := w.cfg.Cluster
	s := podspec.Settings{Home: c.Namespace, AgentImage: c.AgentImage, AgentPullPolicy: corev1.PullPolicy(c.AgentImagePullPolicy)}
	for _, name := range c.AgentImagePullSecrets {
		s.PullSecrets = append(s.PullSecrets, corev1.LocalObjectReference{Name: name})
	}
	return s
}

// mayCall are the Pods that reach sandboxes, as the chart labels them.
func (w *workloadManager) mayCall() podspec.Callers {
	if !w.cfg.Cluster.NetworkPolicies {
		return podspec.Callers{}
	}
	return podspec.Callers{Namespace: w.cfg.Cluster.Namespace, Labels: map[string]string{"agentcube.volcano.sh/calls-sandboxes": "true"}}
}

func (w *workloadManager) openDriver(ctx context.Context) (func() error, error) {
	var err error
	w.driver, err = kube.New(kube.Config{
		Client: w.kube, Namespace: w.cfg.Cluster.WatchNamespace, Pods: w.pods(), Callers: w.mayCall(),
		DefaultIsolation: w.cfg.Cluster.DefaultIsolation, PendingTimeout: w.cfg.Cluster.PodPendingTimeout, Logger: w.log,
	})
	if err != nil {
		return nil, err
	}
	if err := w.driver.Open(ctx); err != nil {
		return nil, err
	}
	return w.driver.Close, nil
}

func (w *workloadManager) openManager(ctx context.Context) (func() error, error) {
	bootstrap, err := auth.ReadRSAKey(w.cfg.Cluster.BootstrapKeyFile)
	if err != nil {
		return nil, err
	}
	if w.operator, err = w.newOperator(&bootstrap.PublicKey); err != nil {
		return nil, err
	}
	store := w.shared()
	tokens := auth.NewTokens(store, nil)
	callers, rights, err := w.callers(ctx, tokens)
	if err != nil {
		return nil, err
	}
	w.manager = w.telemetry.manager(manager.Config{
		Store: store, Driver: w.driver, Templates: w.templates, Authenticator: callers, Authorizer: rights, Tokens: tokens, Shared: true,
		BootstrapKey: bootstrap, RouterKey: w.routerKey, Logger: w.log, Audit: w.audit, EndToEnd: true,
		CreateTimeout: w.cfg.SandboxCreateTimeout, Retention: w.cfg.EndedRetention,
		MaxSandboxes: w.cfg.MaxSandboxes, MaxPerOwner: w.cfg.MaxSessionsPerOwner, MaxCreateRate: w.cfg.MaxCreateRatePerOwner,
		MaxParallelStarts: parallelPods(w.cfg.MaxParallelStarts), MaxParallelRemovals: parallelRemovals,
	}, kubePools{w.templates, w.driver})
	undo := func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
		defer cancel()
		return w.manager.Close(ctx)
	}
	return undo, w.manager.Open(ctx)
}

// kubePools are the pools that the operator keeps.
type kubePools struct {
	templates *kubetemplate.Source
	driver    *kube.Driver
}

// PoolSizes implements sandbox.PoolCounter.
func (p kubePools) PoolSizes() []sandbox.PoolSize {
	var sizes []sandbox.PoolSize
	ready := p.driver.Waiting()
	for _, t := range p.templates.List() {
		// A server of the template's own cannot wait.
		if t.WarmPoolSize > 0 && t.AuthMode == template.AuthPicoD {
			sizes = append(sizes, sandbox.PoolSize{
				Name: t.Namespace + "/" + t.Name, Wanted: t.WarmPoolSize, Ready: ready(t.Namespace, t.Kind, t.Name),
			})
		}
	}
	return sizes
}

// newOperator makes what keeps pools and statuses, for one of all replicas to do.
func (w *workloadManager) newOperator(bootstrap *rsa.PublicKey) (*operator.Operator, error) {
	text, err := auth.PublicKeyPEM(bootstrap)
	if err != nil {
		return nil, err
	}
	return operator.New(operator.Config{
		REST: w.rest, Namespace: w.cfg.Cluster.WatchNamespace, DefaultImage: w.cfg.DefaultImage, BootstrapPEM: text,
		Pods: w.pods(), Callers: w.mayCall(), DefaultIsolation: w.cfg.Cluster.DefaultIsolation,
		LeaderElection: true, LeaseNamespace: w.cfg.Cluster.Namespace, Logger: w.log,
	}), nil
}

// parallelRemovals is how many Pods one process waits for the end of at once: a second
// or more each, in which it has nothing to do.
const parallelRemovals = 500

// parallelPods is how many Pods may be in the making at once: their starts load other
// machines, and the cluster's scheduler has its own order.
func parallelPods(set int) int {
	if set > 0 {
		return set
	}
	return 100
}
