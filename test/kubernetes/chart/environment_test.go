package chart

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// TestEnvironment: no variable is there twice, which server-side apply refuses, and of
// what the chart sets, what config says and what extraEnv says the last holds.
func TestEnvironment(t *testing.T) {
	each(t, func(t *testing.T, values string) {
		for _, u := range resources(t, values) {
			if u.GetKind() == "Deployment" {
				variables(t, as[appsv1.Deployment](t, u))
			}
		}
	})
	text := renderedIn(t, "agentcube", "--set", "redis.addr=redis.example:6379",
		"--set", "router.config.maxRequestsPerOwner=7", "--set", "router.config.logLevel=warn", "--set", "workloadmanager.config.auditContent=true",
		"--set", "workloadmanager.config.logLevel=error", "--set", "router.extraEnv[0].name=AGENTCUBE_LOG_LEVEL", "--set", "router.extraEnv[0].value=debug")
	found := 0
	for _, u := range decoded(t, text) {
		if u.GetKind() != "Deployment" {
			continue
		}
		found++
		want := map[string]string{"AGENTCUBE_LOG_LEVEL": "debug", "AGENTCUBE_MAX_REQUESTS_PER_OWNER": "7", "AGENTCUBE_STORE": "redis"}
		if u.GetName() == "workloadmanager" {
			want = map[string]string{"AGENTCUBE_LOG_LEVEL": "error", "AGENTCUBE_AUDIT_CONTENT": "true", "AGENTCUBE_STORE": "redis"}
		}
		got := variables(t, as[appsv1.Deployment](t, u))
		for name, value := range want {
			if got[name].Value != value {
				t.Errorf("%s has %s=%q, want %q", u.GetName(), name, got[name].Value, value)
			}
		}
		if from := got["AGENTCUBE_NAMESPACE"].ValueFrom; from == nil || from.FieldRef == nil || from.FieldRef.FieldPath != "metadata.namespace" {
			t.Errorf("%s has its namespace from %+v", u.GetName(), from)
		}
	}
	if found != 2 {
		t.Errorf("%d Deployments", found)
	}
}

// variables are those of a Deployment's container, by name.
func variables(t *testing.T, d appsv1.Deployment) map[string]corev1.EnvVar {
	t.Helper()
	out := map[string]corev1.EnvVar{}
	for _, v := range d.Spec.Template.Spec.Containers[0].Env {
		if _, twice := out[v.Name]; twice {
			t.Errorf("%s has %s twice", d.Name, v.Name)
		}
		out[v.Name] = v
	}
	if len(out) == 0 {
		t.Errorf("%s has no variables", d.Name)
	}
	return out
}

// TestBundledPassword: the script of the bundled Valkey writes any password into its
// configuration as one quoted argument.
func TestBundledPassword(t *testing.T) {
	dir := t.TempDir()
	script := ""
	for _, u := range decoded(t, renderedIn(t, "agentcube", "--set", "redis.bundled.enabled=true")) {
		if u.GetKind() == "StatefulSet" {
			script = as[appsv1.StatefulSet](t, u).Spec.Template.Spec.Containers[0].Args[0]
		}
	}
	if !strings.Contains(script, "exec valkey-server /tmp/valkey.conf ") {
		t.Fatalf("the script is %q", script)
	}
	script = strings.NewReplacer("/etc/agentcube/redis/", dir+"/", "/tmp/valkey.conf", dir+"/valkey.conf", "exec valkey-server", "exec true").Replace(script)
	for password, quoted := range map[string]string{
		"plain":              `"plain"`,
		"two words # more":   `"two words # more"`,
		`a"b\c'd$e%s` + "`f": `"a\"b\\c'd$e%s` + "`f\"",
	} {
		if err := os.WriteFile(filepath.Join(dir, "password"), []byte(password), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.CommandContext(t.Context(), "sh", "-c", script).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		got, err := os.ReadFile(filepath.Join(dir, "valkey.conf"))
		if err != nil {
			t.Fatal(err)
		}
		if want := "requirepass " + quoted + "\nmasterauth " + quoted + "\n"; string(got) != want {
			t.Errorf("%q is written as %q, want %q", password, got, want)
		}
	}
}
