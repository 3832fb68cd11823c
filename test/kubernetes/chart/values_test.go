package chart

import (
	"strings"
	"testing"
)

// TestValues: what the chart makes of values, or why it does not.
func TestValues(t *testing.T) {
	mutual := []string{
		"tls.workloadmanager.secretName=w", "tls.workloadmanager.clientCASecretName=ca",
		"tls.workloadmanager.clientNames={router.example}", "tls.router.clientSecretName=r",
	}
	for name, test := range map[string]struct {
		values []string
		want   string
	}{
		"as it is":                    {nil, "value: redis://redis.example:6379"},
		"Redis by TLS":                {[]string{"redis.addr=rediss://r:1", "redis.tlsSecretName=t", "redis.clientCertificate=true"}, "value: /etc/agentcube/redis-tls/tls.crt"},
		"no Redis":                    {[]string{"redis.addr="}, "redis.addr is required"},
		"Redis with it":               {[]string{"redis.addr=", "redis.bundled.enabled=true"}, "value: redis://agentcube-valkey:6379"},
		"one namespace":               {[]string{"sandbox.namespace=team"}, "kind: RoleBinding\nmetadata:\n  name: agentcube-default-sandboxes\n  namespace: team"},
		"a template in it":            {[]string{"sandbox.namespace=team"}, "name: simple-codeinterpreter\n  namespace: team"},
		"a template elsewhere":        {[]string{"sandbox.namespace=team", "templates.simple-codeinterpreter.namespace=other"}, "simple-codeinterpreter.namespace is other, where nobody looks"},
		"both show certificates":      {mutual, "value: router.example"},
		"the Router shows one":        {mutual, "value: /etc/agentcube/client-tls/tls.crt"},
		"the Router has none to show": {mutual[:3], "tls.router.clientSecretName is required"},
		"nobody is let in":            {append(mutual[:2:2], mutual[3]), "clientNames is required"},
		"a value that is not one":     {[]string{"rediss.addr=x"}, "additional properties 'rediss' not allowed"},
		"a wrong value":               {[]string{"router.replicas=0"}, "minimum: got 0, want 1"},
		"any setting":                 {[]string{"router.config.shutdownTimeout=30s"}, "name: AGENTCUBE_SHUTDOWN_TIMEOUT\n              value: 30s"},
		"no audit record":             {[]string{"audit.enabled=false"}, "name: AGENTCUBE_AUDIT\n              value: \"false\""},
		"an audit record that stays":  {[]string{"audit.volume.persistentVolumeClaim.claimName=kept"}, "- name: audit\n          persistentVolumeClaim:\n            claimName: kept"},
	} {
		args := []string{"template", "agentcube", places.chart, "--set", "redis.addr=redis.example:6379"}
		for _, v := range test.values {
			args = append(args, "--set", v)
		}
		if text, _ := helm(t, args...); !strings.Contains(string(text), test.want) {
			t.Errorf("%s is %q, want %q in it", name, text, test.want)
		}
	}
}
