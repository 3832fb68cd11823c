package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/volcano-sh/agentcube/client"
	"github.com/volcano-sh/agentcube/internal/auth"
	"github.com/volcano-sh/agentcube/internal/config"
)

// connect makes the client that the settings ask for. The caller closes it.
func (a *app) connect() (*client.Client, error) {
	if err := a.cfg.Validate(); err != nil {
		return nil, err
	}
	cfg := client.Config{
		WorkloadManagerURL: a.cfg.WorkloadManagerURL,
		RouterURL:          a.cfg.RouterURL,
		Token:              a.cfg.APIToken,
		UserAgent:          "agentcube-cli/" + a.Version,
	}
	if a.server != "" {
		cfg.WorkloadManagerURL, cfg.RouterURL = a.server, a.server
	}
	var err error
	if cfg.Token == "" && a.cfg.Kubernetes().InCluster {
		if cfg.Token, err = serviceAccountToken(); err != nil {
			return nil, err
		}
	}
	if cfg.Token == "" {
		cfg.LocalToken, err = auth.ReadTokenFile(a.cfg.TokenFile)
		// Without a file there is no token yet; the server says what it wants.
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	c, err := client.New(cfg)
	if err != nil {
		return nil, &cliError{code: exitUsage, err: err}
	}
	return c, nil
}

func serviceAccountToken() (string, error) {
	raw, err := os.ReadFile(config.ServiceAccountTokenFile)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read service account token: %w", err)
	}
	return strings.TrimSpace(string(raw)), nil
}

// templateName takes "name" or "namespace/name" apart.
func templateName(ref string) (namespace, name string, err error) {
	namespace, name, found := strings.Cut(ref, "/")
	if !found {
		namespace, name = client.DefaultNamespace, ref
	}
	if namespace == "" || name == "" || strings.Contains(name, "/") {
		return "", "", &cliError{code: exitUsage, err: fmt.Errorf("template %q is not of the form name or namespace/name", ref)}
	}
	return namespace, name, nil
}

// keyValues takes "KEY=value" apart.
func keyValues(flag string, pairs []string) (map[string]string, error) {
	if len(pairs) == 0 {
		return nil, nil
	}
	out := make(map[string]string, len(pairs))
	for _, pair := range pairs {
		key, value, found := strings.Cut(pair, "=")
		if !found || key == "" {
			return nil, &cliError{code: exitUsage, err: fmt.Errorf("--%s %q is not of the form KEY=value", flag, pair)}
		}
		out[key] = value
	}
	return out, nil
}
