package kube

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/sandbox/kube/podspec"
)

// undoTimeout bounds the removal of what a failed Create has made.
const undoTimeout = 30 * time.Second

// Create implements sandbox.Driver.
func (d *Driver) Create(ctx context.Context, spec sandbox.Spec) (sandbox.Sandbox, error) {
	s, err := d.create(ctx, spec)
	if err != nil {
		return sandbox.Sandbox{}, fmt.Errorf("create sandbox %s: %w", spec.ID, err)
	}
	return s, nil
}

func (d *Driver) create(ctx context.Context, spec sandbox.Spec) (sandbox.Sandbox, error) {
	switch {
	case !validID(spec.ID):
		return sandbox.Sandbox{}, fmt.Errorf("%w: id %q: want 1 to 63 characters of [a-z0-9-], a letter or digit first and last", sandbox.ErrInvalidSpec, spec.ID)
	case spec.Snapshot != "":
		return sandbox.Sandbox{}, sandbox.ErrUnsupported
	case spec.Image == "" && spec.Extras == nil:
		return sandbox.Sandbox{}, fmt.Errorf("%w: image is empty", sandbox.ErrInvalidSpec)
	case d.cfg.Namespace != "" && d.namespaceOf(spec) != d.cfg.Namespace:
		return sandbox.Sandbox{}, fmt.Errorf("%w: namespace %s is not looked at, only %s", sandbox.ErrInvalidSpec, d.namespaceOf(spec), d.cfg.Namespace)
	}
	if err := d.usable(ctx); err != nil {
		return sandbox.Sandbox{}, err
	}
	t, err := d.builder.Build(spec)
	if err != nil {
		return sandbox.Sandbox{}, err
	}
	done, err := d.begin(spec.ID)
	if err != nil {
		return sandbox.Sandbox{}, err
	}
	defer done()
	p, start, err := d.take(ctx, t, spec)
	if err != nil {
		return sandbox.Sandbox{}, err
	}
	ready, err := d.awaitReady(ctx, p, spec)
	if err != nil {
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
		defer cancel()
		if ctx.Err() != nil {
			err = d.explain(undo, p, err)
		}
		return sandbox.Sandbox{}, errors.Join(err, d.deletePod(undo, p))
	}
	made := d.describe(ready)
	made.Start = start
	return made, nil
}

// explain adds to why nobody waits for a Pod any longer the last warnings of Kubernetes
// about it: a volume that is not there, a handler that its node does not have.
func (d *Driver) explain(ctx context.Context, p *corev1.Pod, err error) error {
	about := fields.Set{"involvedObject.uid": string(p.UID), "type": corev1.EventTypeWarning}
	list, failed := d.cfg.Client.CoreV1().Events(p.Namespace).List(ctx, metav1.ListOptions{
		FieldSelector: about.String(), Limit: 100,
	})
	if failed != nil || len(list.Items) == 0 {
		return err
	}
	slices.SortStableFunc(list.Items, func(a, b corev1.Event) int { return b.LastTimestamp.Compare(a.LastTimestamp.Time) })
	var said []string
	for _, e := range list.Items[:min(len(list.Items), 3)] {
		said = append(said, e.Reason+": "+e.Message)
	}
	return fmt.Errorf("%w: Kubernetes says: %s", err, strings.Join(said, "; "))
}

// begin takes an id for one Create. Whoever ends it looks whether the sandbox has
// ended meanwhile.
func (d *Driver) begin(id string) (done func(), err error) {
	if d.find(id) != nil {
		return nil, sandbox.ErrExists
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.busy[id] != nil {
		return nil, sandbox.ErrExists
	}
	over := make(chan struct{})
	d.busy[id] = over
	return func() {
		d.mu.Lock()
		delete(d.busy, id)
		d.mu.Unlock()
		close(over)
		if p := d.find(id); p != nil {
			d.changed(p)
		}
	}, nil
}

// take finds a Pod for a sandbox: one that waits in a pool, or else a new one.
func (d *Driver) take(ctx context.Context, t corev1.PodTemplateSpec, spec sandbox.Spec) (*corev1.Pod, sandbox.Start, error) {
	namespace := d.namespaceOf(spec)
	if err := d.closeSandboxes(ctx, namespace); err != nil {
		return nil, "", err
	}
	p, err := d.claim(ctx, namespace, t, spec)
	if p != nil || err != nil {
		return p, sandbox.StartPool, err
	}
	p, err = d.start(ctx, namespace, t, spec)
	return p, sandbox.StartBoot, err
}

func (d *Driver) namespaceOf(spec sandbox.Spec) string {
	if x, ok := spec.Extras.(*podspec.Extras); ok && x != nil && x.Namespace != "" {
		return x.Namespace
	}
	if d.cfg.Namespace != "" {
		return d.cfg.Namespace
	}
	return metav1.NamespaceDefault
}

// start makes a Pod.
func (d *Driver) start(ctx context.Context, namespace string, t corev1.PodTemplateSpec, spec sandbox.Spec) (*corev1.Pod, error) {
	labels, annotations, err := podspec.Own(spec.ID, spec.ID, spec.Labels)
	if err != nil {
		return nil, err
	}
	p := &corev1.Pod{ObjectMeta: *t.ObjectMeta.DeepCopy(), Spec: t.Spec}
	p.Namespace, p.Name = namespace, spec.ID
	for k, v := range labels {
		metav1.SetMetaDataLabel(&p.ObjectMeta, k, v)
	}
	for k, v := range annotations {
		metav1.SetMetaDataAnnotation(&p.ObjectMeta, k, v)
	}
	for {
		made, err := d.cfg.Client.CoreV1().Pods(namespace).Create(ctx, p, metav1.CreateOptions{})
		switch {
		case err == nil:
			return made, nil
		case apierrors.IsAlreadyExists(err):
			if err := d.awaitEnd(ctx, namespace, spec.ID); err != nil {
				return nil, err
			}
		case !refused(err):
			// It may have been made all the same.
			undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
			defer cancel()
			return nil, errors.Join(fmt.Errorf("make Pod: %w", contextError(ctx, err)), d.deleteNamed(undo, namespace, spec.ID))
		default:
			return nil, refusal(err)
		}
	}
}

// contextError is the context's, where that is why a call failed: the client does not
// always say so, and its rate limiter gives up before time is over.
func contextError(ctx context.Context, err error) error {
	cause := ctx.Err()
	if cause == nil && strings.Contains(err.Error(), "would exceed context deadline") {
		cause = context.DeadlineExceeded
	}
	if cause != nil && !errors.Is(err, cause) {
		return fmt.Errorf("%w: %w", cause, err)
	}
	return err
}

// refused: the API server has said no. After any other error, such as a connection
// that broke, it may have done what it was asked for.
func refused(err error) bool {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return false
	}
	code := status.Status().Code
	return code >= 400 && code < 500 && code != http.StatusRequestTimeout
}

// refusal says what it means that the API server made no Pod.
func refusal(err error) error {
	switch {
	case apierrors.IsForbidden(err) && strings.Contains(err.Error(), "cannot create resource"):
		// It is not the template's fault: our own rights are missing, or the API server
		// has just started and does not know them yet.
		return fmt.Errorf("make Pod: %w", err)
	case apierrors.IsForbidden(err) && strings.Contains(err.Error(), "exceeded quota"):
		return fmt.Errorf("make Pod: %w: %w", sandbox.ErrFull, err)
	case apierrors.IsForbidden(err), apierrors.IsInvalid(err), apierrors.IsNotFound(err):
		return fmt.Errorf("make Pod: %w: %w", sandbox.ErrBadTemplate, err)
	}
	return fmt.Errorf("make Pod: %w", err)
}

// awaitEnd waits for a Pod whose name is wanted again to be gone; ErrExists when
// nobody deletes it.
func (d *Driver) awaitEnd(ctx context.Context, namespace, name string) error {
	news, done := d.listen(namespace, name)
	defer done()
	for {
		p, err := d.cfg.Client.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			return nil
		case err != nil:
			return fmt.Errorf("look at Pod: %w", contextError(ctx, err))
		case p.DeletionTimestamp == nil:
			return sandbox.ErrExists
		}
		select {
		case <-news:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func validID(id string) bool {
	if id == "" || len(id) > 63 || id[0] == '-' || id[len(id)-1] == '-' {
		return false
	}
	for _, c := range []byte(id) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}
