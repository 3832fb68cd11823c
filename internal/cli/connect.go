package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
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
		PlainText:          a.plainText,
	}
	if a.server != "" {
		cfg.WorkloadManagerURL, cfg.RouterURL = a.server, a.server
	}
	if err := a.identify(&cfg); err != nil {
		return nil, err
	}
	c, err := client.New(cfg)
	if err != nil {
		return nil, &cliError{code: exitUsage, err: err}
	}
	return c, nil
}

// identify says who the client is, unless a token has been named: towards this
// machine whoever can read the local token, and in a Pod what Kubernetes says.
func (a *app) identify(cfg *client.Config) error {
	if cfg.Token != "" {
		return nil
	}
	var err error
	cfg.LocalToken, err = auth.ReadTokenFile(a.cfg.TokenFile)
	if a.cfg.Kubernetes().InCluster {
		files := podTokens{a.cfg.TokenFile, config.ProjectedTokenFile, config.ServiceAccountTokenFile}
		cfg.TokenSource = files.read
		if token, podErr := files.read(); podErr != nil || token != "" {
			return podErr // the token file may be the Pod's, and hold no local one
		}
	}
	// Without a file there is no token yet; the server says what it wants.
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// podTokens are the files in which a Pod may have a token.
type podTokens []string

// callersToken is what is sent to other machines: a token of Kubernetes or one of
// `agentcube token create`. Any other may be the key to one machine.
var callersToken = regexp.MustCompile(`^([A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+|act_[A-Za-z0-9_-]+)$`)

// read returns the first token that there is, or "". It is asked for each request, as
// Kubernetes replaces tokens before they expire.
func (p podTokens) read() (string, error) {
	for _, path := range p {
		raw, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("read token of the Pod: %w", err)
		}
		if token := strings.TrimSpace(string(raw)); callersToken.MatchString(token) {
			return token, nil
		}
	}
	return "", nil
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
