package cli

import (
	"context"
	"crypto/rsa"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"github.com/volcano-sh/agentcube/internal/auth"
	"github.com/volcano-sh/agentcube/internal/metrics"
	"github.com/volcano-sh/agentcube/internal/remote"
	"github.com/volcano-sh/agentcube/internal/router"
)

// recordAge is how old what a Router knows of a session may be.
const recordAge = time.Second

func newRouter(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "router",
		Short: "Run the data plane on Kubernetes, one of several",
		Long: "Router carries the requests of clients to the sandboxes of their sessions, which it\n" +
			"finds in the store that all parts share. Any number of them do the same; the chart in\n" +
			"deploy/chart runs two. SIGTERM ends it when the requests under way are done.",
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := a.cfg.ValidateCluster("redisUrl", "routerKeyFile", "workloadManagerUrl"); err != nil {
				return err
			}
			return (&dataPlane{member: newMember(a, metrics.Router)}).run(cmd.Context())
		},
	}
	a.cfg.BindFlags(cmd.Flags(), append(clusterSettings(),
		"workloadManagerUrl", "workloadManagerCaFile", "workloadManagerName", "workloadManagerCertFile", "workloadManagerKeyFile", "routerKeyFile", "maxRequestsPerOwner", "auditContent")...)
	return cmd
}

// dataPlane is the Router in a process of its own.
type dataPlane struct {
	*member
	signing *rsa.PrivateKey
	router  *router.Router
}

func (d *dataPlane) run(ctx context.Context) (err error) {
	var undo undoing
	defer func() { err = errors.Join(err, undo.all()) }()
	for _, step := range []func(context.Context) (func() error, error){d.open, d.openAudit, d.openTelemetry, d.openRouter} {
		back, err := step(ctx)
		undo.add(back)
		if err != nil {
			return err
		}
	}
	d.web.OnTLS, d.web.OnDrain = d.router.Splice, d.router.Drain
	return d.serve(ctx, d.router)
}

func (d *dataPlane) openTelemetry(ctx context.Context) (func() error, error) {
	var err error
	if d.signing, err = auth.ReadRSAKey(d.cfg.Cluster.RouterKeyFile); err != nil {
		return nil, err
	}
	return d.member.openTelemetry(ctx, &d.signing.PublicKey)
}

func (d *dataPlane) openRouter(ctx context.Context) (func() error, error) {
	store := d.shared()
	callers, rights, err := d.callers(ctx, auth.NewTokens(store, nil))
	if err != nil {
		return nil, err
	}
	secured, err := managerTLS(ctx, d.cfg, d.log)
	if err != nil {
		return nil, err
	}
	makers, err := remote.New(remote.Config{URL: d.cfg.WorkloadManagerURL, Transport: remote.NewTransport(secured)})
	if err != nil {
		return nil, err
	}
	d.router = d.telemetry.router(router.Config{
		Sessions: store, Dialer: router.ByAddress{}, Creator: makers, Waker: makers, Authenticator: callers, Authorizer: rights,
		SigningKey: d.signing, Logger: d.log, MaxConcurrent: d.cfg.MaxConcurrentRequests, MaxPerOwner: d.cfg.MaxRequestsPerOwner,
		MaxRecordAge: recordAge, Audit: d.audit, AuditContent: d.cfg.AuditContent,
	})
	return func() error {
		d.router.Close()
		makers.Close()
		return nil
	}, nil
}
