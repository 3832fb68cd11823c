package config

import (
	"os"
	"path/filepath"
)

const (
	systemTemplates  = "/etc/agentcube/templates"
	systemConfigFile = "/etc/agentcube/config.yaml"
)

// paths are the places that depend on who runs AgentCube. An empty one could
// not be told; Validate then asks for the setting.
type paths struct {
	data, token string
	configFiles []string
}

// newPaths follows the XDG base directory specification, which has relative
// values ignored. Root keeps its state where services do.
func newPaths(env map[string]string, euid int) paths {
	home := env["HOME"]
	if home == "" && euid == 0 {
		home = "/root" // service managers start root's services without HOME
	}
	base := func(variable, underHome string) string {
		if dir := env[variable]; filepath.IsAbs(dir) {
			return dir
		}
		if filepath.IsAbs(home) {
			return filepath.Join(home, underHome)
		}
		return ""
	}
	var p paths
	if euid == 0 {
		p.data = "/var/lib/agentcube"
	} else if state := base("XDG_STATE_HOME", ".local/state"); state != "" {
		p.data = filepath.Join(state, "agentcube")
	}
	if conf := base("XDG_CONFIG_HOME", ".config"); conf != "" {
		p.token = filepath.Join(conf, "agentcube", "token")
		p.configFiles = append(p.configFiles, filepath.Join(conf, "agentcube", "config.yaml"))
	}
	p.configFiles = append(p.configFiles, systemConfigFile)
	return p
}

func (c *Config) templateDir() string {
	if info, err := os.Stat(systemTemplates); err == nil && info.IsDir() {
		return systemTemplates
	}
	return filepath.Join(c.DataDir, "templates")
}

// SessionStorePath is the file of the session store.
func (c *Config) SessionStorePath() string { return filepath.Join(c.DataDir, "sessions.db") }

// InstallationPath is the file with what tells this data folder from all others.
func (c *Config) InstallationPath() string { return filepath.Join(c.DataDir, "installation") }

// BootstrapKeyPath is the private key that signs init tokens.
func (c *Config) BootstrapKeyPath() string { return filepath.Join(c.DataDir, "keys", "bootstrap.pem") }

// RouterKeyPath is the private key that signs for managed sessions.
func (c *Config) RouterKeyPath() string { return filepath.Join(c.DataDir, "keys", "router.pem") }

// AuditDir is the folder of the audit record.
func (c *Config) AuditDir() string { return filepath.Join(c.DataDir, "audit") }

// ImageDir holds the imported images.
func (c *Config) ImageDir() string { return filepath.Join(c.DataDir, "images") }

// SandboxDir holds what belongs to the sandboxes.
func (c *Config) SandboxDir() string { return filepath.Join(c.DataDir, "sandboxes") }

// Where Kubernetes puts the tokens of a Pod.
const (
	// ProjectedTokenFile is for a token that is good for AgentCube alone, where the Pod
	// asks for one.
	ProjectedTokenFile = "/var/run/secrets/agentcube/token"
	// ServiceAccountTokenFile is in nearly every Pod.
	ServiceAccountTokenFile = "/var/run/secrets/kubernetes.io/serviceaccount/token"
)

// Kubernetes is what the environment tells about a cluster.
type Kubernetes struct {
	// InCluster: this process runs in a Pod.
	InCluster bool
	// Kubeconfig is the list of files in KUBECONFIG, or "".
	Kubeconfig string
}

// Kubernetes returns what the environment tells about a cluster.
func (c *Config) Kubernetes() Kubernetes {
	return Kubernetes{
		InCluster:  c.env["KUBERNETES_SERVICE_HOST"] != "" && c.env["KUBERNETES_SERVICE_PORT"] != "",
		Kubeconfig: c.env["KUBECONFIG"],
	}
}
