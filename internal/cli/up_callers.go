package cli

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"time"

	"github.com/volcano-sh/agentcube/internal/auth"
	"github.com/volcano-sh/agentcube/internal/auth/oidc"
	"github.com/volcano-sh/agentcube/internal/config"
	"github.com/volcano-sh/agentcube/internal/tlsfiles"
)

// reachTimeout bounds how long a start waits for an OpenID provider.
const reachTimeout = 2 * time.Second

// callers are those whom both planes know: the holders of the local token and of
// others that were made here, and whom an OpenID provider knows, if there is one.
func (s *server) callers(ctx context.Context, token string, tokens *auth.Tokens) (auth.Authenticator, error) {
	known := auth.Chain{auth.NewLocal(token), tokens}
	if s.cfg.OIDCIssuer == "" {
		return known, nil
	}
	provider, err := openIDProvider(ctx, s.cfg, s.log)
	if err != nil {
		return nil, err
	}
	return append(known, provider), nil
}

// openIDProvider makes the provider of the settings. That it cannot be reached now is
// no error.
func openIDProvider(ctx context.Context, cfg *config.Config, log *slog.Logger) (*oidc.Provider, error) {
	of := oidc.Config{
		Issuer: cfg.OIDCIssuer, Audience: cfg.OIDCAudience,
		RoleClaim: cfg.OIDCRoleClaim, RequiredRole: cfg.OIDCRequiredRole, AdminRole: cfg.OIDCAdminRole,
	}
	if cfg.OIDCCAFile != "" {
		files, err := tlsfiles.New(tlsfiles.Config{CAFile: cfg.OIDCCAFile, Logger: log})
		if err == nil {
			err = files.Open(ctx)
		}
		if err != nil {
			return nil, fmt.Errorf("connect to OpenID provider: %w", err)
		}
		of.TLS = files.Client()
	}
	provider, err := oidc.New(of)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, reachTimeout)
	defer cancel()
	if err := provider.Reach(ctx); err != nil {
		log.Warn("OpenID provider not reached; its tokens cannot be checked until it is", "issuer", cfg.OIDCIssuer, "error", err)
	}
	return provider, nil
}

// openTLS has the listener served with TLS, if there is a certificate.
func (s *server) openTLS(ctx context.Context) (func() error, error) {
	var err error
	s.web.TLS, err = serverTLS(ctx, s.cfg, s.log)
	return nil, err
}

// serverTLS is what a listener is served with; nil when there is no certificate.
func serverTLS(ctx context.Context, cfg *config.Config, log *slog.Logger) (*tls.Config, error) {
	if cfg.TLSCertFile == "" {
		return nil, nil
	}
	of := tlsfiles.Config{CertFile: cfg.TLSCertFile, KeyFile: cfg.TLSKeyFile, CAFile: cfg.TLSClientCAFile, Logger: log}
	for _, name := range cfg.TLSClientNames {
		peer, err := tlsfiles.ParsePeer(name)
		if err != nil {
			return nil, err
		}
		of.Peers = append(of.Peers, peer)
	}
	files, err := tlsfiles.New(of)
	if err == nil {
		err = files.Open(ctx)
	}
	if err != nil {
		return nil, err
	}
	return files.Server("h2", "http/1.1")
}

// managerTLS is what the Router speaks to the Workload Manager with; nil when the
// settings say nothing about it.
func managerTLS(ctx context.Context, cfg *config.Config, log *slog.Logger) (*tls.Config, error) {
	if cfg.WorkloadManagerCAFile == "" && cfg.WorkloadManagerCertFile == "" && cfg.WorkloadManagerName == "" {
		return nil, nil
	}
	of := tlsfiles.Config{CertFile: cfg.WorkloadManagerCertFile, KeyFile: cfg.WorkloadManagerKeyFile, CAFile: cfg.WorkloadManagerCAFile, Logger: log}
	if cfg.WorkloadManagerName != "" {
		peer, err := tlsfiles.ParsePeer(cfg.WorkloadManagerName)
		if err != nil {
			return nil, err
		}
		of.Peers = []tlsfiles.Peer{peer}
	}
	files, err := tlsfiles.New(of)
	if err == nil {
		err = files.Open(ctx)
	}
	if err != nil {
		return nil, err
	}
	return files.Client(), nil
}
