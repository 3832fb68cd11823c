package install

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/volcano-sh/agentcube/client"
	"github.com/volcano-sh/agentcube/test/e2e"
	"github.com/volcano-sh/agentcube/test/kubernetes/cluster"
)

// anywhere runs the end-to-end tests that are no matter of one machine, as they are, as
// a service account, first in gVisor and then in what the nodes have. The SDK's own are
// among them, with the README's code blocks.
func (w *world) anywhere(t *testing.T) {
	token, stranger := w.account(t, "default", "walker", true), w.account(t, "default", "stranger", true)
	w.allow(t, "default", "walker", release)
	of := e2e.Installation{Manager: w.manager, Router: w.router, Token: token, Stranger: stranger, Lags: true}
	for _, isolation := range []struct{ name, class string }{{"gvisor", cluster.GVisor}, {"runc", ""}} {
		t.Run(isolation.name, func(t *testing.T) {
			w.templates(t, isolation.class)
			of.Isolation = isolation.name
			runAnywhere(t, of)
		})
	}
}

// templates makes the templates of these tests, or changes them, and the chart's own.
func (w *world) templates(t *testing.T, class string) {
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	templates, err := e2e.Templates(root, pythonImage)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range templates {
		w.apply(t, []byte(text), class)
	}
	for name, template := range map[string]object{"my-interpreter": {"image": pythonImage}, client.DefaultTemplate: {}} {
		if class != "" {
			template["runtimeClassName"] = class
		}
		w.template(t, "default", name, object{"template": template})
	}
}

func runAnywhere(t *testing.T, of e2e.Installation) {
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(of)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "installation.json")
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "go", "test", "-count", "1", "-v", "-parallel", "4", "-timeout", "15m", "./test/e2e")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), e2e.InstallationVariable+"="+file)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("end-to-end tests: %v\n%s", err, out)
		return
	}
	for _, name := range e2e.Anywhere() {
		if !regexp.MustCompile(`(?m)^--- PASS: ` + name + ` \(.*\)$`).Match(out) {
			t.Errorf("%s was not run:\n%s", name, out)
		}
	}
	t.Logf("end-to-end tests:\n%s", bytes.Join(regexp.MustCompile(`(?m)^( *--- .*| .*::.* PASSED.*|.* passed.*)$`).FindAll(out, -1), []byte("\n")))
}
