package config

import (
	"log/slog"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/pflag"
)

// field is one setting: its key, and what is special about it. Value, default
// and usage are those of the flag of the same name.
type field struct {
	key     string
	moreEnv []string // names that clients before AgentCube's own know
	path    bool
	secret  bool
}

func (f field) envNames() []string {
	name := "AGENTCUBE_" + strings.ToUpper(strings.ReplaceAll(kebab(f.key), "-", "_"))
	return append([]string{name}, f.moreEnv...)
}

// kebab turns dataDir into data-dir.
func kebab(key string) string {
	var b strings.Builder
	for _, r := range key {
		if unicode.IsUpper(r) {
			b.WriteByte('-')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

// define sets every default. It is the one list of all settings.
func (c *Config) define(p paths) {
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	c.flags = fs
	add := func(f field) string {
		c.fields = append(c.fields, f)
		return kebab(f.key)
	}
	key := func(k string) string { return add(field{key: k}) }
	path := func(k string) string { return add(field{key: k, path: true}) }

	fs.StringVar(&c.Listen, key("listen"), "127.0.0.1:8080", "address to serve on, as host:port")
	fs.BoolVar(&c.AllowNonLoopback, key("allowNonLoopback"), false, "permit an address that other machines can reach")
	fs.Var(&c.AllowedHosts, key("allowedHosts"), "names by which clients call this machine, such as cube.example; localhost and its addresses need not be there")
	fs.StringVar(&c.TLSCertFile, path("tlsCertFile"), "", "file with the certificate, in PEM, to serve with; without: plain text")
	fs.StringVar(&c.TLSKeyFile, path("tlsKeyFile"), "", "file with the key of that certificate")
	fs.StringVar(&c.TLSClientCAFile, path("tlsClientCaFile"), "", "file with the authorities, in PEM, of which clients need a certificate; without: they need none")
	fs.Var(&c.TLSClientNames, key("tlsClientNames"), "who the clients are, by SPIFFE IDs or names of hosts in their certificates")
	fs.StringVar(&c.DataDir, path("dataDir"), p.data, "folder of the session store, keys, images and sandboxes")
	fs.StringVar(&c.TemplateDir, path("templateDir"), "", "folder of template files (default /etc/agentcube/templates if it exists, else <data-dir>/templates)")
	fs.StringVar(&c.TokenFile, path("tokenFile"), p.token, "file with the local token")
	c.defineCallers(fs, key, path)
	fs.StringVar(&c.Store, key("store"), "sqlite", "where sessions are kept: sqlite, in a file, or redis, on a server, Redis or Valkey")
	fs.StringVar(&c.RedisURL, key("redisUrl"), "", "address of that server, such as rediss://user@redis.example:6379")
	fs.StringVar(&c.RedisPasswordFile, path("redisPasswordFile"), "", "file with its password")
	fs.StringVar(&c.RedisCAFile, path("redisCaFile"), "", "file with the authorities, in PEM, that its certificate is signed by; without: the machine's")
	fs.StringVar(&c.RedisCertFile, path("redisCertFile"), "", "file with the certificate, in PEM, that it is shown")
	fs.StringVar(&c.RedisKeyFile, path("redisKeyFile"), "", "file with the key of that certificate")
	fs.StringVar(&c.RedisPrefix, key("redisPrefix"), "agentcube:", "what the names of all keys there begin with; each installation has its own")
	fs.DurationVar(&c.RedisTimeout, key("redisTimeout"), 2*time.Second, "how long one answer of it may take; a call is tried for three times that")
	fs.TextVar(&c.LogLevel, key("logLevel"), slog.LevelInfo, "least level that is logged: debug, info, warn or error")
	fs.StringVar(&c.LogFormat, key("logFormat"), "text", "text or json")

	fs.StringVar(&c.DefaultImage, key("defaultImage"), "agentcube/python:latest", "image of templates that name none")
	fs.StringVar(&c.Platform, key("platform"), "systrap", "how gVisor intercepts system calls: systrap, kvm, or auto for kvm where it works")
	fs.IntVar(&c.MaxSandboxes, key("maxSandboxes"), 0, "most sandboxes at once; 0: as memory allows")
	fs.Var(&c.MemoryBudget, key("memoryBudget"), "most memory that all sandboxes together may use, such as 8Gi; 0: 85 % of what the machine has")
	fs.IntVar(&c.Standby, key("standby"), 2, "for how many templates, those used last, a process waits ready for the next start or resume, some 15 MiB each; 0: none")
	fs.Var(&c.SnapshotBudget, key("snapshotBudget"), "most disk that paused sessions, checkpoints and prepared templates may take, such as 50Gi; 0: all but what is kept free")
	fs.IntVar(&c.MaxSessionsPerOwner, key("maxSessionsPerOwner"), 0, "most living sessions of one owner; 0: no bound")
	fs.IntVar(&c.MaxConcurrentRequests, key("maxConcurrentRequests"), 1000, "most requests in flight, in each Router; 0: no bound")
	fs.IntVar(&c.MaxRequestsPerOwner, key("maxRequestsPerOwner"), 800, "most requests of one owner in flight to sandboxes, in each Router; 0: no bound")
	fs.IntVar(&c.MaxCreateRatePerOwner, key("maxCreateRatePerOwner"), 100, "most sessions and checkpoints of one owner made a second, on average over ten; 0: no bound")
	fs.IntVar(&c.MaxConnections, key("maxConnections"), 4096, "most connections of clients; 0: no bound")

	fs.BoolVar(&c.Audit, key("audit"), true, "keep a record of who has done what, in <data-dir>/audit")
	fs.BoolVar(&c.AuditContent, key("auditContent"), false, "record the first 64 KiB of each request and answer too, where they are not encrypted from end to end")
	c.AuditMaxSize = 1 << 30
	fs.Var(&c.AuditMaxSize, key("auditMaxSize"), "most disk that the record may take, such as 1Gi; the oldest lines go; 0: no bound")

	fs.StringVar(&c.MetricsListen, key("metricsListen"), "", "address to serve metrics for Prometheus on, as host:port, at /metrics; empty: none")
	fs.BoolVar(&c.Tracing, key("tracing"), false, "send traces to an OpenTelemetry collector")
	fs.StringVar(&c.TracingEndpoint, add(field{key: "tracingEndpoint", moreEnv: []string{"OTEL_EXPORTER_OTLP_ENDPOINT"}}),
		"http://localhost:4318", "where that takes OTLP over HTTP; /v1/traces is added")
	fs.Float64Var(&c.TracingSampleRatio, key("tracingSampleRatio"), 1, "which part of the traces is recorded, from 0 to 1")

	fs.IntVar(&c.MaxParallelStarts, key("maxParallelStarts"), 0, "most sandboxes being made or resumed at once; 0: twice the number of cores")

	fs.DurationVar(&c.SandboxCreateTimeout, key("sandboxCreateTimeout"), 2*time.Minute, "longest time that making a sandbox may take")
	fs.DurationVar(&c.ShutdownTimeout, key("shutdownTimeout"), 15*time.Second, "longest time that requests in flight may go on at shutdown")
	fs.DurationVar(&c.EndedRetention, key("endedRetention"), 24*time.Hour, "how long the record of an ended session is kept")
	fs.DurationVar(&c.CheckpointRetention, key("checkpointRetention"), 7*24*time.Hour, "how long a checkpoint is kept after its last use; 0: for ever")
	fs.BoolVar(&c.KeepSessions, key("keepSessions"), false, "leave sandboxes running at shutdown, for the next start to adopt")

	fs.StringVar(&c.WorkloadManagerURL, add(field{key: "workloadManagerUrl", moreEnv: []string{"WORKLOAD_MANAGER_URL", "WORKLOADMANAGER_URL"}}),
		"http://localhost:8080", "where the client finds the Workload Manager")
	fs.StringVar(&c.RouterURL, add(field{key: "routerUrl", moreEnv: []string{"ROUTER_URL"}}),
		"http://localhost:8080", "where the client finds the Router")
	fs.StringVar(&c.WorkloadManagerCAFile, path("workloadManagerCaFile"), "", "file with the authorities, in PEM, of the Workload Manager's certificate, for the Router; without: the machine's")
	fs.StringVar(&c.WorkloadManagerName, key("workloadManagerName"), "", "who that certificate has to be of, by SPIFFE ID or name of a host; without: the host of workloadManagerUrl")
	fs.StringVar(&c.WorkloadManagerCertFile, path("workloadManagerCertFile"), "", "file with the certificate, in PEM, that the Router shows the Workload Manager")
	fs.StringVar(&c.WorkloadManagerKeyFile, path("workloadManagerKeyFile"), "", "file with the key of that certificate")
	fs.StringVar(&c.APIToken, add(field{key: "apiToken", moreEnv: []string{"API_TOKEN"}, secret: true}),
		"", "token the client shows instead of the local one")

	c.defineCluster(fs, key, path)

	// Not a setting, as it says where the settings are.
	fs.StringVar(&c.file, "config", "", "configuration file (default "+strings.Join(p.configFiles, ", then ")+")")
}

// defineCallers is define for those who are known by tokens of others.
func (c *Config) defineCallers(fs *pflag.FlagSet, key, path func(string) string) {
	fs.StringVar(&c.OIDCIssuer, key("oidcIssuer"), "", "URL of the OpenID provider whose access tokens are taken, such as https://login.example/realms/cube; without: none")
	fs.StringVar(&c.OIDCAudience, key("oidcAudience"), "agentcube-api", "audience that they have to be for; empty: any, and so every other service's too")
	fs.StringVar(&c.OIDCRoleClaim, key("oidcRoleClaim"), "", "claim that lists the roles of their holder, or a path to it, such as realm_access.roles")
	fs.StringVar(&c.OIDCRequiredRole, key("oidcRequiredRole"), "", "role without which nobody is let in")
	fs.StringVar(&c.OIDCAdminRole, key("oidcAdminRole"), "", "role that makes an administrator")
	fs.StringVar(&c.OIDCCAFile, path("oidcCaFile"), "", "file with the authorities, in PEM, of the provider's certificate; without: the machine's")
	c.KubeTokenAudiences = List{"agentcube"}
	fs.Var(&c.KubeTokenAudiences, key("kubeTokenAudiences"), "audiences of which tokens of service accounts need one; with that of the API server, such as https://kubernetes.default.svc, those do that every Pod has")
	fs.BoolVar(&c.KubeAccessReviews, key("kubeAccessReviews"), true, "have the cluster's Roles say who may use which template")
	fs.DurationVar(&c.KubeCacheTime, key("kubeCacheTime"), time.Minute, "how old an answer of the API server about a token or a right may be")
}
