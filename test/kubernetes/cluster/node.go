package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// GVisor is the name of the RuntimeClass whose Pods run in gVisor. Pods without
// one run with runc.
const GVisor = "gvisor"

// pauseImage keeps the namespaces of Pods.
const pauseImage = "agentcube.test/pause:latest"

// startNode starts containerd and kubelet, and waits until Pods can be made.
func (c *Cluster) startNode(ctx context.Context) error {
	if err := c.startContainerd(ctx); err != nil {
		return err
	}
	if c.options.Services {
		if err := c.startNames(ctx); err != nil {
			return err
		}
	}
	if err := c.startKubelet(ctx); err != nil {
		return err
	}
	if c.options.Services {
		if err := c.startProxy(ctx); err != nil {
			return err
		}
	}
	if err := c.loadPause(ctx); err != nil {
		return err
	}
	class := map[string]any{
		"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": map[string]string{"name": GVisor}, "handler": "runsc",
	}
	if err := c.call(ctx, http.MethodPost, "/apis/node.k8s.io/v1/runtimeclasses", class, nil); err != nil {
		return err
	}
	if err := c.wait(ctx, "the node", func() (bool, error) { return c.nodeReady(ctx) }); err != nil {
		return err
	}
	return c.wait(ctx, "the service account of Pods", func() (bool, error) {
		err := c.call(ctx, http.MethodGet, "/api/v1/namespaces/default/serviceaccounts/default", nil, nil)
		return err == nil, err
	})
}

func (c *Cluster) socket() string { return c.path("containerd.sock") }

func (c *Cluster) startContainerd(ctx context.Context) error {
	gvisor, err := c.writeFile("runsc.toml", fmt.Sprintf(gvisorConfig, filepath.Join(c.binaries, "runsc"), "/run/runsc"))
	if err != nil {
		return err
	}
	if err := os.Mkdir(c.path("cni"), 0o755); err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	network, err := json.Marshal(c.network())
	if err != nil {
		return fmt.Errorf("encode network: %w", err)
	}
	if _, err := c.writeFile("cni/bridge.conflist", string(network)); err != nil {
		return err
	}
	config, err := c.writeFile("containerd.toml", fmt.Sprintf(containerdConfig,
		c.path("containerd"), c.path("run"), c.socket(), pauseImage, filepath.Join(c.binaries, "runc"), gvisor, c.binaries, c.path("cni")))
	if err != nil {
		return err
	}
	if err := c.start(ctx, "containerd", "--config="+config, "--log-level=info"); err != nil {
		return err
	}
	return c.wait(ctx, "containerd", func() (bool, error) {
		_, err := os.Stat(c.socket())
		return err == nil, err
	})
}

const gvisorConfig = `binary_name = %q
root = %q
[runsc_config]
  platform = "systrap"
  network = "sandbox"
`

// Of what containerd can do only what kubelet asks for is loaded. Lowering the
// score by which the kernel chooses what to kill takes a capability that test
// machines may lack.
const containerdConfig = `version = 3
root = %q
state = %q
disabled_plugins = [
  "io.containerd.nri.v1.nri", "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing",
  "io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.erofs", "io.containerd.differ.v1.erofs",
]

[grpc]
  address = %q

[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = %q

[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  disable_apparmor = true

[plugins."io.containerd.cri.v1.runtime".containerd]
  default_runtime_name = "runc"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
    BinaryName = %q
    SystemdCgroup = false

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runsc]
  runtime_type = "io.containerd.runsc.v1"
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runsc.options]
    TypeUrl = "io.containerd.runsc.v1.options"
    ConfigPath = %q

[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = [%q]
  conf_dir = %q
  use_internal_loopback = true
`

// network is how Pods are plugged in: into the bridge that has the node's address,
// which is their gateway. No address is rewritten: there is nothing outside.
func (c *Cluster) network() any {
	type object map[string]any
	return object{
		"cniVersion": "1.0.0", "name": "pods",
		"plugins": []object{{
			"type": "bridge", "bridge": bridgeName, "isGateway": true, "ipMasq": false, "hairpinMode": true,
			"ipam": object{
				"type": "host-local", "dataDir": c.path("addresses"),
				"ranges": [][]object{{{"subnet": podSubnet, "gateway": NodeIP, "rangeStart": "10.200.1.0"}}},
				"routes": []object{{"dst": "0.0.0.0/0"}},
			},
		}},
	}
}

func (c *Cluster) startKubelet(ctx context.Context) error {
	place, err := os.ReadFile(placeFile)
	if err != nil {
		return fmt.Errorf("find control groups: %w", err)
	}
	kubeconfig, err := c.user("kubelet", "system:node:"+nodeName, "system:nodes")
	if err != nil {
		return err
	}
	server, err := c.ca.issue("kubelet-server", "kubelet", "", c.addr, nodeName)
	if err != nil {
		return err
	}
	settings, err := json.MarshalIndent(c.kubeletConfig("/"+string(place), server), "", "  ")
	if err != nil {
		return fmt.Errorf("encode kubelet's settings: %w", err)
	}
	config, err := c.writeFile("kubelet.json", string(settings))
	if err != nil {
		return err
	}
	return c.start(ctx, "kubelet", "--config="+config, "--kubeconfig="+kubeconfig, "--root-dir="+c.path("kubelet"),
		"--cert-dir="+c.path("certs"), "--node-ip="+c.addr, "--hostname-override="+nodeName)
}

func (c *Cluster) kubeletConfig(group string, server pair) any {
	type object map[string]any
	none := object{"nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%", "imagefs.inodesFree": "0%"}
	none["memory.available"] = "50Mi"
	var servers []string
	if c.options.Services {
		servers = []string{NodeIP}
	}
	return object{
		"clusterDNS": servers, "clusterDomain": domain,
		"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
		"authentication": object{
			"anonymous": object{"enabled": false}, "webhook": object{"enabled": true},
			"x509": object{"clientCAFile": c.ca.files().cert},
		},
		"authorization": object{"mode": "Webhook"},
		"tlsCertFile":   server.cert, "tlsPrivateKeyFile": server.key,
		"containerRuntimeEndpoint": "unix://" + c.socket(),
		"cgroupDriver":             "cgroupfs", "cgroupRoot": group, "failCgroupV1": false,
		// What test machines may lack is not asked for, and their disks, however
		// full, are no reason to evict Pods.
		"failSwapOn": false, "oomScoreAdj": 0, "maxOpenFiles": 20000, "enforceNodeAllocatable": []string{},
		"evictionHard": none, "imageGCHighThresholdPercent": 100, "imageGCLowThresholdPercent": 99,
		"makeIPTablesUtilChains": false, "podLogsDir": filepath.Join(c.logs, "pods"),
		"volumePluginDir": c.path("volume-plugins"), "healthzPort": 0, "enableSystemLogHandler": false,
		// Tests wait for what changes.
		"syncFrequency": "10s", "nodeStatusUpdateFrequency": "2s", "volumeStatsAggPeriod": "-1s",
		"eventRecordQPS": 0, "registryPullQPS": 0, "kubeAPIQPS": 200, "kubeAPIBurst": 400, "serializeImagePulls": false,
	}
}

func (c *Cluster) startProxy(ctx context.Context) error {
	kubeconfig, err := c.user("kube-proxy", "system:kube-proxy", "")
	if err != nil {
		return err
	}
	type object map[string]any
	settings, err := json.Marshal(object{
		"apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
		"mode": "nftables", "clusterCIDR": podSubnet, "hostnameOverride": nodeName,
		"clientConnection": object{"kubeconfig": kubeconfig},
		"conntrack":        object{"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
		"nftables":         object{"minSyncPeriod": "100ms"},
	})
	if err != nil {
		return fmt.Errorf("encode kube-proxy's settings: %w", err)
	}
	config, err := c.writeFile("kube-proxy.json", string(settings))
	if err != nil {
		return err
	}
	return c.start(ctx, "kube-proxy", "--config="+config)
}

// nodeReady asks whether the node says that it is, and that it has the runtimes.
func (c *Cluster) nodeReady(ctx context.Context) (bool, error) {
	var node struct {
		Status struct {
			Conditions []struct{ Type, Status, Message string }
		}
	}
	if err := c.call(ctx, http.MethodGet, "/api/v1/nodes/"+nodeName, nil, &node); err != nil {
		return false, err
	}
	for _, condition := range node.Status.Conditions {
		if condition.Type == "Ready" {
			return condition.Status == "True", errors.New(condition.Message)
		}
	}
	return false, errors.New("it has not said yet")
}

// loadPause makes and loads the image that every Pod needs.
func (c *Cluster) loadPause(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	archive := c.path("pause.tar")
	if err := WriteImage(ctx, archive, pauseImage, filepath.Join(c.binaries, "pause")); err != nil {
		return err
	}
	return c.LoadImage(ctx, archive, pauseImage)
}
