package kube

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/sandbox/kube/podspec"
)

const (
	// Between two questions to a PicoD that does not answer yet.
	firstProbePause, longestProbePause = 5 * time.Millisecond, 100 * time.Millisecond
	// probeTimeout bounds one such question.
	probeTimeout = time.Second
	// pullPatience is how long an image may fail to be pulled: some failures pass.
	pullPatience = 10 * time.Second
)

// awaitReady waits until the sandbox of a Pod can be used. PicoD is asked itself, as
// soon as there is an address: it answers before kubelet has looked at its container
// and told the API server.
func (d *Driver) awaitReady(ctx context.Context, made *corev1.Pod, spec sandbox.Spec) (*corev1.Pod, error) {
	news, done := d.listen(made.Namespace, made.Name)
	defer done()
	began, seen, probed := time.Now(), false, firstProbePause
	for {
		pause := time.Second
		p := d.find(spec.ID)
		seen = seen || p != nil
		switch {
		case p == nil && seen, p == nil && d.deleted(made):
			return nil, errDeleted
		case p == nil: // the watch is a moment behind
		default:
			if err := d.failure(p, time.Since(began)); err != nil {
				return nil, err
			}
			if p.Status.PodIP == "" {
				break
			}
			if !hasAgent(spec) {
				if running(p) {
					return p, nil
				}
				break
			}
			if probe(ctx, p.Status.PodIP) == nil {
				return p, nil
			}
			pause, probed = probed, min(2*probed, longestProbePause)
		}
		select {
		case <-news:
			probed = firstProbePause
		case <-time.After(pause):
			if !seen && d.unmade(ctx, made) {
				return nil, errDeleted
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

var errDeleted = fmt.Errorf("%w: its Pod was deleted while it started", sandbox.ErrNotRunning)

// deleted: a Pod that was made is being deleted by somebody.
func (d *Driver) deleted(made *corev1.Pod) bool {
	o, there, err := d.pods.GetStore().GetByKey(made.Namespace + "/" + made.Name)
	if err != nil || !there {
		return false // not seen yet
	}
	p := o.(*corev1.Pod)
	return p.UID == made.UID && p.DeletionTimestamp != nil
}

// unmade: a Pod that was made and has not been seen for long is gone already. One that
// no node has is gone as soon as it is deleted.
func (d *Driver) unmade(ctx context.Context, made *corev1.Pod) bool {
	p, err := d.cfg.Client.CoreV1().Pods(made.Namespace).Get(ctx, made.Name, metav1.GetOptions{})
	return apierrors.IsNotFound(err) || err == nil && p.UID != made.UID
}

func running(p *corev1.Pod) bool {
	if len(p.Status.ContainerStatuses) == 0 {
		return false
	}
	for _, c := range p.Status.ContainerStatuses {
		if c.State.Running == nil {
			return false
		}
	}
	return true
}

// failure says why a Pod will not start, or nil while it may.
func (d *Driver) failure(p *corev1.Pod, waited time.Duration) error {
	all := slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses)
	if e := exitOf(p); e != nil {
		return atStart(p, e)
	}
	for _, c := range all {
		w := c.State.Waiting
		if w == nil {
			continue
		}
		switch w.Reason {
		case "InvalidImageName", "ErrImageNeverPull":
			return fmt.Errorf("%w: %s: %s", sandbox.ErrNoImage, w.Reason, w.Message)
		case "ErrImagePull", "ImagePullBackOff":
			if w.Reason == "ImagePullBackOff" || waited > pullPatience {
				return fmt.Errorf("%w: %s: %s", sandbox.ErrNoImage, w.Reason, w.Message)
			}
		case "CreateContainerConfigError", "CreateContainerError", "RunContainerError", "CrashLoopBackOff":
			return fmt.Errorf("%w: container %s: %s: %s", sandbox.ErrBadTemplate, c.Name, w.Reason, w.Message)
		}
	}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Reason == corev1.PodReasonUnschedulable && waited > d.cfg.PendingTimeout {
			return fmt.Errorf("%w: %s", sandbox.ErrFull, c.Message)
		}
	}
	return nil
}

// atStart says how a sandbox ended that never began.
func atStart(p *corev1.Pod, e *sandbox.Exit) error {
	if p.Status.Reason != "" {
		kind := sandbox.ErrNotRunning
		if strings.HasPrefix(p.Status.Reason, "OutOf") { // another Pod was there first
			kind = sandbox.ErrFull
		}
		return fmt.Errorf("%w: %s", kind, e.Detail)
	}
	for _, c := range slices.Concat(p.Status.ContainerStatuses, p.Status.InitContainerStatuses) {
		over := cmp.Or(c.State.Terminated, c.LastTerminationState.Terminated)
		if over == nil || over.ExitCode == 0 && e.Reason == sandbox.ExitLost {
			continue // an init container that has done its work
		}
		said := strings.Join(slices.DeleteFunc([]string{over.Reason, over.Message}, func(s string) bool { return s == "" }), ": ")
		return fmt.Errorf("%w: container %s ended at its start with exit code %d: %s", sandbox.ErrBadTemplate, c.Name, over.ExitCode, said)
	}
	return fmt.Errorf("%w: it ended at its start", sandbox.ErrNotRunning)
}

// hasAgent: PicoD is the first process.
func hasAgent(spec sandbox.Spec) bool {
	if x, ok := spec.Extras.(*podspec.Extras); ok && x != nil {
		return x.Agent
	}
	return !spec.OwnServer && len(spec.Command)+len(spec.Args) == 0
}

// probe asks PicoD whether it is well.
func probe(ctx context.Context, ip string) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://sandbox/health", nil)
	if err != nil {
		return err
	}
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return dial(ctx, ip, sandbox.AgentPort)
	}}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
	if resp.StatusCode != http.StatusOK {
		err = errors.Join(err, fmt.Errorf("health answered %d", resp.StatusCode))
	}
	return errors.Join(err, resp.Body.Close())
}
