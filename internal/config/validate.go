package config

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/volcano-sh/agentcube/internal/session/redis/address"
)

// minAuditSize is the least AuditMaxSize in bytes: four files of a few lines each.
const minAuditSize = 4 << 20

// Error lists everything that is wrong with the settings.
type Error struct {
	Problems []string
}

// Error implements error: one problem per line.
func (e *Error) Error() string {
	return "invalid configuration: " + strings.Join(e.Problems, "\n")
}

// Hint says what to do next.
func (e *Error) Hint() string {
	return "\"agentcube config print\" shows each setting and where it comes from"
}

func (c *Config) problem(format string, args ...any) {
	c.problems = append(c.problems, fmt.Sprintf(format, args...))
}

// Validate returns an *Error with all problems of the settings and of what
// Load read, or nil.
func (c *Config) Validate() error {
	e := &Error{Problems: slices.Clone(c.problems)}
	bad := func(key, format string, args ...any) {
		where := key
		if origin := c.origins[key]; origin != "" {
			where = origin + ": " + key
		}
		e.Problems = append(e.Problems, where+": "+fmt.Sprintf(format, args...))
	}
	if host, problem := splitListen(c.Listen); problem != "" {
		bad("listen", "%s", problem)
	} else if !loopback(host) && !c.AllowNonLoopback {
		bad("listen", "%s can be reached from other machines; set allowNonLoopback to permit it", c.Listen)
	}
	c.validateTelemetry(bad)
	for key, path := range map[string]string{"dataDir": c.DataDir, "templateDir": c.TemplateDir, "tokenFile": c.TokenFile} {
		if !filepath.IsAbs(path) {
			bad(key, "%q is not an absolute path", path)
		}
	}
	oneOf := func(key, value string, allowed ...string) {
		if !slices.Contains(allowed, value) {
			bad(key, "%q is not one of %s", value, strings.Join(allowed, ", "))
		}
	}
	oneOf("logFormat", c.LogFormat, "text", "json")
	oneOf("store", c.Store, "sqlite", "redis")
	c.validateRedis(bad)
	c.validateTLS(bad)
	c.validateCallers(bad)
	oneOf("platform", c.Platform, "systrap", "kvm", "auto")
	for key, n := range map[string]int64{
		"maxSandboxes": int64(c.MaxSandboxes), "memoryBudget": int64(c.MemoryBudget), "snapshotBudget": int64(c.SnapshotBudget), "standby": int64(c.Standby), "auditMaxSize": int64(c.AuditMaxSize),
		"maxSessionsPerOwner": int64(c.MaxSessionsPerOwner), "maxConcurrentRequests": int64(c.MaxConcurrentRequests),
		"maxRequestsPerOwner": int64(c.MaxRequestsPerOwner), "maxCreateRatePerOwner": int64(c.MaxCreateRatePerOwner),
		"maxConnections": int64(c.MaxConnections), "maxParallelStarts": int64(c.MaxParallelStarts),
	} {
		if n < 0 {
			bad(key, "%d is less than 0", n)
		}
	}
	for key, d := range map[string]time.Duration{
		"sandboxCreateTimeout": c.SandboxCreateTimeout, "shutdownTimeout": c.ShutdownTimeout, "endedRetention": c.EndedRetention,
		"redisTimeout": c.RedisTimeout, "kubeCacheTime": c.KubeCacheTime,
	} {
		if d <= 0 {
			bad(key, "%v is not more than 0", d)
		}
	}
	if 0 < c.AuditMaxSize && c.AuditMaxSize < minAuditSize {
		bad("auditMaxSize", "%d is less than 4Mi", int64(c.AuditMaxSize))
	}
	if c.CheckpointRetention < 0 {
		bad("checkpointRetention", "%v is less than 0", c.CheckpointRetention)
	}
	for key, u := range map[string]string{"workloadManagerUrl": c.WorkloadManagerURL, "routerUrl": c.RouterURL} {
		if parsed, err := url.Parse(u); err != nil || parsed.Host == "" || parsed.Scheme != "http" && parsed.Scheme != "https" {
			bad(key, "%q is not an http or https URL", u)
		}
	}
	if c.DefaultImage == "" {
		bad("defaultImage", "is empty")
	}
	if len(e.Problems) == 0 {
		return nil
	}
	slices.Sort(e.Problems)
	return e
}

// validateTelemetry looks at what is told of metrics and traces.
func (c *Config) validateTelemetry(bad func(key, format string, args ...any)) {
	if c.MetricsListen != "" {
		switch host, problem := splitListen(c.MetricsListen); {
		case problem != "":
			bad("metricsListen", "%s", problem)
		case !loopback(host) && !c.AllowNonLoopback:
			bad("metricsListen", "%s can be reached from other machines; set allowNonLoopback to permit it", c.MetricsListen)
		case c.MetricsListen == c.Listen && !strings.HasSuffix(c.Listen, ":0"):
			bad("metricsListen", "%s is the address in listen; metrics have one of their own", c.MetricsListen)
		}
	}
	if u, err := url.Parse(c.TracingEndpoint); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		bad("tracingEndpoint", "is not an http or https URL")
	} else if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		bad("tracingEndpoint", "must not hold a user, a query or a fragment")
	}
	if !(0 <= c.TracingSampleRatio && c.TracingSampleRatio <= 1) { // nor NaN
		bad("tracingSampleRatio", "%v is not from 0 to 1", c.TracingSampleRatio)
	}
}

// validateRedis looks at the settings of the server that keeps sessions.
func (c *Config) validateRedis(bad func(key, format string, args ...any)) {
	for key, path := range map[string]string{
		"redisPasswordFile": c.RedisPasswordFile, "redisCaFile": c.RedisCAFile,
		"redisCertFile": c.RedisCertFile, "redisKeyFile": c.RedisKeyFile,
	} {
		if path != "" && !filepath.IsAbs(path) {
			bad(key, "%q is not an absolute path", path)
		}
	}
	if (c.RedisCertFile == "") != (c.RedisKeyFile == "") {
		bad("redisCertFile", "goes with redisKeyFile: one of them is missing")
	}
	if c.RedisPrefix == "" || strings.ContainsAny(c.RedisPrefix, "{}") {
		bad("redisPrefix", "must not be empty, and have no braces in it")
	}
	if c.RedisURL == "" {
		if c.Store == "redis" {
			bad("redisUrl", "is empty, but store is redis; it has the form %s", address.Forms)
		}
		return
	}
	if _, err := address.Parse(c.RedisURL); err != nil {
		bad("redisUrl", "%v", err)
	}
}

// HostNames are the names of this machine: AllowedHosts, and the host of Listen
// unless that stands for all addresses.
func (c *Config) HostNames() []string {
	names := slices.Clone([]string(c.AllowedHosts))
	host, problem := splitListen(c.Listen)
	if addr, err := netip.ParseAddr(host); problem != "" || host == "" || err == nil && addr.IsUnspecified() {
		return names
	}
	return append(names, host)
}

// splitListen returns the host of a listen address, or what is wrong with it.
func splitListen(address string) (host, problem string) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", fmt.Sprintf("%q is not host:port", address)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return "", fmt.Sprintf("port %q is not a number from 0 to 65535", port)
	}
	return host, ""
}

// loopback reports whether only this machine reaches host. Of names only
// "localhost" counts: what others mean is for the resolver to say.
func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}

// foreign are variables that begin like ours but belong to clients and charts.
var foreign = []string{"AGENTCUBE_CONFIG", "AGENTCUBE_NAMESPACE", "AGENTCUBE_API_TOKEN", "AGENTCUBE_SPIFFE_TRUST_DOMAIN"}

// Warnings are sentences about what is allowed but may not be meant.
func (c *Config) Warnings() []string {
	var out []string
	// In a cluster it is others that are meant to reach it.
	if host, problem := splitListen(c.Listen); problem == "" && !loopback(host) && !c.Kubernetes().InCluster {
		warning := fmt.Sprintf("listening on %s, which other machines can reach: whoever has the token can run code on this machine", c.Listen)
		if c.TLSCertFile == "" {
			warning += ", and requests travel unencrypted"
		}
		out = append(out, warning)
	}
	if host, problem := splitListen(c.MetricsListen); c.MetricsListen != "" && problem == "" && !loopback(host) {
		out = append(out, fmt.Sprintf("serving metrics on %s, which other machines can reach, to whoever asks: they tell how much goes on, and the names of templates", c.MetricsListen))
	}
	if c.RedisURL != "" && c.Store != "redis" {
		out = append(out, "redisUrl is set, but store is "+c.Store+": sessions are not kept on that server")
	}
	known := slices.Clone(foreign)
	for _, f := range c.fields {
		known = append(known, f.envNames()...)
	}
	for _, name := range slices.Sorted(maps.Keys(c.env)) {
		if strings.HasPrefix(name, "AGENTCUBE_") && !slices.Contains(known, name) {
			out = append(out, fmt.Sprintf("environment variable %s is not a setting and has no effect", name))
		}
	}
	return out
}
