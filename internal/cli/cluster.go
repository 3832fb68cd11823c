package cli

import (
	"context"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/volcano-sh/agentcube/internal/audit"
	"github.com/volcano-sh/agentcube/internal/auth"
	"github.com/volcano-sh/agentcube/internal/auth/kubeauth"
	"github.com/volcano-sh/agentcube/internal/config"
	"github.com/volcano-sh/agentcube/internal/httpserve"
	"github.com/volcano-sh/agentcube/internal/metrics"
	"github.com/volcano-sh/agentcube/internal/session/redis"
)

// Requests to the API server that one process may make a second, and at once: a burst
// of sessions is three for each.
const (
	clusterQPS   = 200
	clusterBurst = 400
)

// clusterSettings are the settings that both parts in a cluster take as flags.
func clusterSettings() []string {
	return []string{
		"listen", "allowNonLoopback", "allowedHosts", "tlsCertFile", "tlsKeyFile", "tlsClientCaFile", "tlsClientNames", "logLevel", "logFormat",
		"store", "redisUrl", "redisPasswordFile", "redisCaFile", "redisCertFile", "redisKeyFile", "redisPrefix", "redisTimeout",
		"kubeconfig", "namespace", "kubeTokenAudiences", "kubeAccessReviews", "kubeCacheTime",
		"oidcIssuer", "oidcAudience", "oidcRoleClaim", "oidcRequiredRole", "oidcAdminRole", "oidcCaFile", "maxConcurrentRequests", "maxConnections", "shutdownTimeout",
		"dataDir", "audit", "auditMaxSize",
		"metricsListen", "tracing", "tracingEndpoint", "tracingSampleRatio",
	}
}

// member is one of several processes that share a store and a cluster: what the
// Workload Manager and the Router have in common there.
type member struct {
	a   *app
	cfg *config.Config
	log *slog.Logger

	rest  *rest.Config
	kube  *kubernetes.Clientset
	store *redis.Store
	web   *httpserve.Server

	plane     metrics.Plane
	telemetry *telemetry
	audit     audit.Recorder
}

func newMember(a *app, plane metrics.Plane) *member {
	return &member{a: a, cfg: a.cfg, log: a.serverLogger(), plane: plane}
}

// open finds the cluster, opens the store and listens.
func (m *member) open(ctx context.Context) (func() error, error) {
	for _, warning := range m.cfg.Warnings() {
		m.log.Warn("check the settings", "warning", warning)
	}
	var err error
	if m.rest, err = restConfig(m.cfg.Cluster.Kubeconfig); err != nil {
		return nil, err
	}
	if m.kube, err = kubernetes.NewForConfig(m.rest); err != nil {
		return nil, fmt.Errorf("use cluster: %w", err)
	}
	m.store = redis.New(redisConfig(m.cfg))
	if err := m.store.Open(ctx); err != nil {
		return nil, err
	}
	served, err := servedTLS(ctx, m.cfg, m.log)
	if err != nil {
		return m.store.Close, err
	}
	m.web = &httpserve.Server{
		TLS: served, Addr: m.cfg.Listen, Logger: m.log, DrainTimeout: m.cfg.ShutdownTimeout, MaxConnections: m.cfg.MaxConnections,
		Handler: http.NotFoundHandler(),
	}
	if err := m.web.Listen(ctx); err != nil {
		return m.store.Close, err
	}
	return m.store.Close, nil
}

// openAudit opens the record of what this process does: each has one of its own.
func (m *member) openAudit(ctx context.Context) (undo func() error, err error) {
	m.audit, undo, err = openAudit(ctx, m.cfg, m.log)
	return undo, err
}

// openTelemetry begins to tell what is done, with what others tell. All processes of an
// installation know the Router's key: they record the same traces.
func (m *member) openTelemetry(ctx context.Context, routerKey *rsa.PublicKey, others ...metrics.Gatherer) (undo func() error, err error) {
	sum := sha256.Sum256(x509.MarshalPKCS1PublicKey(routerKey))
	m.telemetry, undo, err = openTelemetry(ctx, m.cfg, m.log, m.a.Version, sum[:], others...)
	return undo, err
}

// shared is the store, measured.
func (m *member) shared() metrics.SharedStore { return m.telemetry.metrics.SharedStore(m.store) }

// restConfig says where the cluster is: in a file, or around this Pod.
func restConfig(file string) (*rest.Config, error) {
	var cfg *rest.Config
	var err error
	if file == "" {
		if cfg, err = rest.InClusterConfig(); err != nil {
			return nil, withHint(fmt.Errorf("find cluster: %w", err), "outside of a cluster, say with --kubeconfig where it is")
		}
	} else if cfg, err = clientcmd.BuildConfigFromFlags("", file); err != nil {
		return nil, fmt.Errorf("find cluster: %w", err)
	}
	cfg.QPS, cfg.Burst, cfg.UserAgent = clusterQPS, clusterBurst, "agentcube"
	return cfg, nil
}

// loop is something that runs until its context ends.
type loop struct {
	what string
	run  func(context.Context) error
}

// serve answers requests until ctx ends or a loop fails. The loops end after the last
// request.
func (m *member) serve(ctx context.Context, handler http.Handler, loops ...loop) error {
	hosts := httpserve.Hosts{Names: m.cfg.HostNames()}
	m.web.Handler = m.telemetry.middleware(httpserve.Middleware{Logger: m.log, Hosts: hosts}, only(m.plane)).Wrap(handler)
	loops = append(loops, loop{"serve metrics", m.telemetry.run})
	behind, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	front, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	var wg sync.WaitGroup
	for _, l := range loops {
		wg.Go(func() {
			if err := l.run(behind); err != nil {
				fail(fmt.Errorf("%s: %w", l.what, err))
			}
		})
	}
	m.log.Info("serving", "address", m.web.Address().String())
	err := m.web.Run(front)
	stop()
	wg.Wait()
	if cause := context.Cause(front); err == nil && ctx.Err() == nil && cause != nil {
		err = cause
	}
	return err
}

// undoing collects what has to be undone, and does it last to first.
type undoing []func() error

func (u *undoing) add(f func() error) {
	if f != nil {
		*u = append(*u, f)
	}
}

func (u undoing) all() (err error) {
	for i := len(u) - 1; i >= 0; i-- {
		err = errors.Join(err, u[i]())
	}
	return err
}

// callers say who calls, and what they may do: by tokens that AgentCube has issued, by
// those of an OpenID provider, and by those of service accounts.
func (m *member) callers(ctx context.Context, tokens *auth.Tokens) (auth.Authenticator, auth.Authorizer, error) {
	chain := auth.Chain{tokens}
	if m.cfg.OIDCIssuer != "" {
		provider, err := openIDProvider(ctx, m.cfg, m.log)
		if err != nil {
			return nil, nil, err
		}
		chain = append(chain, provider)
	}
	unlimited := rest.CopyConfig(m.rest)
	unlimited.QPS = -1 // kubeauth bounds what it asks
	client, err := kubernetes.NewForConfig(unlimited)
	if err != nil {
		return nil, nil, fmt.Errorf("use cluster: %w", err)
	}
	accounts, err := kubeauth.New(kubeauth.Config{Client: client, Audiences: m.cfg.KubeTokenAudiences, CacheFor: m.cfg.KubeCacheTime})
	if err != nil {
		return nil, nil, err
	}
	chain = append(chain, accounts)
	if !m.cfg.KubeAccessReviews {
		return chain, auth.Everybody{}, nil
	}
	return chain, accounts, nil
}
