package chart

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"
)

// places say where what these tests need is. They are set by TestMain before any test
// runs, and never changed.
var places struct{ helm, chart string }

func TestMain(m *testing.M) {
	for name, place := range map[string]*string{"AGENTCUBE_HELM": &places.helm, "AGENTCUBE_CHART": &places.chart} {
		if *place = os.Getenv(name); *place == "" {
			fmt.Fprintln(os.Stderr, name+" is not set; run these tests with: make test-kubernetes")
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// helm runs Helm, and returns what it has said, on both streams when it has failed.
func helm(t *testing.T, args ...string) (text []byte, ok bool) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), places.helm, args...)
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir())
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if _, refused := errors.AsType[*exec.ExitError](err); err != nil && !refused {
		t.Fatal(err)
	}
	if err != nil {
		return append(out, stderr.Bytes()...), false
	}
	return out, true
}
