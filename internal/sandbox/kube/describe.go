package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/sandbox/kube/podspec"
)

// describe is a Pod as a sandbox.
func (d *Driver) describe(p *corev1.Pod) sandbox.Sandbox {
	s := sandbox.Sandbox{
		ID: p.Labels[podspec.LabelSandbox], CreatedAt: p.CreationTimestamp.UTC(), AgentID: string(p.UID), Address: p.Status.PodIP,
		Isolation: d.isolation(p.Spec.RuntimeClassName), Exit: exitOf(p),
	}
	if text := p.Annotations[podspec.AnnotationLabels]; text != "" {
		if err := json.Unmarshal([]byte(text), &s.Labels); err != nil {
			d.log.Error("labels of a sandbox are not readable", "pod", p.Namespace+"/"+p.Name, "error", err)
		}
	}
	return s
}

// IsolationOf is what sandboxes with such a spec are isolated by; ErrBadTemplate when
// its runtime class is not there.
func (d *Driver) IsolationOf(spec sandbox.Spec) (string, error) {
	x, ok := spec.Extras.(*podspec.Extras)
	if !ok || x == nil || x.Pod.RuntimeClassName == nil || *x.Pod.RuntimeClassName == "" {
		return d.cfg.DefaultIsolation, nil
	}
	class, err := d.classes.Get(*x.Pod.RuntimeClassName)
	if err != nil {
		return "", fmt.Errorf("%w: runtime class %q: %w", sandbox.ErrBadTemplate, *x.Pod.RuntimeClassName, err)
	}
	return podspec.IsolationOf(class), nil
}

func (d *Driver) isolation(class *string) string {
	if class == nil || *class == "" {
		return d.cfg.DefaultIsolation
	}
	c, err := d.classes.Get(*class)
	if err != nil {
		return "none" // nobody says what it was
	}
	return podspec.IsolationOf(c)
}

// exitOf says how the sandbox of a Pod ended, or nil while it has not.
func exitOf(p *corev1.Pod) *sandbox.Exit {
	e := &sandbox.Exit{ID: p.Labels[podspec.LabelSandbox], Reason: sandbox.ExitStopped, At: lastChange(p)}
	if p.Status.Phase == corev1.PodFailed && p.Status.Reason != "" { // before its containers, which ended with it
		e.Reason, e.Detail = sandbox.ExitLost, "Kubernetes ended its Pod: "+p.Status.Reason
		if p.Status.Message != "" {
			e.Detail += ": " + strings.TrimRight(p.Status.Message, ". \n")
		}
		return e
	}
	for _, c := range p.Status.ContainerStatuses {
		over := c.State.Terminated
		again := over == nil && c.RestartCount > restartsBefore(p)
		switch {
		case again:
			over = c.LastTerminationState.Terminated
			e.Detail = "its container was started anew, without what it had in memory"
		case over != nil:
			e.Detail = fmt.Sprintf("its first process ended with exit code %d", over.ExitCode)
		default:
			continue
		}
		if over != nil && !over.FinishedAt.IsZero() {
			e.At = over.FinishedAt.UTC()
		}
		if over != nil && over.Reason == "OOMKilled" {
			e.Reason, e.Detail = sandbox.ExitOutOfMemory, ""
		}
		return e
	}
	switch p.Status.Phase {
	case corev1.PodFailed:
		e.Reason, e.Detail = sandbox.ExitLost, "Kubernetes ended its Pod"
		return e
	case corev1.PodSucceeded:
		return e
	}
	return nil
}

// lastChange is when the state of a Pod changed last.
func lastChange(p *corev1.Pod) time.Time {
	at := p.CreationTimestamp.UTC()
	for _, c := range p.Status.Conditions {
		if t := c.LastTransitionTime.UTC(); t.After(at) {
			at = t
		}
	}
	return at
}

// restartsBefore is how often the container of a Pod may have been restarted.
func restartsBefore(p *corev1.Pod) int32 {
	n, err := strconv.ParseInt(p.Annotations[podspec.AnnotationRestarts], 10, 32)
	if err != nil {
		return 0
	}
	return int32(n)
}

// dial opens a connection to a Pod. One whose gVisor was killed says no word of it: it
// is noticed after some twenty seconds.
func dial(ctx context.Context, ip string, port uint16) (net.Conn, error) {
	alive := net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 5 * time.Second, Count: 3}
	conn, err := (&net.Dialer{KeepAliveConfig: alive}).DialContext(ctx, "tcp", net.JoinHostPort(ip, strconv.Itoa(int(port))))
	if errors.Is(err, syscall.ECONNREFUSED) {
		return nil, fmt.Errorf("%w: %w", sandbox.ErrRefused, err)
	}
	return conn, err
}
