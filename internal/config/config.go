package config

import (
	"errors"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/volcano-sh/agentcube/internal/session/redis/address"
)

// Config is every setting. The fields are read after Load; they are not
// changed by anything but New, the flags and Load.
type Config struct {
	// Listen is the host:port that Workload Manager and Router serve on.
	Listen string
	// AllowNonLoopback permits a Listen address that other machines reach.
	AllowNonLoopback bool
	// AllowedHosts are names, without port, by which requests may call this
	// machine besides localhost, the host of Listen, and the address that they
	// were sent to. Web pages can make up all others.
	AllowedHosts Hosts
	// TLSCertFile and TLSKeyFile hold what Listen is served with; without, it is plain
	// text.
	TLSCertFile, TLSKeyFile string
	// TLSClientCAFile holds the authorities of which clients need a certificate, and
	// TLSClientNames are those of whom one has to be in it, as tlsfiles.Peer.
	TLSClientCAFile string
	TLSClientNames  List
	// DataDir holds the session store, keys, images and sandboxes.
	DataDir string
	// TemplateDir is the folder of CodeInterpreter and AgentRuntime files.
	TemplateDir string
	// TokenFile holds the token that callers on this machine show.
	TokenFile string

	// OIDCIssuer is the URL of the OpenID provider whose access tokens are taken; "" is
	// none. See oidc.Config for the others.
	OIDCIssuer, OIDCAudience, OIDCRoleClaim, OIDCRequiredRole, OIDCAdminRole string
	// OIDCCAFile holds the authorities of its certificate; "" are the machine's.
	OIDCCAFile string

	// KubeTokenAudiences are those of which the token of a service account needs one.
	KubeTokenAudiences List
	// KubeAccessReviews has the cluster's Roles say who may use which template. Without,
	// every service account may use all.
	KubeAccessReviews bool
	// KubeCacheTime is how old an answer of the API server may be.
	KubeCacheTime time.Duration

	// Store is where sessions are kept: "sqlite", in a file of DataDir, or "redis",
	// on the server of RedisURL, which Valkey may be as well.
	Store string
	// RedisURL is the address of that server; see internal/session/redis/address.
	RedisURL string
	// RedisPasswordFile holds its password; "" means that it wants none.
	RedisPasswordFile string
	// RedisCAFile holds whom its certificate is signed by, RedisCertFile and
	// RedisKeyFile are what it is shown; "" are the machine's authorities, and nothing.
	RedisCAFile, RedisCertFile, RedisKeyFile string
	// RedisPrefix begins the names of all keys there.
	RedisPrefix string
	// RedisTimeout is how long one answer of it may take.
	RedisTimeout time.Duration

	LogLevel slog.Level
	// LogFormat is "text" or "json".
	LogFormat string

	// DefaultImage is the image of templates that name none.
	DefaultImage string
	// Platform is gVisor's: "systrap", "kvm" or "auto".
	Platform string
	// MaxSandboxes bounds the sandboxes that exist at once; 0 means that
	// memory alone decides.
	MaxSandboxes int
	// MemoryBudget bounds the memory of all sandboxes together, in bytes; the
	// kernel holds it. Their limits may add up to four times that. 0 means
	// 85 % of what the machine has.
	MemoryBudget Bytes
	// SnapshotBudget bounds what paused sessions, checkpoints and prepared
	// templates take on disk together, in bytes; 0 means as much as the disk has.
	SnapshotBudget Bytes
	// Standby is for how many templates, those used last, a process of the sandbox
	// kernel waits ready for the next start or resume; 0: none.
	Standby int
	// MaxSessionsPerOwner bounds the living sessions of one owner; 0 means no bound.
	MaxSessionsPerOwner int
	// MaxConcurrentRequests bounds requests in flight on /v1; 0 means no bound.
	MaxConcurrentRequests int
	// MaxRequestsPerOwner bounds those to sandboxes of one owner, so that the
	// others have a part of MaxConcurrentRequests; 0 means no bound.
	MaxRequestsPerOwner int
	// MaxCreateRatePerOwner bounds the sessions and checkpoints that one owner may
	// have made a second, on average over ten seconds; 0 means no bound.
	MaxCreateRatePerOwner int
	// MaxConnections bounds the connections of clients; those without a request
	// make room for others. 0 means no bound.
	MaxConnections int

	// Audit keeps a record of what is done, below DataDir.
	Audit bool
	// AuditContent has the beginnings of the requests and answers recorded too that
	// the Router can read.
	AuditContent bool
	// AuditMaxSize bounds the record, in bytes; the oldest lines go. 0 means no bound.
	AuditMaxSize Bytes

	// MetricsListen is the host:port that metrics are served on, for Prometheus; ""
	// means that they are not.
	MetricsListen string
	// Tracing has the steps of requests sent to an OpenTelemetry collector at
	// TracingEndpoint, a URL to which /v1/traces is added. TracingSampleRatio is which
	// part of the traces, from 0 to 1.
	Tracing            bool
	TracingEndpoint    string
	TracingSampleRatio float64

	// MaxParallelStarts bounds the sandboxes that are made or resumed at the
	// same time; others wait for their turn. 0 means twice the number of cores.
	MaxParallelStarts int

	// SandboxCreateTimeout bounds the making of one sandbox.
	SandboxCreateTimeout time.Duration
	// ShutdownTimeout is how long requests in flight may go on after SIGTERM.
	ShutdownTimeout time.Duration
	// EndedRetention is how long the record of an ended session is kept.
	EndedRetention time.Duration
	// CheckpointRetention is how long a checkpoint is kept after its last use;
	// 0 means for ever.
	CheckpointRetention time.Duration
	// KeepSessions leaves the sandboxes running at a clean shutdown, for the
	// next start to adopt. Otherwise they are ended with fate host-lost. Those
	// that are paused stay in any case.
	KeepSessions bool

	// WorkloadManagerURL and RouterURL are where the command-line client goes.
	WorkloadManagerURL string
	RouterURL          string
	// WorkloadManagerCAFile holds the authorities of the Workload Manager's certificate,
	// for the Router; "" are the machine's. WorkloadManagerName is whose it has to be, as
	// tlsfiles.Peer; "" is the host in WorkloadManagerURL. WorkloadManagerCertFile and
	// WorkloadManagerKeyFile are what the Router shows itself.
	WorkloadManagerCAFile, WorkloadManagerCertFile, WorkloadManagerKeyFile, WorkloadManagerName string
	// APIToken is what the client shows instead of the content of TokenFile.
	APIToken string

	// Cluster are the settings of the parts that run in one.
	Cluster Cluster

	// NoColor is set by NO_COLOR and by TERM=dumb.
	NoColor bool
	// NotifySocket is where a service manager wants to be told of changes of
	// state: the NOTIFY_SOCKET of sd_notify(3), or "".
	NotifySocket string

	file     string // the configuration file: asked for, then found
	env      map[string]string
	flags    *pflag.FlagSet
	fields   []field
	origins  map[string]string
	problems []string
}

// New returns the defaults. environ is the environment as KEY=value, nil
// means that of the process; of it only the home and XDG folders, NO_COLOR,
// TERM and NOTIFY_SOCKET count here, the settings in it are taken by Load.
func New(environ []string) *Config {
	if environ == nil {
		environ = os.Environ()
	}
	c := &Config{env: map[string]string{}, origins: map[string]string{}}
	for _, kv := range environ {
		if name, value, ok := strings.Cut(kv, "="); ok {
			c.env[name] = value
		}
	}
	c.NoColor = c.env["NO_COLOR"] != "" || c.env["TERM"] == "dumb"
	c.NotifySocket = c.env["NOTIFY_SOCKET"]
	c.define(newPaths(c.env, os.Geteuid()))
	return c
}

// BindFlags adds the flag --config and one for each of the settings with the
// given keys, or for all when none is given; what fs already has stays. An
// unknown key is a defect of the caller: BindFlags panics.
func (c *Config) BindFlags(fs *pflag.FlagSet, keys ...string) {
	if len(keys) == 0 {
		for _, f := range c.fields {
			keys = append(keys, f.key)
		}
	}
	for _, name := range append(keys, "config") {
		if name = kebab(name); fs.Lookup(name) == nil {
			fs.AddFlag(c.flags.Lookup(name))
		}
	}
}

// Load adds the configuration file and the environment to what the flags have
// set. What is wrong in them is reported by Validate, except for a file that
// cannot be read, which is an error.
func (c *Config) Load() error {
	fileValues, err := c.readFile()
	if err != nil {
		return err
	}
	for _, f := range c.fields {
		c.resolve(f, fileValues)
	}
	for _, key := range slices.Sorted(maps.Keys(fileValues)) {
		if !c.known(key) {
			v := fileValues[key]
			c.problem("%s: %s: there is no such setting", v.origin, key)
		}
	}
	if c.origins["templateDir"] == "" {
		c.TemplateDir = c.templateDir()
	}
	return nil
}

// resolve gives one setting its value: that of the flag if it was given, else
// that of the environment, else that of the file.
func (c *Config) resolve(f field, fileValues map[string]fileValue) {
	flag := c.flags.Lookup(kebab(f.key))
	if flag.Changed {
		c.origins[f.key] = "flag --" + flag.Name
		if f.path {
			c.absolute(f.key, flag.Value)
		}
		return
	}
	for _, name := range f.envNames() {
		if value, ok := c.env[name]; ok && value != "" {
			c.set(f, flag.Value, value, "environment "+name)
			return
		}
	}
	if v, ok := fileValues[f.key]; ok {
		c.set(f, flag.Value, v.text, v.origin)
	}
}

func (c *Config) set(f field, v pflag.Value, text, origin string) {
	c.origins[f.key] = origin
	shown := text
	if f.secret {
		shown = "(secret)"
	}
	if err := v.Set(text); err != nil {
		c.problem("%s: %s: %q is not a valid %s", origin, f.key, shown, v.Type())
	}
}

// absolute makes a path that was typed on the command line absolute. Paths
// from elsewhere have no directory that they could be relative to.
func (c *Config) absolute(key string, v pflag.Value) {
	abs, err := filepath.Abs(v.String())
	if err != nil {
		c.problem("%s: %v", key, err)
		return
	}
	if err := v.Set(abs); err != nil {
		c.problem("%s: %v", key, err)
	}
}

// Setting is one setting for display.
type Setting struct {
	Key   string `json:"key"`
	Value string `json:"value"`
	// Source is "default", "file <path>:<line>", "environment <NAME>" or
	// "flag --<name>".
	Source string `json:"source"`
	Usage  string `json:"usage"`
	// Env and Flag are the other two spellings of Key.
	Env  string `json:"env"`
	Flag string `json:"flag"`
}

// Settings returns all settings in a fixed order, secrets blotted out.
func (c *Config) Settings() []Setting {
	out := make([]Setting, 0, len(c.fields))
	for _, f := range c.fields {
		flag := c.flags.Lookup(kebab(f.key))
		s := Setting{Key: f.key, Value: flag.Value.String(), Source: "default", Usage: flag.Usage, Env: f.envNames()[0], Flag: "--" + flag.Name}
		if origin := c.origins[f.key]; origin != "" {
			s.Source = origin
		}
		if f.key == "templateDir" {
			s.Value = c.TemplateDir
		}
		if f.secret && s.Value != "" {
			s.Value = "(set)"
		}
		if _, err := address.Parse(c.RedisURL); f.key == "redisUrl" && errors.Is(err, address.ErrPassword) {
			s.Value = "(set, with a password in it)"
		}
		out = append(out, s)
	}
	return out
}

// File is the configuration file that was read, or "".
func (c *Config) File() string { return c.file }

func (c *Config) known(key string) bool {
	return slices.ContainsFunc(c.fields, func(f field) bool { return f.key == key })
}
