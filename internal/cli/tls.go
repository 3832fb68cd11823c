package cli

import (
	"context"
	"crypto/tls"
	"log/slog"

	"github.com/volcano-sh/agentcube/internal/config"
	"github.com/volcano-sh/agentcube/internal/tlsfiles"
)

// openFiles makes TLS files that are there, with peers by their names.
func openFiles(ctx context.Context, of tlsfiles.Config, peers ...string) (*tlsfiles.Files, error) {
	for _, name := range peers {
		peer, err := tlsfiles.ParsePeer(name)
		if err != nil {
			return nil, err
		}
		of.Peers = append(of.Peers, peer)
	}
	files, err := tlsfiles.New(of)
	if err != nil {
		return nil, err
	}
	return files, files.Open(ctx)
}

// servedTLS is what the listener is served with; nil is plain text.
func servedTLS(ctx context.Context, cfg *config.Config, log *slog.Logger) (*tls.Config, error) {
	if cfg.TLSCertFile == "" {
		return nil, nil
	}
	files, err := openFiles(ctx, tlsfiles.Config{
		CertFile: cfg.TLSCertFile, KeyFile: cfg.TLSKeyFile, CAFile: cfg.TLSClientCAFile, Logger: log,
	}, cfg.TLSClientNames...)
	if err != nil {
		return nil, err
	}
	return files.Server("h2", "http/1.1")
}

// managerTLS is how the Router speaks to the Workload Manager; nil is as the machine
// does with everybody.
func managerTLS(ctx context.Context, cfg *config.Config, log *slog.Logger) (*tls.Config, error) {
	if cfg.WorkloadManagerCAFile+cfg.WorkloadManagerCertFile+cfg.WorkloadManagerName == "" {
		return nil, nil
	}
	var peers []string
	if cfg.WorkloadManagerName != "" {
		peers = append(peers, cfg.WorkloadManagerName)
	}
	files, err := openFiles(ctx, tlsfiles.Config{
		CertFile: cfg.WorkloadManagerCertFile, KeyFile: cfg.WorkloadManagerKeyFile, CAFile: cfg.WorkloadManagerCAFile, Logger: log,
	}, peers...)
	if err != nil {
		return nil, err
	}
	return files.Client(), nil
}
