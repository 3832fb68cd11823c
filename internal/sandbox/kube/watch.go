package kube

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/sandbox/kube/podspec"
)

// changed is told of every Pod, first as it is found and then of each change.
func (d *Driver) changed(p *corev1.Pod) {
	d.tell(p)
	if p.Labels[podspec.LabelSandbox] == "" {
		return
	}
	d.mu.Lock()
	delete(d.taken, p.UID)
	d.mu.Unlock()
	switch e := exitOf(p); {
	case p.DeletionTimestamp != nil: // a node that is away may never let it be gone
		d.lost(p)
	case e != nil && d.there(p):
		d.exited(p, *e)
	}
}

// lost delivers the exit of a sandbox whose Pod others delete.
func (d *Driver) lost(p *corev1.Pod) {
	d.mu.Lock()
	ours := d.gone[p.UID]
	d.mu.Unlock()
	if !ours && p.Labels[podspec.LabelSandbox] != "" {
		d.exited(p, sandbox.Exit{ID: p.Labels[podspec.LabelSandbox], Reason: sandbox.ExitLost, Detail: "its Pod was deleted", At: time.Now().UTC()})
	}
}

// removed is told of every Pod that is gone.
func (d *Driver) removed(o any) {
	if unknown, ok := o.(cache.DeletedFinalStateUnknown); ok {
		o = unknown.Obj
	}
	p, ok := o.(*corev1.Pod)
	if !ok {
		return
	}
	d.tell(p)
	d.lost(p)
	d.mu.Lock()
	delete(d.taken, p.UID)
	delete(d.gone, p.UID)
	delete(d.told, p.UID)
	d.mu.Unlock()
}

// exited delivers an exit once. That of a sandbox that is just being made is its
// Create's to report.
func (d *Driver) exited(p *corev1.Pod, e sandbox.Exit) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.told[p.UID] || d.busy[e.ID] != nil || !d.open {
		return
	}
	d.told[p.UID] = true
	d.work.Go(func() {
		select {
		case d.exits <- e:
		case <-d.life.Done():
		}
	})
}

// tell wakes those that wait for news of a Pod.
func (d *Driver) tell(p *corev1.Pod) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, ch := range d.news[p.Namespace+"/"+p.Name] {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}

// listen returns a channel that gets a value after each change of a Pod, and what
// ends that.
func (d *Driver) listen(namespace, name string) (news <-chan struct{}, done func()) {
	key, ch := namespace+"/"+name, make(chan struct{}, 1)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.news[key] = append(d.news[key], ch)
	return ch, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		var left []chan struct{}
		for _, c := range d.news[key] {
			if c != ch {
				left = append(left, c)
			}
		}
		if d.news[key] = left; left == nil {
			delete(d.news, key)
		}
	}
}
