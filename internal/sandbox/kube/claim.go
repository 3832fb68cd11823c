package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/sandbox/kube/podspec"
)

// claim takes a Pod from the pool of its template; nil when none is ready.
func (d *Driver) claim(ctx context.Context, namespace string, t corev1.PodTemplateSpec, spec sandbox.Spec) (*corev1.Pod, error) {
	pool, err := podspec.Pool(t)
	if err != nil {
		return nil, err
	}
	found, err := d.pods.GetIndexer().ByIndex(byPool, namespace+"/"+pool)
	if err != nil {
		return nil, fmt.Errorf("look for Pods of a pool: %w", err)
	}
	// Several managers that begin with the same one would all but one be late.
	rand.Shuffle(len(found), func(i, j int) { found[i], found[j] = found[j], found[i] })
	for _, o := range found {
		p := o.(*corev1.Pod)
		if !podspec.Ready(p) || !d.there(p) || !d.reserve(p.UID) {
			continue
		}
		taken, err := d.relabel(ctx, p, pool, spec)
		switch {
		case err == nil:
			return taken, nil
		case !refused(err):
			// It may have become the sandbox all the same.
			undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
			defer cancel()
			return nil, errors.Join(fmt.Errorf("take Pod from pool: %w", contextError(ctx, err)), d.deletePod(undo, p))
		case apierrors.IsInvalid(err), apierrors.IsNotFound(err), apierrors.IsConflict(err):
			d.log.Debug("somebody else took a Pod of a pool", "pod", namespace+"/"+p.Name)
		default:
			d.release(p.UID)
			return nil, fmt.Errorf("take Pod from pool: %w", err)
		}
	}
	return nil, nil
}

// Waiting counts the Pods that are ready in pools; of says how many there are for a
// template. It does no I/O.
func (d *Driver) Waiting() (of func(namespace, kind, name string) int) {
	type maker struct{ namespace, kind, name string }
	ready := map[maker]int{}
	for _, o := range d.pods.GetStore().List() {
		if p := o.(*corev1.Pod); p.Labels[podspec.LabelPool] != "" && podspec.Ready(p) && d.there(p) {
			ready[maker{p.Namespace, p.Labels[podspec.LabelKind], p.Labels[podspec.LabelTemplate]}]++
		}
	}
	return func(namespace, kind, name string) int {
		by := podspec.MadeFrom(kind, name)
		return ready[maker{namespace, by[podspec.LabelKind], by[podspec.LabelTemplate]}]
	}
}

// reserve keeps one Pod from being tried twice by this driver: until its watch says
// otherwise a Pod that was taken looks as if it still waited.
func (d *Driver) reserve(uid types.UID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.taken[uid] {
		return false
	}
	d.taken[uid] = true
	return true
}

func (d *Driver) release(uid types.UID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.taken, uid)
}

// operation is one of a JSON patch (RFC 6902).
type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value,omitempty"`
}

// relabel makes a Pod of a pool a sandbox, unless somebody else has: the patch fails
// as a whole when the pool's label is not there any more. That the ReplicaSet is no
// owner any more is written at once, or the Pod might go with it before it is let go.
func (d *Driver) relabel(ctx context.Context, p *corev1.Pod, pool string, spec sandbox.Spec) (*corev1.Pod, error) {
	labels, annotations, err := podspec.Own(spec.ID, p.Name, spec.Labels)
	if err != nil {
		return nil, err
	}
	labels[podspec.LabelFromPool] = pool
	annotations[podspec.AnnotationRestarts] = strconv.Itoa(restarts(p))
	at := func(in, name string) string {
		return "/metadata/" + in + "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
	}
	ops := []operation{
		{Op: "test", Path: "/metadata/uid", Value: string(p.UID)},
		{Op: "test", Path: at("labels", podspec.LabelPool), Value: pool},
		{Op: "remove", Path: at("labels", podspec.LabelPool)},
		{Op: "add", Path: "/metadata/ownerReferences", Value: []metav1.OwnerReference{}},
	}
	if p.Annotations == nil {
		ops = append(ops, operation{Op: "add", Path: "/metadata/annotations", Value: map[string]string{}})
	}
	for name, value := range labels {
		ops = append(ops, operation{Op: "add", Path: at("labels", name), Value: value})
	}
	for name, value := range annotations {
		ops = append(ops, operation{Op: "add", Path: at("annotations", name), Value: value})
	}
	patch, err := json.Marshal(ops)
	if err != nil {
		return nil, fmt.Errorf("encode patch: %w", err)
	}
	return d.cfg.Client.CoreV1().Pods(p.Namespace).Patch(ctx, p.Name, types.JSONPatchType, patch, metav1.PatchOptions{})
}

// restarts is how often the container of a Pod was started anew.
func restarts(p *corev1.Pod) int {
	n := 0
	for _, c := range p.Status.ContainerStatuses {
		n = max(n, int(c.RestartCount))
	}
	return n
}
