package config

import (
	"path/filepath"
	"strings"

	"github.com/volcano-sh/agentcube/internal/auth/oidc/issuer"
	"github.com/volcano-sh/agentcube/internal/tlsfiles"
)

// validateTLS looks at what is served with, and what is shown to others.
func (c *Config) validateTLS(bad func(key, format string, args ...any)) {
	for key, path := range map[string]string{
		"tlsCertFile": c.TLSCertFile, "tlsKeyFile": c.TLSKeyFile, "tlsClientCaFile": c.TLSClientCAFile, "oidcCaFile": c.OIDCCAFile,
		"workloadManagerCaFile": c.WorkloadManagerCAFile, "workloadManagerCertFile": c.WorkloadManagerCertFile,
		"workloadManagerKeyFile": c.WorkloadManagerKeyFile,
	} {
		if path != "" && !filepath.IsAbs(path) {
			bad(key, "%q is not an absolute path", path)
		}
	}
	if (c.TLSCertFile == "") != (c.TLSKeyFile == "") {
		bad("tlsCertFile", "goes with tlsKeyFile: one of them is missing")
	}
	if c.TLSClientCAFile != "" && c.TLSCertFile == "" {
		bad("tlsClientCaFile", "goes with tlsCertFile, which is missing")
	}
	if (c.TLSClientCAFile == "") != (len(c.TLSClientNames) == 0) {
		bad("tlsClientNames", "goes with tlsClientCaFile: one of them is missing")
	}
	for _, name := range c.TLSClientNames {
		if _, err := tlsfiles.ParsePeer(name); err != nil {
			bad("tlsClientNames", "%v", err)
		}
	}
	if (c.WorkloadManagerCertFile == "") != (c.WorkloadManagerKeyFile == "") {
		bad("workloadManagerCertFile", "goes with workloadManagerKeyFile: one of them is missing")
	}
	if c.WorkloadManagerName != "" {
		if _, err := tlsfiles.ParsePeer(c.WorkloadManagerName); err != nil {
			bad("workloadManagerName", "%v", err)
		}
	}
	secured := c.WorkloadManagerCAFile + c.WorkloadManagerCertFile + c.WorkloadManagerName
	if secured != "" && !strings.HasPrefix(c.WorkloadManagerURL, "https://") {
		bad("workloadManagerUrl", "%q is not https, but it is said how that is secured", c.WorkloadManagerURL)
	}
}

// validateCallers looks at who is known by tokens of others.
func (c *Config) validateCallers(bad func(key, format string, args ...any)) {
	for key, value := range map[string]string{
		"oidcRoleClaim": c.OIDCRoleClaim, "oidcRequiredRole": c.OIDCRequiredRole, "oidcAdminRole": c.OIDCAdminRole, "oidcCaFile": c.OIDCCAFile,
	} {
		if value != "" && c.OIDCIssuer == "" {
			bad(key, "goes with oidcIssuer, which is missing")
		}
	}
	if c.OIDCIssuer == "" {
		return
	}
	if err := issuer.Check(c.OIDCIssuer); err != nil {
		bad("oidcIssuer", "%q: %v", c.OIDCIssuer, err)
	}
	if c.OIDCRoleClaim == "" && c.OIDCRequiredRole+c.OIDCAdminRole != "" {
		bad("oidcRoleClaim", "is empty, but a role is wanted")
	}
}
