package kube

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/volcano-sh/agentcube/internal/sandbox/kube/podspec"
)

// Delete implements sandbox.Driver. It waits for a Create of the same id, and returns
// when the Pod's processes have ended; a node that is away ends them later.
func (d *Driver) Delete(ctx context.Context, id string) error {
	if err := d.usable(ctx); err != nil {
		return err
	}
	if !validID(id) {
		return nil // nothing has such an id
	}
	d.mu.Lock()
	over := d.busy[id]
	d.mu.Unlock()
	if over != nil {
		select {
		case <-over:
		case <-ctx.Done():
			return fmt.Errorf("delete sandbox %s: %w", id, ctx.Err())
		}
	}
	pods, err := d.podsOf(ctx, id)
	if err != nil {
		return fmt.Errorf("delete sandbox %s: %w", id, err)
	}
	for i := range pods {
		if err := d.deletePod(ctx, &pods[i]); err != nil {
			return fmt.Errorf("delete sandbox %s: %w", id, err)
		}
	}
	return nil
}

// podsOf are the Pods of a sandbox, of which there is one. Where none is known the API
// server is asked: another manager may just have made it.
func (d *Driver) podsOf(ctx context.Context, id string) ([]corev1.Pod, error) {
	found, err := d.pods.GetIndexer().ByIndex(bySandbox, id)
	if err != nil {
		return nil, fmt.Errorf("look for its Pod: %w", err)
	}
	var out []corev1.Pod
	for _, o := range found {
		out = append(out, *o.(*corev1.Pod))
	}
	if len(out) > 0 {
		return out, nil
	}
	match := podspec.Selector(d.cfg.Pods.Home)
	match[podspec.LabelSandbox] = id
	list, err := d.cfg.Client.CoreV1().Pods(d.cfg.Namespace).List(ctx, metav1.ListOptions{LabelSelector: labels.SelectorFromSet(match).String()})
	if err != nil {
		return nil, fmt.Errorf("look for its Pod: %w", contextError(ctx, err))
	}
	return list.Items, nil
}

// deleteGrace is how long Delete waits for a Pod's processes to end, which they are
// given a second for.
const deleteGrace = 5 * time.Second

// deletePod deletes one Pod, and no other that has its name by now, and waits.
func (d *Driver) deletePod(ctx context.Context, p *corev1.Pod) error {
	d.mu.Lock()
	d.gone[p.UID] = true
	d.mu.Unlock()
	news, done := d.listen(p.Namespace, p.Name)
	defer done()
	err := d.cfg.Client.CoreV1().Pods(p.Namespace).Delete(ctx, p.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &p.UID}})
	switch {
	case apierrors.IsNotFound(err), apierrors.IsConflict(err):
		d.forget(p)
		return nil
	case err != nil:
		d.mu.Lock()
		delete(d.gone, p.UID)
		d.mu.Unlock()
		return fmt.Errorf("delete Pod: %w", contextError(ctx, err))
	}
	timer := time.NewTimer(deleteGrace)
	defer timer.Stop()
	for {
		o, there, err := d.pods.GetStore().GetByKey(p.Namespace + "/" + p.Name)
		if err != nil || !there || o.(*corev1.Pod).UID != p.UID || over(o.(*corev1.Pod)) {
			return nil
		}
		select {
		case <-news:
		case <-timer.C:
			d.log.Warn("Pod takes long to end", "pod", p.Namespace+"/"+p.Name)
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// over: all processes of a Pod have ended.
func over(p *corev1.Pod) bool {
	all := slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses)
	return len(p.Status.ContainerStatuses) > 0 && !slices.ContainsFunc(all, func(c corev1.ContainerStatus) bool { return c.State.Terminated == nil })
}

// forget drops what is known of a Pod that nobody will be told of any more. One that
// the watch still shows is told of later.
func (d *Driver) forget(p *corev1.Pod) {
	if o, there, err := d.pods.GetStore().GetByKey(p.Namespace + "/" + p.Name); err == nil && there && o.(*corev1.Pod).UID == p.UID {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.gone, p.UID)
}

// deleteNamed deletes the Pod of a sandbox whose making was given up, if there is one.
func (d *Driver) deleteNamed(ctx context.Context, namespace, name string) error {
	p, err := d.cfg.Client.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		return fmt.Errorf("look for Pod: %w", err)
	case p.Labels[podspec.LabelSandbox] != name:
		return nil
	}
	return d.deletePod(ctx, p)
}
