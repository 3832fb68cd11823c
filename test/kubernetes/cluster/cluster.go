package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Options say what cluster to start.
type Options struct {
	// Binaries is the folder that test/kubernetes/binaries/build.sh has filled.
	Binaries string
	// Logs is a folder, made where it is missing, for what each program says. It
	// is not removed. Empty means one that goes with the cluster.
	Logs string
	// Controllers adds the controller manager and the scheduler. Without them
	// nothing acts on resources, and Pods need no service account.
	Controllers bool
	// Node adds a node that runs Pods, with the RuntimeClass GVisor beside its
	// default, runc; it implies Controllers. Start must be called inside Enter,
	// where there may be one node at a time.
	Node bool
	// Services adds kube-proxy, so that Pods reach services, the API server among
	// them, by their addresses, and tells Pods these by the services' names; it
	// implies Node. It needs nft of Debian's nftables.
	Services bool
}

// Cluster is a Kubernetes that runs.
type Cluster struct {
	// Kubeconfig is the path of a file with which its bearer may do everything.
	Kubeconfig string
	// URL is where the API server listens, on an address that Pods reach too.
	URL string

	options    Options
	binaries   string
	logs       string
	dir        string // all of its files
	addr       string // of the machine
	ca         *authority
	client     *http.Client
	components []*component
	names      *names // nil without services
}

// Start starts a cluster and returns when it can be used: the API server is ready
// and, with a node, that is Ready and Pods can be made. It gives up when ctx ends,
// when a program ends, or after two minutes, and then leaves nothing but Logs.
func Start(ctx context.Context, options Options) (*Cluster, error) {
	options.Node = options.Node || options.Services
	options.Controllers = options.Controllers || options.Node
	if options.Node && !Entered() {
		return nil, errors.New("a node must be started inside cluster.Enter")
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	c := &Cluster{options: options, addr: "127.0.0.1"}
	if err := c.prepare(); err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	steps := []func(context.Context) error{c.startAPIServer}
	if options.Controllers {
		steps = append(steps, c.startControllers)
	}
	if options.Node {
		steps = append(steps, c.startNode)
	}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return nil, errors.Join(fmt.Errorf("start cluster: %w", err), c.Stop())
		}
	}
	return c, nil
}

// prepare makes the folders and the certificates.
func (c *Cluster) prepare() (err error) {
	if c.binaries, err = filepath.Abs(c.options.Binaries); err != nil {
		return fmt.Errorf("find binaries: %w", err)
	}
	if _, err := os.Stat(filepath.Join(c.binaries, "kube-apiserver")); err != nil {
		return fmt.Errorf("find binaries: %w; make kubernetes-binaries makes them", err)
	}
	parent := ""
	if Entered() {
		parent, c.addr = stateDir, NodeIP
	}
	if c.dir, err = os.MkdirTemp(parent, "kubernetes-"); err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	if err := os.Chmod(c.dir, 0o711); err != nil { // containers of other users have their files below
		return fmt.Errorf("open folder: %w", err)
	}
	if c.logs, err = filepath.Abs(c.options.Logs); err != nil {
		return fmt.Errorf("find folder of logs: %w", err)
	}
	if c.options.Logs == "" {
		c.logs = filepath.Join(c.dir, "logs")
	}
	for _, dir := range []string{c.logs, c.path("certs")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make folder: %w", err)
		}
	}
	c.ca, err = newAuthority(c.path("certs"))
	return err
}

func (c *Cluster) path(name string) string { return filepath.Join(c.dir, name) }

// Stop ends the cluster, without asking its Pods first, and removes all that was
// made for it but Options.Logs. An error says what could not be removed.
func (c *Cluster) Stop() error {
	for _, p := range slices.Backward(c.components) {
		p.kill()
	}
	c.components = nil
	if c.names != nil {
		c.names.stop()
		c.names = nil
	}
	var err error
	if c.options.Node && c.dir != "" {
		err = c.clearNode()
	}
	if c.client != nil {
		c.client.CloseIdleConnections()
	}
	if c.dir != "" {
		err = errors.Join(err, os.RemoveAll(c.dir))
	}
	if err != nil {
		return fmt.Errorf("stop cluster: %w", err)
	}
	return nil
}

// WriteLogs writes the end of what each program has said to w, for a test that
// fails.
func (c *Cluster) WriteLogs(w io.Writer) {
	for _, p := range c.components {
		fmt.Fprintf(w, "==> %s\n%s\n", p.log, p.tail())
	}
}

// wait asks until the answer is yes. What is waited for ends the sentence "wait
// for"; the last answer that was an error is part of the one that is returned.
func (c *Cluster) wait(ctx context.Context, what string, done func() (bool, error)) error {
	for {
		ok, err := done()
		if ok {
			return nil
		}
		if err := c.ended(); err != nil {
			return fmt.Errorf("wait for %s: %w", what, err)
		}
		select {
		case <-ctx.Done():
			var said strings.Builder
			c.WriteLogs(&said)
			return fmt.Errorf("wait for %s: %w\n%s", what, errors.Join(ctx.Err(), err), said.String())
		case <-time.After(50 * time.Millisecond):
		}
	}
}
