package scale

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"

	"github.com/volcano-sh/agentcube/internal/sandbox/kube/podspec"
)

const (
	leases = "kube-node-lease"
	// heartbeat is how often a kubelet renews its lease.
	heartbeat = 10 * time.Second
	// hands is how many requests of all nodes are under way at once.
	hands = 32
	// beats is in how many parts the nodes renew their leases.
	beats = 10
)

// nodes are simulated ones.
type nodes struct {
	client kubernetes.Interface
	count  int
	queue  workqueue.TypedInterface[string]
	pods   cache.SharedIndexInformer
	failed func(error)
	ends   time.Duration // how long a Pod takes to end
	ending sync.Map      // UIDs of Pods that are about to end
	work   sync.WaitGroup
}

func nodeName(i int) string { return fmt.Sprintf("node-%05d", i) }

// nodeAddress is that of a node and of all its Pods.
func nodeAddress(i int) string { return fmt.Sprintf("127.64.%d.%d", i/250, 1+i%250) }

// startNodes makes nodes that are ready. They live until ctx ends; what fails is told.
func startNodes(ctx context.Context, client kubernetes.Interface, count int, ends time.Duration, failed func(error)) (*nodes, error) {
	n := &nodes{client: client, count: count, ends: ends, queue: workqueue.NewTyped[string](), failed: failed}
	if err := n.each(ctx, n.register); err != nil {
		return nil, err
	}
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTweakListOptions(func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermNotEqualSelector("spec.nodeName", "").String()
	}), informers.WithTransform(slim))
	n.pods = factory.Core().V1().Pods().Informer()
	add := func(o any) {
		if key, err := cache.MetaNamespaceKeyFunc(o); err == nil {
			n.queue.Add(key)
		}
	}
	if _, err := n.pods.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: add, UpdateFunc: func(_, o any) { add(o) },
		DeleteFunc: func(o any) {
			if p, ok := o.(*corev1.Pod); ok {
				n.ending.Delete(p.UID)
			}
		},
	}); err != nil {
		return nil, fmt.Errorf("watch Pods: %w", err)
	}
	factory.StartWithContext(ctx)
	for range hands {
		n.work.Go(func() { n.serve(ctx) })
	}
	for i := range beats {
		n.work.Go(func() { n.beat(ctx, i) })
	}
	context.AfterFunc(ctx, n.queue.ShutDown)
	return n, nil
}

// slim drops what a simulated kubelet does not look at.
func slim(o any) (any, error) {
	if p, ok := o.(*corev1.Pod); ok {
		p.ManagedFields, p.Annotations = nil, nil
		p.Spec = corev1.PodSpec{NodeName: p.Spec.NodeName, Containers: []corev1.Container{{Name: p.Spec.Containers[0].Name}}}
	}
	return o, nil
}

// each calls do for all nodes, many at once.
func (n *nodes) each(ctx context.Context, do func(context.Context, int) error) error {
	next := make(chan int)
	errs := make(chan error, hands)
	for range hands {
		go func() {
			var err error
			for i := range next {
				if err == nil {
					err = do(ctx, i)
				}
			}
			errs <- err
		}()
	}
	for i := range n.count {
		next <- i
	}
	close(next)
	var err error
	for range hands {
		if e := <-errs; e != nil {
			err = e
		}
	}
	return err
}

// register makes a node of 32 cores and 128 GiB that may have 110 Pods, as many as
// kubelet allows by default.
func (n *nodes) register(ctx context.Context, i int) error {
	room := corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("32"), corev1.ResourceMemory: resource.MustParse("128Gi"),
		corev1.ResourceEphemeralStorage: resource.MustParse("1Ti"), corev1.ResourcePods: resource.MustParse("110"),
	}
	if _, err := n.client.CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: nodeName(i)}}, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("make node: %w", err)
	}
	now := metav1.Now()
	// Others change nodes at the same time: this is no update of what was made.
	patch, err := json.Marshal(map[string]any{"status": corev1.NodeStatus{
		Capacity: room, Allocatable: room,
		Addresses:  []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: nodeAddress(i)}},
		Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "Simulated", LastHeartbeatTime: now, LastTransitionTime: now}},
	}})
	if err != nil {
		return fmt.Errorf("encode status: %w", err)
	}
	if _, err := n.client.CoreV1().Nodes().Patch(ctx, nodeName(i), types.MergePatchType, patch, metav1.PatchOptions{}, "status"); err != nil {
		return fmt.Errorf("make node ready: %w", err)
	}
	_, err = n.client.CoordinationV1().Leases(leases).Create(ctx, &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Name: nodeName(i)},
		Spec: coordinationv1.LeaseSpec{
			HolderIdentity: new(nodeName(i)), LeaseDurationSeconds: new(int32(40)), RenewTime: &metav1.MicroTime{Time: time.Now()},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("make lease: %w", err)
	}
	return nil
}

// beat renews the leases of one part of the nodes, evenly spread.
func (n *nodes) beat(ctx context.Context, part int) {
	tick := time.NewTicker(heartbeat * beats / time.Duration(n.count))
	defer tick.Stop()
	for i := part; ; i += beats {
		if i >= n.count {
			i = part
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		patch := fmt.Appendf(nil, `{"spec":{"renewTime":%q}}`, time.Now().UTC().Format(metav1.RFC3339Micro))
		if _, err := n.client.CoordinationV1().Leases(leases).Patch(ctx, nodeName(i), types.MergePatchType, patch, metav1.PatchOptions{}); err != nil && ctx.Err() == nil {
			n.failed(fmt.Errorf("renew lease: %w", err))
		}
	}
}

func (n *nodes) serve(ctx context.Context) {
	for {
		key, over := n.queue.Get()
		if over {
			return
		}
		o, there, err := n.pods.GetStore().GetByKey(key)
		if err == nil && there {
			err = n.look(ctx, o.(*corev1.Pod))
		}
		if err != nil && ctx.Err() == nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			n.failed(err)
			time.AfterFunc(time.Second, func() { n.queue.Add(key) })
		}
		n.queue.Done(key)
	}
}

// look does with a Pod what its kubelet would: it runs, or is gone.
func (n *nodes) look(ctx context.Context, p *corev1.Pod) error {
	switch {
	case p.DeletionTimestamp != nil:
		if _, already := n.ending.LoadOrStore(p.UID, true); already {
			return nil
		}
		time.AfterFunc(n.ends, func() { n.finish(ctx, p) })
		return nil
	case podspec.Ready(p):
		return nil
	}
	var i int
	if _, err := fmt.Sscanf(p.Spec.NodeName, "node-%d", &i); err != nil {
		return fmt.Errorf("node of Pod %s: %w", p.Name, err)
	}
	now, address := metav1.Now(), nodeAddress(i)
	running := p.DeepCopy()
	running.Status.Conditions = slices.DeleteFunc(running.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type != corev1.PodScheduled })
	running.Status.Phase, running.Status.StartTime = corev1.PodRunning, &now
	running.Status.HostIP, running.Status.PodIP, running.Status.PodIPs = address, address, []corev1.PodIP{{IP: address}}
	for _, kind := range []corev1.PodConditionType{corev1.PodReadyToStartContainers, corev1.PodInitialized, corev1.ContainersReady, corev1.PodReady} {
		running.Status.Conditions = append(running.Status.Conditions, corev1.PodCondition{Type: kind, Status: corev1.ConditionTrue, LastTransitionTime: now})
	}
	running.Status.ContainerStatuses = []corev1.ContainerStatus{{
		Name: p.Spec.Containers[0].Name, Ready: true, Started: new(true), State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}},
	}}
	_, err := n.client.CoreV1().Pods(p.Namespace).UpdateStatus(ctx, running, metav1.UpdateOptions{})
	return err
}

// finish has a Pod be gone.
func (n *nodes) finish(ctx context.Context, p *corev1.Pod) {
	err := n.client.CoreV1().Pods(p.Namespace).Delete(ctx, p.Name, metav1.DeleteOptions{
		GracePeriodSeconds: new(int64(0)), Preconditions: &metav1.Preconditions{UID: &p.UID},
	})
	if err != nil && ctx.Err() == nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		n.failed(fmt.Errorf("end Pod: %w", err))
		time.AfterFunc(time.Second, func() { n.finish(ctx, p) })
	}
}
