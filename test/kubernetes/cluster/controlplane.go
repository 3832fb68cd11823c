package cluster

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"
)

const (
	serviceSubnet = "10.201.0.0/16"
	serviceIP     = "10.201.0.1" // of the API server
	// admins is the group that may do everything.
	admins = "system:masters"
)

// startAPIServer starts etcd and the API server, both at once, as the latter waits
// for the former.
func (c *Cluster) startAPIServer(ctx context.Context) error {
	ports, err := freePorts(ctx, 3)
	if err != nil {
		return err
	}
	store, peers := "https://127.0.0.1:"+ports[0], "http://127.0.0.1:"+ports[1]
	c.URL = "https://" + net.JoinHostPort(c.addr, ports[2])
	server, err := c.ca.issue("apiserver", "kube-apiserver", admins,
		c.addr, "127.0.0.1", serviceIP, "localhost", "kubernetes.default.svc", "kubernetes.default", "kubernetes")
	if err != nil {
		return err
	}
	private, public, err := c.ca.serviceAccountKey()
	if err != nil {
		return err
	}
	ca := c.ca.files()
	if err := c.start(ctx, "etcd",
		"--name=test", "--data-dir="+c.path("etcd"), "--unsafe-no-fsync", "--log-level=warn",
		"--listen-client-urls="+store, "--advertise-client-urls="+store,
		"--listen-peer-urls="+peers, "--initial-advertise-peer-urls="+peers, "--initial-cluster=test="+peers,
		"--cert-file="+server.cert, "--key-file="+server.key, "--trusted-ca-file="+ca.cert, "--client-cert-auth",
	); err != nil {
		return err
	}
	args := []string{
		"--etcd-servers=" + store, "--etcd-cafile=" + ca.cert, "--etcd-certfile=" + server.cert, "--etcd-keyfile=" + server.key,
		"--bind-address=" + c.addr, "--advertise-address=" + c.addr, "--secure-port=" + ports[2],
		"--tls-cert-file=" + server.cert, "--tls-private-key-file=" + server.key, "--client-ca-file=" + ca.cert,
		"--authorization-mode=Node,RBAC", "--anonymous-auth=false", "--allow-privileged=true",
		"--service-account-issuer=https://kubernetes.default.svc", "--service-account-key-file=" + public,
		"--service-account-signing-key-file=" + private, "--service-cluster-ip-range=" + serviceSubnet,
		"--kubelet-client-certificate=" + server.cert, "--kubelet-client-key=" + server.key,
		"--kubelet-certificate-authority=" + ca.cert, "--kubelet-preferred-address-types=InternalIP",
		"--shutdown-delay-duration=0s",
	}
	if !c.options.Controllers { // nobody would make the accounts that Pods need
		args = append(args, "--disable-admission-plugins=ServiceAccount")
	}
	if !c.options.Node { // loopback is no address for others
		args = append(args, "--endpoint-reconciler-type=none")
	}
	if err := c.start(ctx, "kube-apiserver", args...); err != nil {
		return err
	}
	return c.connect(ctx)
}

// connect makes the kubeconfig of an administrator and waits until the API server
// is ready for its bearer.
func (c *Cluster) connect(ctx context.Context) error {
	files, err := c.ca.issue("admin", "admin", admins)
	if err != nil {
		return err
	}
	kubeconfig := c.path("kubeconfig")
	if err := c.ca.writeKubeconfig(kubeconfig, c.URL, files); err != nil {
		return err
	}
	cert, err := tls.LoadX509KeyPair(files.cert, files.key)
	if err != nil {
		return fmt.Errorf("load certificate: %w", err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(c.ca.cert)
	c.client = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots, Certificates: []tls.Certificate{cert}},
	}}
	c.Kubeconfig = kubeconfig
	return c.wait(ctx, "the API server", func() (bool, error) {
		err := c.call(ctx, http.MethodGet, "/readyz", nil, nil)
		return err == nil, err
	})
}

// startControllers starts the controller manager and the scheduler. As slowly as
// they ask by default, the former takes five seconds to begin.
func (c *Cluster) startControllers(ctx context.Context) error {
	ca := c.ca.files()
	for _, program := range []struct {
		name, user string
		args       []string
	}{
		{"kube-controller-manager", "system:kube-controller-manager", []string{
			"--secure-port=0", "--use-service-account-credentials", "--root-ca-file=" + ca.cert,
			"--service-account-private-key-file=" + c.path("certs/accounts.key"),
			"--cluster-signing-cert-file=" + ca.cert, "--cluster-signing-key-file=" + ca.key,
		}},
		{"kube-scheduler", "system:kube-scheduler", []string{"--secure-port=0"}},
	} {
		kubeconfig, err := c.user(program.name, program.user, "")
		if err != nil {
			return err
		}
		args := append([]string{"--kubeconfig=" + kubeconfig, "--leader-elect=false", "--kube-api-qps=1000", "--kube-api-burst=1000"}, program.args...)
		if err := c.start(ctx, program.name, args...); err != nil {
			return err
		}
	}
	return nil
}

// user makes a kubeconfig for a user.
func (c *Cluster) user(name, user, group string) (string, error) {
	files, err := c.ca.issue(name, user, group)
	if err != nil {
		return "", err
	}
	path := c.path(name + ".kubeconfig")
	return path, c.ca.writeKubeconfig(path, c.URL, files)
}

// call asks the API server, as an administrator. In and out are JSON; an answer
// other than 2xx is an error.
func (c *Cluster) call(ctx context.Context, method, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("encode request: %w", err)
	}
	if in == nil {
		body = nil
	}
	address, err := url.JoinPath(c.URL, path)
	if err != nil {
		return fmt.Errorf("make address: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.client.Do(req)
	if err != nil {
		return fmt.Errorf("ask API server: %w", err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	if err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %s: %.300s", method, path, resp.Status, answer)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	return nil
}

// freePorts finds ports of loopback that nobody listens on.
func freePorts(ctx context.Context, n int) ([]string, error) {
	var ports []string
	for range n {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("find port: %w", err)
		}
		defer l.Close() // together, so that they differ
		_, port, err := net.SplitHostPort(l.Addr().String())
		if err != nil {
			return nil, fmt.Errorf("find port: %w", err)
		}
		ports = append(ports, port)
	}
	return ports, nil
}

// writeFile writes what a program is told, below the cluster's folder.
func (c *Cluster) writeFile(name, content string) (string, error) {
	path := c.path(name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		return "", fmt.Errorf("write %s: %w", name, err)
	}
	return path, nil
}
