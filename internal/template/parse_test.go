package template_test

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/template"
)

var update = flag.Bool("update", false, "rewrite the expected problems in testdata")

// Each file testdata/bad/*.yaml comes with the problems that it must be refused
// with, one per line, in a file of the same name ending in .txt.
func TestParseRefuses(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		if filepath.Ext(file) == ".txt" {
			continue
		}
		t.Run(filepath.Base(file), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			templates, err := template.Parse(filepath.Base(file), data, "")
			var problems template.Problems
			if !errors.As(err, &problems) || len(templates) != 0 {
				t.Fatalf("got %d templates, %v, want Problems alone", len(templates), err)
			}
			got := err.Error() + "\n"
			golden := strings.TrimSuffix(file, filepath.Ext(file)) + ".txt"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
		})
	}
}

func TestParse(t *testing.T) {
	byDefault := template.Template{
		Kind: "CodeInterpreter", Namespace: "default", Name: "a", Image: "fallback:1", Workspace: "/workspace",
		Resources:   sandbox.Resources{CPUMillis: 1000, MemoryBytes: 1 << 30, DiskBytes: 2 << 30, Processes: 256},
		IdleTimeout: 15 * time.Minute, MaxDuration: 8 * time.Hour, AuthMode: template.AuthPicoD,
		Ports:  []template.Port{{Path: "/", Protocol: "HTTP", Port: 8080}},
		Origin: "f.yaml:1",
	}
	const head = "apiVersion: runtime.agentcube.volcano.sh/v1alpha1\nkind: CodeInterpreter\nmetadata: {name: a}\n"
	tests := []struct {
		name, text string
		change     func(*template.Template)
	}{
		{"defaults", "spec: {template: {}}", func(*template.Template) {}},
		{"empty status and creation time", "spec: {template: {}}\nstatus: {}\n", func(*template.Template) {}},
		{"nulls", "spec: {template: {resources: null, args: null}, ports: null, warmPoolSize: null, sessionTimeout: }", func(*template.Template) {}},
		{"workspace /root, as older manifests have it", "spec: {template: {args: [--workspace=/root], image: picod:latest}}",
			func(t *template.Template) { t.Workspace, t.Image = "/root", "picod:latest" }},
		{"workspace /", "spec: {template: {args: [\"--workspace=/\"]}}", func(t *template.Template) { t.Workspace = "/" }},
		{"workspace in two arguments after picod", "spec: {template: {command: [/usr/local/bin/picod, -port, '8080'], args: [-workspace, /a//b/]}}",
			func(t *template.Template) { t.Workspace = "/a/b" }},
		{"never paused", "spec: {pauseAfter: 0s, template: {preload: []}}", func(t *template.Template) { t.Preload = []string{} }},
		{"own server", "spec: {authMode: none, template: {command: [python3], args: [--workspace=/root]}}",
			func(t *template.Template) {
				t.AuthMode, t.Command, t.Args = template.AuthNone, []string{"python3"}, []string{"--workspace=/root"}
			}},
		{"everything", `spec:
  ports:
    - {port: 8888, pathPrefix: /jupyter, protocol: HTTPS, name: jupyter}
    - {port: 8080}
  template:
    labels: {team: a, "example.org/x": "1"}
    annotations: {note: "any text"}
    runtimeClassName: gvisor
    imagePullPolicy: IfNotPresent
    imagePullSecrets: [{name: s}]
    environment: [{name: A, value: "1"}, {name: B}, {name: A, value: "2"}]
    runAsRoot: true
    maxProcesses: 10
    preload: [numpy, xml.etree.ElementTree]
    resources:
      limits: {cpu: 250m, memory: 64Mi, ephemeral-storage: 1G}
      requests: {cpu: 4, memory: 8Gi}
  sessionTimeout: 90s
  pauseAfter: 30s
  maxSessionDuration: 1h30m
  warmPoolSize: 3
  authMode: picod
  isolation: gvisor
  network: none
  strict: true
  needInitialization: false
`, func(t *template.Template) {
			t.Ports = []template.Port{{Name: "jupyter", Path: "/jupyter", Protocol: "HTTPS", Port: 8888}, {Path: "/", Protocol: "HTTP", Port: 8080}}
			t.Labels = map[string]string{"team": "a", "example.org/x": "1"}
			t.Env = map[string]string{"A": "2", "B": ""}
			t.Resources = sandbox.Resources{CPUMillis: 250, MemoryBytes: 64 << 20, DiskBytes: 1e9, Processes: 10}
			t.RunAsRoot, t.Strict, t.WarmPoolSize, t.MinIsolation = true, true, 3, "gvisor"
			t.IdleTimeout, t.MaxDuration, t.PauseAfter = 90*time.Second, 90*time.Minute, 30*time.Second
			t.Preload = []string{"numpy", "xml.etree.ElementTree"}
		}},
		{"requests above the defaults", "spec: {template: {resources: {requests: {cpu: 2, memory: 4Gi, ephemeral-storage: 1Mi}}}}",
			func(t *template.Template) { t.Resources.CPUMillis, t.Resources.MemoryBytes = 2000, 4<<30 }},
		{"anchors", "spec: {template: {environment: [{name: A, value: &v hello}, {name: B, value: *v}]}}",
			func(t *template.Template) { t.Env = map[string]string{"A": "hello", "B": "hello"} }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			want := byDefault
			test.change(&want)
			got, err := template.Parse("f.yaml", []byte(head+test.text), "fallback:1")
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]template.Template{want}, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseAgentRuntime(t *testing.T) {
	data, err := os.ReadFile("testdata/agentruntime.yaml")
	if err != nil {
		t.Fatal(err)
	}
	got, err := template.Parse("f.yaml", data, "")
	if err != nil {
		t.Fatal(err)
	}
	want := []template.Template{{
		Kind: "AgentRuntime", Namespace: "team-a", Name: "weather.agent", Image: "example.org/weather:1.2", Workspace: "/workspace",
		Command: []string{"python3", "-m", "weather"}, Args: []string{"--verbose"},
		Env: map[string]string{"ROUTER_URL": "http://router"}, Labels: map[string]string{"app": "weather"},
		Resources:  sandbox.Resources{CPUMillis: 2000, MemoryBytes: 2 << 30, DiskBytes: 2 << 30, Processes: 64},
		WorkingDir: "/srv/weather", User: &sandbox.User{UID: 1000, GID: 5},
		AuthMode: template.AuthNone, IdleTimeout: 15 * time.Minute, MaxDuration: 2 * time.Hour,
		Ports: []template.Port{{Path: "/", Protocol: "HTTP", Port: 8000}}, Origin: "f.yaml:2",
	}, {
		Kind: "AgentRuntime", Namespace: "default", Name: "second", Image: "x", Workspace: "/workspace", Args: []string{"serve"},
		Resources: sandbox.Resources{CPUMillis: 1000, MemoryBytes: 1 << 30, DiskBytes: 2 << 30, Processes: 256},
		AuthMode:  template.AuthNone, IdleTimeout: 15 * time.Minute, MaxDuration: 8 * time.Hour,
		Ports: []template.Port{{Path: "/", Protocol: "HTTP", Port: 1}}, Origin: "f.yaml:50",
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestParseJSON(t *testing.T) {
	const text = `{"apiVersion": "runtime.agentcube.volcano.sh/v1alpha1", "kind": "CodeInterpreter",
	  "metadata": {"name": "a", "creationTimestamp": null},
	  "spec": {"template": {"image": "x\u0079", "runAsRoot": true}, "sessionTimeout": "1m"}, "status": {"ready": true}}`
	got, err := template.Parse("f.json", []byte(text), "")
	if err != nil || len(got) != 1 || got[0].Image != "xy" || !got[0].RunAsRoot || got[0].IdleTimeout != time.Minute {
		t.Errorf("got %+v, %v", got, err)
	}
}

// Hostile input ends in an error, soon and in little memory.
func TestParseHostile(t *testing.T) {
	const head = "apiVersion: runtime.agentcube.volcano.sh/v1alpha1\nkind: CodeInterpreter\nmetadata:\n  name: a\n"
	laughs := head + "  labels: {a: &a x}\nspec:\n  template:\n    args: &l0 [--port=8080]\n"
	deep := "&l0 [x, x, x, x, x, x, x, x, x]"
	bomb := head + "spec:\n  template:\n    environment:\n      - &e {name: A, value: x}\n" + strings.Repeat("      - *e\n", 60_000)
	for name, text := range map[string]string{
		"alias that is itself":  head + "spec: &s\n  template: *s\n",
		"list that is itself":   head + "spec:\n  ports: &p\n    - *p\n",
		"deep nesting":          strings.Repeat("[", 100_000),
		"many aliases":          bomb,
		"unknown anchor":        head + "spec: *nowhere\n",
		"aliases in a quantity": laughs + "    resources: {limits: {cpu: " + deep + "}}\n",
		"NUL bytes":             "\x00\x00\x00",
		"not UTF-8":             head + "spec: {template: {image: \"\xff\xfe\"}}",
		"too large":             strings.Repeat("#", template.MaxFileBytes+1),
		"a list":                "- a\n- b\n",
		"a word":                "hello",
		"merge key":             head + "spec: {template: {<<: {image: x}}}",
		"key that is a list":    head + "? [a, b]\n: c\n",
	} {
		t.Run(name, func(t *testing.T) {
			templates, err := template.Parse("f.yaml", []byte(text), "x")
			var problems template.Problems
			if !errors.As(err, &problems) || len(templates) > 0 {
				t.Fatalf("got %d templates and %v, want Problems", len(templates), err)
			}
			if len(err.Error()) > 2000 {
				t.Errorf("the error is %d characters long: %.300s", len(err.Error()), err)
			}
		})
	}
}

func TestParseNothing(t *testing.T) {
	for _, text := range []string{"", "\n", "---\n---\n", "# only a comment\n", "null\n"} {
		if got, err := template.Parse("f.yaml", []byte(text), ""); err != nil || len(got) > 0 {
			t.Errorf("%q: %v, %v, want nothing", text, got, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, glob := range []string{"testdata/*.yaml", "testdata/bad/*.yaml", "shipped/*.yaml"} {
		files, err := filepath.Glob(glob)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		templates, err := template.Parse("f.yaml", data, "")
		if err != nil {
			var problems template.Problems
			if !errors.As(err, &problems) {
				t.Fatalf("error of type %T", err)
			}
			return
		}
		for _, got := range templates {
			r := got.Resources
			if got.Name == "" || got.AuthMode == template.AuthPicoD && len(got.Command) > 0 || got.Namespace == "" || got.Image == "" || len(got.Ports) == 0 || got.Workspace == "" ||
				got.IdleTimeout <= 0 || got.MaxDuration <= 0 || r.CPUMillis <= 0 || r.MemoryBytes <= 0 || r.DiskBytes <= 0 || r.Processes <= 0 {
				t.Errorf("accepted without all that a template has: %+v", got)
			}
		}
	})
}

func TestShipped(t *testing.T) {
	shipped, err := template.Shipped()
	if err != nil {
		t.Fatal(err)
	}
	source := template.NewSet(shipped...)
	for _, name := range []string{"simple-codeinterpreter", "my-interpreter"} {
		got, err := source.Get("CodeInterpreter", "default", name)
		if err != nil {
			t.Fatal(err)
		}
		if got.Image != "agentcube/python:latest" || got.Workspace != "/workspace" || got.RunAsRoot {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
