package chart

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite golden files")

// masked is what differs from run to run, or would fill a file on a line.
var masked = regexp.MustCompile(`(?m)^( +(?:bootstrap\.key|router\.key|router\.crt|password|agentcube\.json): ).*$`)

// rendered is what the chart makes of a file of values.
func rendered(t *testing.T, values string) string {
	t.Helper()
	return renderedIn(t, "agentcube", "--values", values)
}

// renderedIn is what it makes of arguments for Helm, in a namespace.
func renderedIn(t *testing.T, namespace string, args ...string) string {
	t.Helper()
	text, ok := helm(t, append([]string{"template", "agentcube", places.chart, "--namespace", namespace}, args...)...)
	if !ok {
		t.Fatalf("render %q: %s", args, text)
	}
	return masked.ReplaceAllString(string(text), "${1}...")
}

// each calls a test for every file of values.
func each(t *testing.T, test func(t *testing.T, values string)) {
	t.Helper()
	files, err := filepath.Glob("testdata/*.values.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d files of values, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".values.yaml"), func(t *testing.T) { test(t, file) })
	}
}

// TestGolden: the whole of what is installed, so that whoever changes the chart sees
// what it means for all.
func TestGolden(t *testing.T) {
	each(t, func(t *testing.T, values string) {
		got, golden := rendered(t, values), strings.TrimSuffix(values, "values.yaml")+"golden.yaml"
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
			t.Errorf("%s (-want +got):\n%s", golden, diff)
		}
	})
}

// TestLint: Helm has nothing against the chart.
func TestLint(t *testing.T) {
	each(t, func(t *testing.T, values string) {
		if text, ok := helm(t, "lint", places.chart, "--strict", "--values", values); !ok {
			t.Errorf("%s", text)
		}
	})
}
