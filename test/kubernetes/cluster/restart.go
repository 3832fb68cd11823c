package cluster

import (
	"context"
	"errors"
	"net/http"
	"slices"
)

// StopAPIServer kills the API server, and with it everybody's watches. What is stored
// stays. StartAPIServer starts it again; until then nothing else of Cluster is called.
func (c *Cluster) StopAPIServer() error {
	p := c.component("kube-apiserver")
	if p == nil {
		return errors.New("stop API server: there is none")
	}
	p.kill()
	return nil
}

// StartAPIServer starts the API server that StopAPIServer has stopped, at the same
// address, and returns when it is ready. Controllers and the scheduler are started
// anew: by themselves they may take minutes to look whether it is back.
func (c *Cluster) StartAPIServer(ctx context.Context) error {
	for _, name := range []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler"} {
		if err := c.restart(ctx, name); err != nil {
			return err
		}
	}
	return c.wait(ctx, "the API server", func() (bool, error) {
		err := c.call(ctx, http.MethodGet, "/readyz", nil, nil)
		return err == nil, err
	})
}

// restart starts a program of the cluster once more, if it is one.
func (c *Cluster) restart(ctx context.Context, name string) error {
	old := c.component(name)
	if old == nil {
		return nil
	}
	old.kill()
	p, err := c.run(ctx, name, old.cmd.Args[1:]...)
	if err != nil {
		return err
	}
	*old = *p
	return nil
}

// component finds a program of the cluster; nil where it is none.
func (c *Cluster) component(name string) *component {
	i := slices.IndexFunc(c.components, func(p *component) bool { return p.name == name })
	if i < 0 {
		return nil
	}
	return c.components[i]
}

// RestartKubelet kills the kubelet and starts it again. Pods run on.
func (c *Cluster) RestartKubelet(ctx context.Context) error {
	if err := c.restart(ctx, "kubelet"); err != nil {
		return err
	}
	return c.wait(ctx, "the node", func() (bool, error) { return c.nodeReady(ctx) })
}

// RestartAPIServer kills the API server, and starts it again.
func (c *Cluster) RestartAPIServer(ctx context.Context) error {
	if err := c.StopAPIServer(); err != nil {
		return err
	}
	return c.StartAPIServer(ctx)
}
