package config_test

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"github.com/volcano-sh/agentcube/internal/config"
)

// load makes a Config as a command does: defaults, then the arguments, then
// file (if any content is given) and environment.
func load(t *testing.T, file string, environ []string, args ...string) (*config.Config, error) {
	t.Helper()
	environ = append([]string{"HOME=" + t.TempDir()}, environ...)
	if file != "" {
		path := filepath.Join(t.TempDir(), "config.yaml")
		if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		environ = append(environ, "AGENTCUBE_CONFIG="+path)
	}
	c := config.New(environ)
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	c.BindFlags(flags)
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	return c, c.Load()
}

func mustLoad(t *testing.T, file string, environ []string, args ...string) *config.Config {
	t.Helper()
	c, err := load(t, file, environ, args...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func source(t *testing.T, c *config.Config, key string) (value, origin string) {
	t.Helper()
	for _, s := range c.Settings() {
		if s.Key == key {
			return s.Value, s.Source
		}
	}
	t.Fatalf("there is no setting %s", key)
	return "", ""
}

func TestDefaults(t *testing.T) {
	c := mustLoad(t, "", nil)
	if err := c.Validate(); err != nil {
		t.Fatalf("the defaults are not valid: %v", err)
	}
	if w := c.Warnings(); len(w) > 0 {
		t.Errorf("the defaults give warnings: %v", w)
	}
	got := map[string]any{
		"listen": c.Listen, "level": c.LogLevel, "format": c.LogFormat, "image": c.DefaultImage, "platform": c.Platform,
		"requests": c.MaxConcurrentRequests, "connections": c.MaxConnections, "owner": c.MaxRequestsPerOwner, "rate": c.MaxCreateRatePerOwner, "sandboxes": c.MaxSandboxes, "memory": int64(c.MemoryBudget),
		"create": c.SandboxCreateTimeout, "shutdown": c.ShutdownTimeout, "retention": c.EndedRetention,
		"keep": c.KeepSessions, "wm": c.WorkloadManagerURL, "router": c.RouterURL, "open": c.AllowNonLoopback,
	}
	want := map[string]any{
		"listen": "127.0.0.1:8080", "level": slog.LevelInfo, "format": "text", "image": "agentcube/python:latest", "platform": "systrap",
		"requests": 1000, "connections": 4096, "owner": 800, "rate": 100, "sandboxes": 0, "memory": int64(0),
		"create": 2 * time.Minute, "shutdown": 15 * time.Second, "retention": 24 * time.Hour,
		"keep": false, "wm": "http://localhost:8080", "router": "http://localhost:8080", "open": false,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, s := range c.Settings() {
		if s.Source != "default" || s.Usage == "" || s.Flag == "--" || !strings.HasPrefix(s.Env, "AGENTCUBE_") {
			t.Errorf("setting %+v", s)
		}
	}
}

// Flags win over the environment, that over the file, that over the defaults.
func TestPrecedence(t *testing.T) {
	const file = "# comment\nlogFormat: json\n\nplatform: kvm\nlisten: 127.0.0.1:1\nmaxSandboxes: 5\nkeepSessions: true\nshutdownTimeout: 3s\n"
	environ := []string{"AGENTCUBE_PLATFORM=auto", "AGENTCUBE_LISTEN=127.0.0.1:2", "AGENTCUBE_LOG_LEVEL=debug", "AGENTCUBE_MAX_SANDBOXES=", "AGENTCUBE_MEMORY_BUDGET=8Gi"}
	c := mustLoad(t, file, environ, "--listen=127.0.0.1:3", "--log-format", "text", "--allow-non-loopback")
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	tests := []struct{ key, value, source string }{
		{"listen", "127.0.0.1:3", "flag --listen"},
		{"logFormat", "text", "flag --log-format"}, // also when it is the default
		{"allowNonLoopback", "true", "flag --allow-non-loopback"},
		{"platform", "auto", "environment AGENTCUBE_PLATFORM"},
		{"logLevel", "DEBUG", "environment AGENTCUBE_LOG_LEVEL"},
		{"memoryBudget", "8Gi", "environment AGENTCUBE_MEMORY_BUDGET"},
		{"maxSandboxes", "5", "file " + c.File() + ":6"}, // an empty variable does not count
		{"keepSessions", "true", "file " + c.File() + ":7"},
		{"shutdownTimeout", "3s", "file " + c.File() + ":8"},
		{"defaultImage", "agentcube/python:latest", "default"},
	}
	for _, test := range tests {
		if value, from := source(t, c, test.key); value != test.value || from != test.source {
			t.Errorf("%s is %q from %q, want %q from %q", test.key, value, from, test.value, test.source)
		}
	}
	if c.MemoryBudget != 8<<30 || c.LogLevel != slog.LevelDebug || c.ShutdownTimeout != 3*time.Second {
		t.Errorf("fields differ from what is shown: %+v", c)
	}
}

func TestClientVariables(t *testing.T) {
	c := mustLoad(t, "", []string{"WORKLOADMANAGER_URL=http://a:1", "ROUTER_URL=https://b", "API_TOKEN=s3cret"})
	if c.WorkloadManagerURL != "http://a:1" || c.RouterURL != "https://b" || c.APIToken != "s3cret" {
		t.Errorf("got %q, %q", c.WorkloadManagerURL, c.RouterURL)
	}
	if value, from := source(t, c, "apiToken"); value != "(set)" || from != "environment API_TOKEN" {
		t.Errorf("apiToken is shown as %q from %q", value, from)
	}
	c = mustLoad(t, "", []string{"WORKLOADMANAGER_URL=http://a:1", "WORKLOAD_MANAGER_URL=http://a:2"})
	if c.WorkloadManagerURL != "http://a:2" {
		t.Errorf("got %q, want the spelling of newer clients to win", c.WorkloadManagerURL)
	}
}

// TestPasswordInAddress: it is refused, but may be there, and is not to be shown.
func TestPasswordInAddress(t *testing.T) {
	c := mustLoad(t, "", nil, "--redis-url=redis://cube:hunter2@host")
	if value, _ := source(t, c, "redisUrl"); value == "" || strings.Contains(value, "hunter2") {
		t.Errorf("redisUrl is shown as %q", value)
	}
	c = mustLoad(t, "redisUrl: redis://cube@host\n", nil)
	if value, _ := source(t, c, "redisUrl"); value != "redis://cube@host" {
		t.Errorf("redisUrl is shown as %q", value)
	}
	if warned := strings.Join(c.Warnings(), " "); !strings.Contains(warned, "redisUrl is set, but store is sqlite") {
		t.Errorf("warnings: %q", warned)
	}
}

func TestValidate(t *testing.T) {
	tests := []struct {
		name, file string
		environ    []string
		args       []string
		want       []string // parts of the problems, in their order
	}{
		{"many at once", "listen: 0.0.0.0:80\nlogFormat: xml\nnoSuch: 1\nmaxSandboxes: many\nplatform: [a]\nplatform: kvm\ndefaultImage:\nmemoryBudget: 8GB\n",
			[]string{"AGENTCUBE_SHUTDOWN_TIMEOUT=0s", "AGENTCUBE_LOG_LEVEL=loud"}, []string{"--max-concurrent-requests=-1", "--router-url=localhost"},
			[]string{
				`AGENTCUBE_LOG_LEVEL: logLevel: "loud" is not a valid`,
				`AGENTCUBE_SHUTDOWN_TIMEOUT: shutdownTimeout: 0s is not more than 0`,
				`:1: listen: 0.0.0.0:80 can be reached from other machines; set allowNonLoopback`,
				`:2: logFormat: "xml" is not one of text, json`,
				`:3: noSuch: there is no such setting`,
				`:4: maxSandboxes: "many" is not a valid int`,
				`:5: platform: want one plain value`,
				`:7: defaultImage: has no value`,
				`:8: memoryBudget: "8GB" is not a valid bytes`,
				`flag --max-concurrent-requests: maxConcurrentRequests: -1 is less than 0`,
				`flag --router-url: routerUrl: "localhost" is not an http or https URL`,
			}},
		{"limits of an owner", "maxRequestsPerOwner: -1\n", []string{"AGENTCUBE_MAX_CREATE_RATE_PER_OWNER=-2"}, nil, []string{
			"AGENTCUBE_MAX_CREATE_RATE_PER_OWNER: maxCreateRatePerOwner: -2 is less than 0", ":1: maxRequestsPerOwner: -1 is less than 0",
		}},
		{"store", "store: etcd\nredisPrefix: a{b}\nredisTimeout: 0s\nredisUrl: redis://cube:hunter2@host\n", []string{"AGENTCUBE_REDIS_CA_FILE=ca.pem"},
			[]string{"--redis-cert-file=/c"}, []string{
				`AGENTCUBE_REDIS_CA_FILE: redisCaFile: "ca.pem" is not an absolute path`, `:1: store: "etcd" is not one of sqlite, redis`,
				`:2: redisPrefix: must not be empty`, `:3: redisTimeout: 0s is not more than 0`, `:4: redisUrl: must hold no password; name a file that does`,
				"flag --redis-cert-file: redisCertFile: goes with redisKeyFile",
			}},
		{"TLS", "tlsCertFile: /c\ntlsClientCaFile: ca.pem\ntlsClientNames: spiffe://Cluster.local/a, router\n", nil, []string{"--workload-manager-key-file=/k"}, []string{
			`:1: tlsCertFile: goes with tlsKeyFile`, `:2: tlsClientCaFile: "ca.pem" is not an absolute path`, `:3: tlsClientNames: "spiffe://Cluster.local/a" is neither`,
			"workloadManagerCertFile: goes with workloadManagerKeyFile",
		}},
		{"whose clients", "tlsCertFile: /c\ntlsKeyFile: /k\ntlsClientCaFile: /ca\n", nil, nil, []string{"tlsClientNames: goes with tlsClientCaFile"}},
		{"clients of a server in plain text", "tlsClientCaFile: /ca\ntlsClientNames: router\n", nil, nil, []string{"tlsClientCaFile: goes with tlsCertFile"}},
		{"Workload Manager in plain text", "workloadManagerName: a b\n", nil, nil, []string{`workloadManagerName: "a b" is neither`, "workloadManagerUrl: \"http://localhost:8080\" is not https"}},
		{"all of TLS", "tlsCertFile: /c\ntlsKeyFile: /k\ntlsClientCaFile: /ca\ntlsClientNames: spiffe://cluster.local/ns/a/sa/b,router\n" +
			"workloadManagerUrl: https://manager\nworkloadManagerName: spiffe://cluster.local/ns/a/sa/c\nworkloadManagerCaFile: /ca\n", nil, nil, nil},
		{"OpenID", "oidcIssuer: http://login.example\noidcAdminRole: admin\nkubeCacheTime: 0s\nkubeTokenAudiences: a b\n", nil, nil, []string{
			`:1: oidcIssuer: "http://login.example": want an https URL`, ":3: kubeCacheTime: 0s is not more than 0", `:4: kubeTokenAudiences: "a b" is not a valid list`, "oidcRoleClaim: is empty, but a role is wanted",
		}},
		{"OpenID of nobody", "oidcRoleClaim: roles\noidcRequiredRole: r\noidcCaFile: /ca\n", nil, nil, []string{
			"oidcRoleClaim: goes with oidcIssuer", "oidcRequiredRole: goes with oidcIssuer", "oidcCaFile: goes with oidcIssuer",
		}},
		{"all of OpenID", "oidcIssuer: https://login.example/realms/a\noidcAudience: ''\noidcRoleClaim: realm_access.roles\noidcRequiredRole: r\n", nil, nil, nil},
		{"store without a server", "store: redis\n", nil, nil, []string{"redisUrl: is empty, but store is redis"}},
		{"store on a server", "store: redis\nredisUrl: valkeys+cluster://cube@a,b:7000\nredisPasswordFile: /run/secrets/redis\n", nil, nil, nil},
		{"telemetry", "tracingEndpoint: localhost:4318\ntracingSampleRatio: 1.5\n", nil, []string{"--metrics-listen=0.0.0.0:9464"}, []string{
			":1: tracingEndpoint: is not an http or https URL", ":2: tracingSampleRatio: 1.5 is not from 0 to 1",
			"metricsListen: 0.0.0.0:9464 can be reached from other machines",
		}},
		{"no ratio", "tracingSampleRatio: NaN\n", nil, nil, []string{"tracingSampleRatio: NaN is not from 0 to 1"}},
		{"a secret for the collector", "", []string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://cube:hunter2@a"}, nil, []string{
			"environment OTEL_EXPORTER_OTLP_ENDPOINT: tracingEndpoint: must not hold a user"}},
		{"metrics without a port", "metricsListen: localhost\n", nil, nil, []string{`"localhost" is not host:port`}},
		{"metrics on the address of requests", "metricsListen: 127.0.0.1:8080\n", nil, nil, []string{"is the address in listen"}},
		{"metrics on a free port", "listen: 127.0.0.1:0\nmetricsListen: 127.0.0.1:0\ntracing: true\ntracingSampleRatio: 0.01\n", nil, nil, nil},
		{"metrics for others", "metricsListen: :9464\nallowNonLoopback: true\n", nil, nil, nil},
		{"twice", "platform: kvm\nplatform: kvm\n", nil, nil, []string{":2: platform: is there twice"}},
		{"secret", "", []string{"AGENTCUBE_API_TOKEN=x"}, nil, nil},
		{"relative path in the environment", "", []string{"AGENTCUBE_DATA_DIR=data"}, nil, []string{`dataDir: "data" is not an absolute path`, "templateDir"}},
		{"no port", "", nil, []string{"--listen=127.0.0.1"}, []string{`"127.0.0.1" is not host:port`}},
		{"port too large", "", nil, []string{"--listen=127.0.0.1:65536"}, []string{`port "65536"`}},
		{"every address", "", nil, []string{"--listen=:8080"}, []string{"other machines"}},
		{"a name", "", nil, []string{"--listen=example.org:8080"}, []string{"other machines"}},
		{"IPv6 of others", "", nil, []string{"--listen=[::]:8080"}, []string{"other machines"}},
		{"IPv6 loopback", "", nil, []string{"--listen=[::1]:0"}, nil},
		{"localhost", "", nil, []string{"--listen=localhost:8080"}, nil},
		{"127.1.2.3", "", nil, []string{"--listen=127.1.2.3:8080"}, nil},
		{"permitted", "", nil, []string{"--listen=0.0.0.0:8080", "--allow-non-loopback"}, nil},
		{"empty file", "# nothing\n", nil, nil, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := mustLoad(t, test.file, test.environ, test.args...)
			err := c.Validate()
			if len(test.want) == 0 {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			var invalid *config.Error
			if !errors.As(err, &invalid) {
				t.Fatalf("got %v, want a *config.Error", err)
			}
			if len(invalid.Problems) != len(test.want) {
				t.Fatalf("%d problems, want %d:\n%v", len(invalid.Problems), len(test.want), err)
			}
			for i, want := range test.want {
				if !strings.Contains(invalid.Problems[i], want) {
					t.Errorf("problem %q does not say %q", invalid.Problems[i], want)
				}
			}
		})
	}
}

func TestWarnings(t *testing.T) {
	c := mustLoad(t, "", []string{"AGENTCUBE_LISTN=x", "AGENTCUBE_NAMESPACE=ours"}, "--listen=0.0.0.0:1", "--metrics-listen=:9464", "--allow-non-loopback")
	got := strings.Join(c.Warnings(), "\n")
	for _, want := range []string{"0.0.0.0:1", "run code on this machine", "AGENTCUBE_LISTN", "serving metrics on :9464"} {
		if !strings.Contains(got, want) {
			t.Errorf("warnings %q do not say %q", got, want)
		}
	}
	if !strings.Contains(got, "unencrypted") {
		t.Errorf("warnings %q do not say that requests are not encrypted", got)
	}
	if w := mustLoad(t, "", nil, "--listen=0.0.0.0:1", "--tls-cert-file=/c", "--tls-key-file=/k").Warnings(); len(w) != 1 || strings.Contains(w[0], "unencrypted") {
		t.Errorf("with TLS it warns %q", w)
	}
	if strings.Contains(got, "AGENTCUBE_NAMESPACE") || len(c.Warnings()) != 3 {
		t.Errorf("warnings %q, want three", got)
	}
}

func TestFiles(t *testing.T) {
	home := t.TempDir()
	dir := filepath.Join(home, ".config", "agentcube")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	usual := filepath.Join(dir, "config.yaml")
	if err := os.WriteFile(usual, []byte("maxSandboxes: 7\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := config.New([]string{"HOME=" + home})
	if err := c.Load(); err != nil || c.MaxSandboxes != 7 || c.File() != usual {
		t.Errorf("the usual file: %v, %d from %q", err, c.MaxSandboxes, c.File())
	}
	other := filepath.Join(home, "other.yaml")
	if err := os.WriteFile(other, []byte("maxSandboxes: 8\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c = mustLoad(t, "maxSandboxes: 9\n", nil, "--config="+other)
	if c.MaxSandboxes != 8 || c.File() != other {
		t.Errorf("--config: %d from %q", c.MaxSandboxes, c.File())
	}
	for name, test := range map[string]struct{ file, arg string }{
		"does not exist": {"", "--config=" + filepath.Join(home, "none.yaml")},
		"is a folder":    {"", "--config=" + home},
		"is not YAML":    {"a: [", ""},
		"is a list":      {"- a\n", ""},
		"is a bomb":      {strings.Repeat("#", 2<<20), ""},
	} {
		var args []string
		if test.arg != "" {
			args = []string{test.arg}
		}
		if _, err := load(t, test.file, nil, args...); err == nil || !strings.Contains(err.Error(), "read configuration file") {
			t.Errorf("a file that %s: %v", name, err)
		}
	}
}

func TestPaths(t *testing.T) {
	c := mustLoad(t, "", nil, "--data-dir=some/where", "--token-file=t")
	cwd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(cwd, "some/where")
	got := []string{c.DataDir, c.TokenFile, c.SessionStorePath(), c.BootstrapKeyPath(), c.RouterKeyPath(), c.ImageDir(), c.SandboxDir()}
	want := []string{data, filepath.Join(cwd, "t"), data + "/sessions.db", data + "/keys/bootstrap.pem", data + "/keys/router.pem", data + "/images", data + "/sandboxes"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if value, _ := source(t, c, "templateDir"); value != c.TemplateDir || !filepath.IsAbs(value) {
		t.Errorf("templateDir %q is shown as %q", c.TemplateDir, value)
	}
}

func TestBindFlags(t *testing.T) {
	c := config.New([]string{"HOME=/home/ann"})
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	c.BindFlags(flags, "tokenFile")
	c.BindFlags(flags, "tokenFile", "dataDir") // again, as a parent command may
	var names []string
	flags.VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	if diff := cmp.Diff([]string{"config", "data-dir", "token-file"}, names); diff != "" {
		t.Errorf("flags (-want +got):\n%s", diff)
	}
}

func TestKubernetes(t *testing.T) {
	if k := config.New([]string{}).Kubernetes(); k != (config.Kubernetes{}) {
		t.Errorf("out of nothing: %+v", k)
	}
	k := config.New([]string{"KUBERNETES_SERVICE_HOST=10.0.0.1", "KUBERNETES_SERVICE_PORT=443", "KUBECONFIG=/a:/b"}).Kubernetes()
	if want := (config.Kubernetes{InCluster: true, Kubeconfig: "/a:/b"}); k != want {
		t.Errorf("got %+v, want %+v", k, want)
	}
}

func TestBytes(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "1": 1, "1048576": 1 << 20, "512Mi": 512 << 20, "8Gi": 8 << 30, "1Ti": 1 << 40, "3Ki": 3 << 10, "2G": 2e9, "5k": 5e3, "7M": 7e6,
	} {
		var b config.Bytes
		if err := b.Set(text); err != nil || int64(b) != want {
			t.Errorf("%q: %d, %v, want %d", text, b, err, want)
		}
		var again config.Bytes
		if err := again.Set(b.String()); err != nil || again != b {
			t.Errorf("%q is written as %q, which reads as %d, %v", text, b.String(), again, err)
		}
	}
	for _, text := range []string{"", "x", "-1", "1.5Gi", "8 Gi", "8gi", "Gi", "9999999999Ti", "9223372036854775808", "0x10", "+1"} {
		var b config.Bytes
		if err := b.Set(text); err == nil {
			t.Errorf("%q was read as %d", text, b)
		}
	}
}

func TestList(t *testing.T) {
	for text, want := range map[string]string{"a": "a", "a, b ,https://c": "a,b,https://c"} {
		var l config.List
		if err := l.Set(text); err != nil || l.String() != want {
			t.Errorf("%q: %q, %v, want %q", text, l.String(), err, want)
		}
	}
	for _, text := range []string{"", ",", "a,", "a b", "a\nb"} {
		var l config.List
		if err := l.Set(text); err == nil {
			t.Errorf("%q was read as %q", text, l)
		}
	}
}

func TestHosts(t *testing.T) {
	for text, want := range map[string]string{
		"cube.example": "cube.example", "a, b-c.d_e ,192.0.2.7,::1,A": "a,b-c.d_e,192.0.2.7,::1,A",
	} {
		var h config.Hosts
		if err := h.Set(text); err != nil || h.String() != want {
			t.Errorf("%q: %q, %v, want %q", text, h.String(), err, want)
		}
	}
	for _, text := range []string{
		"", ",", "a,", "*", "*.example", "a b", "a:80", "[::1]", "http://a", "a/b", "a..b", ".a", "a.", strings.Repeat("x", 64), "a\n", "é",
	} {
		var h config.Hosts
		if err := h.Set(text); err == nil {
			t.Errorf("%q was read as %q", text, h)
		}
	}
	for _, test := range []struct {
		args []string
		want []string
	}{
		{nil, []string{"127.0.0.1"}},
		{[]string{"--listen=:8080"}, nil},
		{[]string{"--listen=0.0.0.0:8080"}, nil},
		{[]string{"--listen=[::]:8080", "--allowed-hosts=cube.example"}, []string{"cube.example"}},
		{[]string{"--listen=cube.example:8080", "--allowed-hosts=a,b"}, []string{"a", "b", "cube.example"}},
		{[]string{"--listen=[fd00::7]:8080"}, []string{"fd00::7"}},
	} {
		if diff := cmp.Diff(test.want, mustLoad(t, "", nil, test.args...).HostNames()); diff != "" {
			t.Errorf("%v (-want +got):\n%s", test.args, diff)
		}
	}
}
