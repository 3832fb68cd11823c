package operator

import (
	"context"
	"fmt"
	"time"

	"github.com/go-logr/logr"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	nodev1 "k8s.io/api/node/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/api/v1alpha1"
	"github.com/volcano-sh/agentcube/internal/sandbox/kube/podspec"
)

// Indexes of what is watched.
const (
	byTemplate = "template" // of Pods and CodeInterpreters: the value of podspec.LabelTemplate
	byOwner    = "owner"    // of ReplicaSets: the UID of their controller
)

// Bounds of the work.
const (
	workers = 4
	// gathering is how long news of Pods and such wait for more of the same: it bounds
	// how often a status is written while sandboxes come and go.
	gathering = 200 * time.Millisecond
	// workTimeout bounds one look at one resource.
	workTimeout = time.Minute
	// syncTimeout bounds how long it may take to learn of all there is.
	syncTimeout = time.Minute
	// stopTimeout bounds the end of what has begun.
	stopTimeout = 10 * time.Second
)

// options are those of the manager: what is watched, and no more of it than is needed.
func (o *Operator) options(logger logr.Logger) (manager.Options, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, appsv1.AddToScheme, networkingv1.AddToScheme, nodev1.AddToScheme} {
		if err := add(scheme); err != nil {
			return manager.Options{}, fmt.Errorf("make scheme: %w", err)
		}
	}
	lock, err := o.lock()
	if err != nil {
		return manager.Options{}, err
	}
	ours := labels.SelectorFromSet(podspec.Selector(o.cfg.Pods.Home))
	watched := cache.Options{
		DefaultTransform: cache.TransformStripManagedFields(),
		ByObject: map[client.Object]cache.ByObject{
			&corev1.Pod{}:        {Label: ours, Transform: slim},
			&appsv1.ReplicaSet{}: {Label: ours},
			&networkingv1.NetworkPolicy{}: {
				Label: labels.SelectorFromSet(labels.Set{podspec.LabelManagedBy: podspec.ManagedBy}),
			},
		},
	}
	if o.cfg.Namespace != "" {
		watched.DefaultNamespaces = map[string]cache.Config{o.cfg.Namespace: {}}
	}
	stop, anyName, renew := stopTimeout, true, renewDeadline
	return manager.Options{
		Scheme: scheme, Logger: logger, Cache: watched,
		Client:                  client.Options{Cache: &client.CacheOptions{Unstructured: true}},
		Metrics:                 metricsserver.Options{BindAddress: "0"},
		LeaderElection:          o.cfg.LeaderElection,
		RenewDeadline:           &renew,
		GracefulShutdownTimeout: &stop,
		BaseContext:             func() context.Context { return logr.NewContext(context.Background(), logger) },
		Controller: config.Controller{
			SkipNameValidation: &anyName, // several operators in a process are no mistake
			CacheSyncTimeout:   syncTimeout, ReconciliationTimeout: workTimeout, MaxConcurrentReconciles: workers,
		},
		LeaderElectionResourceLockInterface: lock,
		// When it stops, nothing of it works any more.
		LeaderElectionReleaseOnCancel: true,
	}, nil
}

// slim drops what nobody here looks at, so that many Pods take little memory.
func slim(o any) (any, error) {
	if p, ok := o.(*corev1.Pod); ok {
		p.ManagedFields, p.Annotations, p.Spec = nil, nil, corev1.PodSpec{}
	}
	return o, nil
}

// resource is an empty resource of a kind. They are watched as they are: what is not
// a possible one is to be told in its status, and must not keep all others from being
// seen.
func resource(kind string) *unstructured.Unstructured {
	u := &unstructured.Unstructured{}
	u.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind(kind))
	return u
}

func resources(kind string) *unstructured.UnstructuredList {
	l := &unstructured.UnstructuredList{}
	l.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind(kind + "List"))
	return l
}

// setUp adds the reconcilers to a manager, and says what wakes them.
func (o *Operator) setUp(m manager.Manager, b *podspec.Builder) error {
	if err := addIndexes(m.GetFieldIndexer()); err != nil {
		return err
	}
	c := m.GetClient()
	interpreters := &reconciler{kind: api.KindCodeInterpreter, cfg: o.cfg, log: o.log, client: c, live: m.GetAPIReader(), builder: b}
	agents := &reconciler{kind: api.KindAgentRuntime, cfg: o.cfg, log: o.log, client: c, live: m.GetAPIReader(), builder: b}
	policies := &policyReconciler{home: o.cfg.Pods.Home, callers: o.cfg.Callers, log: o.log, client: c, live: m.GetAPIReader()}
	err := builder.ControllerManagedBy(m).Named("codeinterpreter").For(resource(interpreters.kind)).
		Watches(&appsv1.ReplicaSet{}, later(toOwner)).
		Watches(&corev1.Pod{}, later(toInterpreter(c))).
		Watches(&nodev1.RuntimeClass{}, later(toAll(c, interpreters.kind))).
		Complete(interpreters)
	if err != nil {
		return fmt.Errorf("add CodeInterpreters: %w", err)
	}
	err = builder.ControllerManagedBy(m).Named("agentruntime").For(resource(agents.kind)).
		Watches(&nodev1.RuntimeClass{}, later(toAll(c, agents.kind))).
		Complete(agents)
	if err != nil {
		return fmt.Errorf("add AgentRuntimes: %w", err)
	}
	if o.cfg.Callers.Namespace == "" {
		return nil
	}
	err = builder.ControllerManagedBy(m).Named("networkpolicy").
		Watches(resource(interpreters.kind), later(toNamespace)).
		Watches(resource(agents.kind), later(toNamespace)).
		Watches(&networkingv1.NetworkPolicy{}, later(toNamespace)).
		Complete(policies)
	if err != nil {
		return fmt.Errorf("add network policies: %w", err)
	}
	return nil
}

func addIndexes(indexer client.FieldIndexer) error {
	for _, index := range []struct {
		of    client.Object
		field string
		value client.IndexerFunc
	}{
		{resource(api.KindCodeInterpreter), byTemplate, func(o client.Object) []string { return []string{templateLabel(o.GetName())} }},
		{&corev1.Pod{}, byTemplate, func(o client.Object) []string {
			if !ofInterpreter(o) {
				return nil
			}
			return []string{o.GetLabels()[podspec.LabelTemplate]}
		}},
		{&appsv1.ReplicaSet{}, byOwner, func(o client.Object) []string {
			if owner := metav1.GetControllerOf(o); owner != nil {
				return []string{string(owner.UID)}
			}
			return nil
		}},
	} {
		if err := indexer.IndexField(context.Background(), index.of, index.field, index.value); err != nil {
			return fmt.Errorf("index %T: %w", index.of, err)
		}
	}
	return nil
}

func templateLabel(name string) string {
	return podspec.MadeFrom(api.KindCodeInterpreter, name)[podspec.LabelTemplate]
}

// ofInterpreter: the Pod counts in the status of a CodeInterpreter.
func ofInterpreter(pod client.Object) bool {
	l := pod.GetLabels()
	return l[podspec.LabelKind] == api.KindCodeInterpreter && (l[podspec.LabelPool] != "" || l[podspec.LabelFromPool] != "")
}

// later has a resource looked at a moment after something that concerns it has
// changed, once for all that changes until then.
func later(concerned handler.MapFunc) handler.EventHandler {
	type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]
	add := func(ctx context.Context, q queue, o client.Object) {
		for _, r := range concerned(ctx, o) {
			q.AddAfter(r, gathering)
		}
	}
	return handler.Funcs{
		CreateFunc: func(ctx context.Context, e event.CreateEvent, q queue) { add(ctx, q, e.Object) },
		UpdateFunc: func(ctx context.Context, e event.UpdateEvent, q queue) {
			add(ctx, q, e.ObjectOld)
			add(ctx, q, e.ObjectNew)
		},
		DeleteFunc: func(ctx context.Context, e event.DeleteEvent, q queue) { add(ctx, q, e.Object) },
	}
}

func request(namespace, name string) reconcile.Request {
	return reconcile.Request{NamespacedName: client.ObjectKey{Namespace: namespace, Name: name}}
}

func toOwner(_ context.Context, o client.Object) []reconcile.Request {
	owner := metav1.GetControllerOf(o)
	if owner == nil || owner.Kind != api.KindCodeInterpreter {
		return nil
	}
	return []reconcile.Request{request(o.GetNamespace(), owner.Name)}
}

func toNamespace(_ context.Context, o client.Object) []reconcile.Request {
	return []reconcile.Request{request("", o.GetNamespace())}
}

// toInterpreter finds the CodeInterpreter whose status a Pod counts in.
func toInterpreter(c client.Reader) handler.MapFunc {
	return func(ctx context.Context, o client.Object) []reconcile.Request {
		if !ofInterpreter(o) {
			return nil
		}
		of := client.MatchingFields{byTemplate: o.GetLabels()[podspec.LabelTemplate]}
		return find(ctx, c, api.KindCodeInterpreter, client.InNamespace(o.GetNamespace()), of)
	}
}

// toAll finds all resources of a kind.
func toAll(c client.Reader, kind string) handler.MapFunc {
	return func(ctx context.Context, _ client.Object) []reconcile.Request { return find(ctx, c, kind) }
}

func find(ctx context.Context, c client.Reader, kind string, options ...client.ListOption) []reconcile.Request {
	list := resources(kind)
	if err := c.List(ctx, list, append(options, client.UnsafeDisableDeepCopy)...); err != nil {
		return nil // what is not known yet is looked at when it is
	}
	var out []reconcile.Request
	for _, u := range list.Items {
		out = append(out, request(u.GetNamespace(), u.GetName()))
	}
	return out
}
