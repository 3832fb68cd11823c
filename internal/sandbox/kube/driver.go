package kube

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	networkinginformers "k8s.io/client-go/informers/networking/v1"
	"k8s.io/client-go/kubernetes"
	networkinglisters "k8s.io/client-go/listers/networking/v1"
	nodelisters "k8s.io/client-go/listers/node/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/sandbox/kube/podspec"
)

// Config of a Driver. Client and Pods.AgentImage are required.
type Config struct {
	Client kubernetes.Interface
	// Namespace is the only one that is looked at; "" means all.
	Namespace string
	// Pods say what Pods look like. Where they name no Home, it is the namespace of Callers.
	Pods podspec.Settings
	// Callers are let through to the sandboxes. Without a namespace no network policies
	// are made, and it is for others to close sandboxes; with one, labels are required.
	Callers podspec.Callers
	// DefaultIsolation is that of Pods without a runtime class; "" means "runc".
	DefaultIsolation string
	// PendingTimeout is how long a Pod may wait for a node with room; 0 means 1 min.
	PendingTimeout time.Duration
	// Logger; nil means slog.Default().
	Logger *slog.Logger
}

// Driver is a sandbox.Driver whose sandboxes are Pods.
type Driver struct {
	cfg     Config
	log     *slog.Logger
	builder *podspec.Builder
	exits   chan sandbox.Exit

	life    context.Context // ends with Close
	end     context.CancelFunc
	work    sync.WaitGroup
	factory []informers.SharedInformerFactory
	pods    cache.SharedIndexInformer
	classes nodelisters.RuntimeClassLister
	// policies are those that there are; nil when others make them.
	policies networkinglisters.NetworkPolicyLister

	mu    sync.Mutex
	open  bool
	busy  map[string]chan struct{}   // ids that are being made; closed when that is over
	news  map[string][]chan struct{} // who waits for news of a Pod, by namespace/name
	taken map[types.UID]bool         // Pods of pools that this driver has just taken, or tries to
	gone  map[types.UID]bool         // Pods that this driver has deleted, until nobody sees them
	told  map[types.UID]bool         // Pods whose exit was delivered
}

var _ sandbox.Driver = (*Driver)(nil)

// New makes a Driver. It does no I/O.
func New(cfg Config) (*Driver, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.DefaultIsolation == "" {
		cfg.DefaultIsolation = "runc"
	}
	if cfg.PendingTimeout == 0 {
		cfg.PendingTimeout = time.Minute
	}
	if cfg.Callers.Namespace != "" && len(cfg.Callers.Labels) == 0 {
		return nil, errors.New("make kube driver: callers without labels would be every Pod of their namespace")
	}
	cfg.Pods.Home = cmp.Or(cfg.Pods.Home, cfg.Callers.Namespace)
	builder, err := podspec.NewBuilder(cfg.Pods)
	if err != nil {
		return nil, err
	}
	life, end := context.WithCancel(context.Background())
	return &Driver{
		cfg: cfg, log: cfg.Logger, builder: builder, exits: make(chan sandbox.Exit), life: life, end: end,
		busy: map[string]chan struct{}{}, news: map[string][]chan struct{}{}, taken: map[types.UID]bool{},
		gone: map[types.UID]bool{}, told: map[types.UID]bool{},
	}, nil
}

// Indexes of the Pods.
const (
	bySandbox = "sandbox"
	byPool    = "pool" // namespace/pool
)

// Open begins to watch, and returns when all Pods are known.
func (d *Driver) Open(ctx context.Context) error {
	selector := labels.SelectorFromSet(podspec.Selector(d.cfg.Pods.Home)).String()
	factory := informers.NewSharedInformerFactoryWithOptions(d.cfg.Client, 0, informers.WithNamespace(d.cfg.Namespace),
		informers.WithTweakListOptions(func(o *metav1.ListOptions) { o.LabelSelector = selector }), informers.WithTransform(slim))
	d.pods = factory.Core().V1().Pods().Informer()
	err := d.pods.AddIndexers(cache.Indexers{
		bySandbox: index(func(p *corev1.Pod) string { return p.Labels[podspec.LabelSandbox] }),
		byPool: index(func(p *corev1.Pod) string {
			if pool := p.Labels[podspec.LabelPool]; pool != "" {
				return p.Namespace + "/" + pool
			}
			return ""
		}),
	})
	if err != nil {
		return fmt.Errorf("open kube driver: %w", err)
	}
	if _, err := d.pods.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { d.changed(o.(*corev1.Pod)) },
		UpdateFunc: func(_, o any) { d.changed(o.(*corev1.Pod)) },
		DeleteFunc: d.removed,
	}); err != nil {
		return fmt.Errorf("open kube driver: %w", err)
	}
	all := informers.NewSharedInformerFactory(d.cfg.Client, 0)
	classes := all.Node().V1().RuntimeClasses()
	d.classes = classes.Lister()
	d.factory = []informers.SharedInformerFactory{factory, all}
	known := []cache.InformerSynced{d.pods.HasSynced, classes.Informer().HasSynced}
	if d.cfg.Callers.Namespace != "" {
		policies := d.watchPolicies()
		d.policies = policies.Lister()
		known = append(known, policies.Informer().HasSynced)
	}
	d.mu.Lock()
	d.open = true
	d.mu.Unlock()
	for _, f := range d.factory {
		f.StartWithContext(d.life)
	}
	if !cache.WaitForCacheSync(ctx.Done(), known...) {
		return errors.Join(fmt.Errorf("open kube driver: wait for Pods: %w", ctx.Err()), d.Close())
	}
	return nil
}

// watchPolicies watches the network policies of AgentCube.
func (d *Driver) watchPolicies() networkinginformers.NetworkPolicyInformer {
	f := informers.NewSharedInformerFactoryWithOptions(d.cfg.Client, 0, informers.WithNamespace(d.cfg.Namespace),
		informers.WithTweakListOptions(func(o *metav1.ListOptions) { o.LabelSelector = podspec.LabelManagedBy + "=" + podspec.ManagedBy }))
	d.factory = append(d.factory, f)
	return f.Networking().V1().NetworkPolicies()
}

// slim drops what nobody here looks at, so that many Pods take little memory.
func slim(o any) (any, error) {
	if p, ok := o.(*corev1.Pod); ok {
		p.ManagedFields = nil
		p.Spec = corev1.PodSpec{RuntimeClassName: p.Spec.RuntimeClassName, NodeName: p.Spec.NodeName}
	}
	return o, nil
}

func index(key func(*corev1.Pod) string) cache.IndexFunc {
	return func(o any) ([]string, error) {
		p, ok := o.(*corev1.Pod)
		if !ok {
			return nil, nil
		}
		if k := key(p); k != "" {
			return []string{k}, nil
		}
		return nil, nil
	}
}

// Close stops watching. Sandboxes go on.
func (d *Driver) Close() error {
	d.mu.Lock()
	was := d.open
	d.open = false
	d.mu.Unlock()
	if !was {
		return nil
	}
	d.end()
	for _, f := range d.factory {
		f.Shutdown()
	}
	d.work.Wait()
	close(d.exits)
	return nil
}

// Get implements sandbox.Driver. That there is no such sandbox only the API server can
// say: what is watched may be behind, and another manager may have made it.
func (d *Driver) Get(ctx context.Context, id string) (sandbox.Sandbox, error) {
	if err := d.usable(ctx); err != nil {
		return sandbox.Sandbox{}, err
	}
	if p := d.find(id); p != nil {
		return d.describe(p), nil
	}
	if validID(id) {
		pods, err := d.podsOf(ctx, id)
		if err != nil {
			return sandbox.Sandbox{}, fmt.Errorf("get sandbox %s: %w", id, err)
		}
		for i := range pods {
			if d.there(&pods[i]) {
				return d.describe(&pods[i]), nil
			}
		}
	}
	return sandbox.Sandbox{}, fmt.Errorf("get sandbox %s: %w", id, sandbox.ErrNotFound)
}

// List implements sandbox.Driver.
func (d *Driver) List(ctx context.Context) ([]sandbox.Sandbox, error) {
	if err := d.usable(ctx); err != nil {
		return nil, err
	}
	var out []sandbox.Sandbox
	for _, o := range d.pods.GetStore().List() {
		if p := o.(*corev1.Pod); p.Labels[podspec.LabelSandbox] != "" && d.there(p) {
			out = append(out, d.describe(p))
		}
	}
	return out, nil
}

// Dial implements sandbox.Driver: the ports of a Pod are reached at its address.
func (d *Driver) Dial(ctx context.Context, id string, port uint16) (net.Conn, error) {
	if err := d.usable(ctx); err != nil {
		return nil, err
	}
	p := d.find(id)
	switch {
	case p == nil:
		return nil, fmt.Errorf("dial sandbox %s: %w", id, sandbox.ErrNotFound)
	case exitOf(p) != nil || p.Status.PodIP == "":
		return nil, fmt.Errorf("dial sandbox %s: %w", id, sandbox.ErrNotRunning)
	}
	conn, err := dial(ctx, p.Status.PodIP, port)
	if err != nil {
		return nil, fmt.Errorf("dial sandbox %s port %d: %w", id, port, err)
	}
	return conn, nil
}

// Exits implements sandbox.Driver. Every driver delivers the exits of all sandboxes,
// whoever made them: one that is there to reach sandboxes alone has to read them, too.
func (d *Driver) Exits() <-chan sandbox.Exit { return d.exits }

// Capabilities implements sandbox.Driver. What isolates a sandbox is its runtime
// class's: this is what one without has.
func (d *Driver) Capabilities() sandbox.Capabilities {
	return sandbox.Capabilities{
		Driver: "kube", Isolation: d.cfg.DefaultIsolation, Platform: "kubernetes",
		Limits: []sandbox.Limit{
			{Name: "cpu", Enforced: true, How: "limit of the Pod's container"},
			{Name: "memory", Enforced: true, How: "limit of the Pod's container"},
			{Name: "disk", Enforced: true, How: "limit on ephemeral storage: kubelet evicts the Pod some time after it is over it"},
			{Name: "processes", How: "kubelet's podPidsLimit, where that is set"},
		},
	}
}

func (d *Driver) usable(ctx context.Context) error {
	d.mu.Lock()
	open := d.open
	d.mu.Unlock()
	if !open {
		return sandbox.ErrClosed
	}
	return ctx.Err()
}

// find is the Pod of a sandbox that is not being deleted, or nil.
func (d *Driver) find(id string) *corev1.Pod {
	if id == "" {
		return nil
	}
	found, err := d.pods.GetIndexer().ByIndex(bySandbox, id)
	if err != nil {
		return nil // there is such an index
	}
	for _, o := range found {
		if p := o.(*corev1.Pod); d.there(p) {
			return p
		}
	}
	return nil
}

// there: nobody has begun to delete the Pod.
func (d *Driver) there(p *corev1.Pod) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return p.DeletionTimestamp == nil && !d.gone[p.UID]
}
