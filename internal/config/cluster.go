package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

// Cluster are the settings of the parts that run in a cluster, each as a program of
// its own.
type Cluster struct {
	// Kubeconfig is a file that says where the cluster is; "" is the one that the
	// process runs in.
	Kubeconfig string
	// Namespace is where AgentCube itself is.
	Namespace string
	// WatchNamespace is the one with templates and sessions; "" is all of them.
	WatchNamespace string
	// AgentImage has PicoD, and AgentImagePullPolicy is how it is pulled.
	AgentImage, AgentImagePullPolicy string
	// AgentImagePullSecrets are by what, in the namespaces of templates.
	AgentImagePullSecrets List
	// DefaultIsolation is that of Pods without a runtime class.
	DefaultIsolation string
	// PodPendingTimeout is how long a Pod may wait for a node with room.
	PodPendingTimeout time.Duration
	// NetworkPolicies close all sandboxes but for the Router and the Workload Manager.
	NetworkPolicies bool
	// BootstrapKeyFile has the key that hands sandboxes theirs, RouterKeyFile that of
	// the Router, RouterCertificateFile its public half, in a certificate.
	BootstrapKeyFile, RouterKeyFile, RouterCertificateFile string
}

func (c *Config) defineCluster(fs *pflag.FlagSet, key, path func(string) string) {
	k := &c.Cluster
	fs.StringVar(&k.Kubeconfig, path("kubeconfig"), "", "file that says where the cluster is; without: the one that this runs in")
	fs.StringVar(&k.Namespace, key("namespace"), "agentcube", "namespace of AgentCube itself")
	fs.StringVar(&k.WatchNamespace, key("watchNamespace"), "", "the one namespace with templates and sessions; without: all")
	fs.StringVar(&k.AgentImage, key("agentImage"), "", "image that PicoD is copied from into the Pods of sessions")
	fs.StringVar(&k.AgentImagePullPolicy, key("agentImagePullPolicy"), "IfNotPresent", "how that is pulled: Always, IfNotPresent or Never")
	fs.Var(&k.AgentImagePullSecrets, key("agentImagePullSecrets"), "secrets that it is pulled with, in the namespaces of templates")
	fs.StringVar(&k.DefaultIsolation, key("defaultIsolation"), "runc", "what Pods without a runtime class are isolated by: none, runc, gvisor or kata")
	fs.DurationVar(&k.PodPendingTimeout, key("podPendingTimeout"), time.Minute, "how long a Pod may wait for a node with room")
	fs.BoolVar(&k.NetworkPolicies, key("networkPolicies"), true, "close sandboxes by network policies, but for the Router")
	fs.StringVar(&k.BootstrapKeyFile, path("bootstrapKeyFile"), "", "file with the RSA key, in PEM, that hands sandboxes theirs")
	fs.StringVar(&k.RouterKeyFile, path("routerKeyFile"), "", "file with the Router's RSA key, in PEM")
	fs.StringVar(&k.RouterCertificateFile, path("routerCertificateFile"), "", "file with a certificate, in PEM, of the Router's key")
}

// ValidateCluster is Validate for the parts that run in a cluster: it wants the
// settings with the given keys to be set, too.
func (c *Config) ValidateCluster(required ...string) error {
	e := &Error{}
	if invalid, ok := errors.AsType[*Error](c.Validate()); ok {
		e = invalid
	}
	bad := func(key, format string, args ...any) {
		e.Problems = append(e.Problems, key+": "+fmt.Sprintf(format, args...))
	}
	for _, key := range required {
		if f := c.flags.Lookup(kebab(key)); f == nil || f.Value.String() == "" {
			bad(key, "is missing: set it, %s or --%s", field{key: key}.envNames()[0], kebab(key))
		}
	}
	if c.Store != "redis" {
		bad("store", "%q is not redis, which several replicas can share", c.Store)
	}
	k := c.Cluster
	for key, choice := range map[string][]string{
		"agentImagePullPolicy": {k.AgentImagePullPolicy, "Always", "IfNotPresent", "Never"},
		"defaultIsolation":     {k.DefaultIsolation, "none", "runc", "gvisor", "kata"},
	} {
		if !slices.Contains(choice[1:], choice[0]) {
			bad(key, "%q is not one of %s", choice[0], strings.Join(choice[1:], ", "))
		}
	}
	if k.PodPendingTimeout <= 0 {
		bad("podPendingTimeout", "%v is not more than 0", k.PodPendingTimeout)
	}
	if len(e.Problems) == 0 {
		return nil
	}
	slices.Sort(e.Problems)
	return e
}
