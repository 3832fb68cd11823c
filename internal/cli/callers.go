package cli

import (
	"context"
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
		files, err := openFiles(ctx, tlsfiles.Config{CAFile: cfg.OIDCCAFile, Logger: log})
		if err != nil {
			return nil, err
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
