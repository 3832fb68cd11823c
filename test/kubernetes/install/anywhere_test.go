package install

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/volcano-sh/agentcube/test/e2e"
)

// anywhere runs the end-to-end tests that are no matter of one machine, as they are, as
// a service account. The SDK's own are among them, with the README's code blocks.
func (w *world) anywhere(t *testing.T) {
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	templates, err := e2e.Templates(root, pythonImage)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range templates {
		w.apply(t, []byte(text))
	}
	w.template(t, "default", "my-interpreter", object{"template": object{"image": pythonImage}})
	token, stranger := w.account(t, "default", "walker", true), w.account(t, "default", "stranger", true)
	w.allow(t, "default", "walker", release)
	raw, err := json.Marshal(e2e.Installation{Manager: w.manager, Router: w.router, Token: token, Stranger: stranger, Isolation: "runc", Lags: true})
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
