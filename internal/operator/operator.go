package operator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/volcano-sh/agentcube/internal/sandbox/kube/podspec"
)

// LeaseName is the name of the lease that the operator which works holds.
const LeaseName = "agentcube-operator"

// Config of an Operator. REST and Pods.AgentImage are required.
type Config struct {
	REST *rest.Config
	// Namespace is the only one that is looked at; "" means all.
	Namespace string

	// DefaultImage, BootstrapPEM, Pods, Callers and DefaultIsolation are those of
	// whoever makes sandboxes: Pods that are not made exactly as that would are not
	// taken by it. BootstrapPEM is the public key, in PEM, of who may hand a PicoD its
	// session's. Where Pods name no Home, it is the namespace of Callers; without one no
	// network policies are made. "" for DefaultIsolation means "runc".
	DefaultImage     string
	BootstrapPEM     string
	Pods             podspec.Settings
	Callers          podspec.Callers
	DefaultIsolation string

	// Patience is how long a pool is kept that cannot be used any more: until the one
	// that takes its place is filled, or somebody has mended a template. 0 means 2 min.
	Patience time.Duration

	// LeaderElection has one of several operators work, the one which holds the lease
	// LeaseName in LeaseNamespace. Identity tells them apart; "" means a random one.
	LeaderElection bool
	LeaseNamespace string
	Identity       string
	// Logger; nil means slog.Default().
	Logger *slog.Logger
}

// Operator looks after the resources of a cluster.
type Operator struct {
	cfg Config
	log *slog.Logger

	mu      sync.Mutex
	failure error // why it does not run
}

// errNotRunning is what is wrong with an operator before Run and after.
var errNotRunning = errors.New("the operator does not run")

// New makes an Operator. It does no I/O.
func New(cfg Config) *Operator {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	cfg.DefaultIsolation = cmp.Or(cfg.DefaultIsolation, "runc")
	cfg.Patience = cmp.Or(cfg.Patience, 2*time.Minute)
	cfg.Pods.Home = cmp.Or(cfg.Pods.Home, cfg.Callers.Namespace)
	return &Operator{cfg: cfg, log: cfg.Logger, failure: errNotRunning}
}

// Metrics are those of the operator's queues, of its work and of its calls of the API
// server, for all operators of this process.
func Metrics() prometheus.Gatherer { return metrics.Registry }

// Healthy is nil while the operator works, or stands by for the one that does, and
// says otherwise why it does neither.
func (o *Operator) Healthy() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.failure
}

func (o *Operator) setFailure(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.failure = err
}

// Between two attempts to run.
const firstPause, longestPause = time.Second, 30 * time.Second

// longAttempt is one that has worked for a while: what ended it is new.
const longAttempt = 5 * time.Minute

// Run works until ctx ends, and then returns nil. A cluster that is away, resources
// that are not defined yet and a lease that is lost do not end it: it tries again. An
// error says that the Config is not possible.
func (o *Operator) Run(ctx context.Context) error {
	defer o.setFailure(errNotRunning)
	switch {
	case o.cfg.REST == nil:
		return errors.New("run operator: Config.REST is missing")
	case o.cfg.LeaderElection && o.cfg.LeaseNamespace == "":
		return errors.New("run operator: Config.LeaseNamespace is missing")
	case o.cfg.Callers.Namespace != "" && len(o.cfg.Callers.Labels) == 0:
		return errors.New("run operator: Config.Callers has no labels: every Pod of its namespace could call sandboxes")
	}
	builder, err := podspec.NewBuilder(o.cfg.Pods)
	if err != nil {
		return fmt.Errorf("run operator: %w", err)
	}
	logger := logr.FromSlogHandler(o.log.Handler())
	ctrllog.SetLogger(logger) // what has no other; without one, it complains on stderr
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		began := time.Now()
		err := o.attempt(ctx, builder, logger)
		if ctx.Err() != nil {
			return nil
		}
		if time.Since(began) > longAttempt {
			pause = firstPause
		}
		o.setFailure(err)
		o.log.Error("operator has stopped and starts again", "pause", pause, "error", err)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil
		}
	}
}

// attempt works until ctx ends or something goes wrong.
func (o *Operator) attempt(ctx context.Context, builder *podspec.Builder, logger logr.Logger) error {
	options, err := o.options(logger)
	if err != nil {
		return err
	}
	m, err := manager.New(o.cfg.REST, options)
	if err != nil {
		return fmt.Errorf("make manager: %w", err)
	}
	if err := o.setUp(m, builder); err != nil {
		return err
	}
	o.setFailure(nil)
	if err := m.Start(ctx); err != nil {
		return err
	}
	return errNotRunning
}

// renewDeadline is how long the one that works tries to renew its lease before it
// stops: less than others wait for it, which is 15 s.
const renewDeadline = 10 * time.Second

// lock is the lease; nil without leader election.
func (o *Operator) lock() (resourcelock.Interface, error) {
	if !o.cfg.LeaderElection {
		return nil, nil
	}
	identity := o.cfg.Identity
	if identity == "" {
		host, err := os.Hostname()
		if err != nil {
			return nil, fmt.Errorf("name operator: %w", err)
		}
		identity = host + "_" + uuid.NewString()
	}
	lock, err := resourcelock.NewFromKubeconfig(resourcelock.LeasesResourceLock, o.cfg.LeaseNamespace, LeaseName,
		resourcelock.ResourceLockConfig{Identity: identity}, o.cfg.REST, renewDeadline)
	if err != nil {
		return nil, fmt.Errorf("make lease: %w", err)
	}
	return lock, nil
}
