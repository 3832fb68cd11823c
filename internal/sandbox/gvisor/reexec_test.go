package gvisor

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestIsReexec(t *testing.T) {
	for _, tt := range []struct {
		argv0 string
		want  bool
	}{
		{"/proc/self/exe", true},
		{"runsc-sandbox", true},
		{"runsc-gofer", true},
		{"/usr/local/bin/runsc", true},
		{"agentcube", false},
		{"/usr/bin/agentcube", false},
		{"./notrunsc", false},
	} {
		if got := IsReexec([]string{tt.argv0, "x"}); got != tt.want {
			t.Errorf("IsReexec(%q) = %v, want %v", tt.argv0, got, tt.want)
		}
	}
	if IsReexec(nil) {
		t.Error("IsReexec(nil) = true")
	}
}

func TestTellMemory(t *testing.T) {
	args := func(bundle, memory string) []string {
		return []string{"runsc-sandbox", "--root=/r", "boot", "--bundle=" + bundle, "--total-memory", memory, "sb"}
	}
	for _, tt := range []struct {
		name     string
		in, want []string
	}{
		{"limit below the host's memory", args("/d/s/bundle-1000", "9000"), args("/d/s/bundle-1000", "1000")},
		{"limit above the host's memory", args("/d/s/bundle-10000", "9000"), args("/d/s/bundle-10000", "9000")},
		{"a bundle that is not ours", args("/d/s/other", "9000"), args("/d/s/other", "9000")},
		{"no number", args("/d/s/bundle-x", "9000"), args("/d/s/bundle-x", "9000")},
		{"another command", []string{"runsc", "list"}, []string{"runsc", "list"}},
		{"cut off", []string{"runsc", "--total-memory"}, []string{"runsc", "--total-memory"}},
	} {
		if diff := cmp.Diff(tt.want, tellMemory(tt.in)); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", tt.name, diff)
		}
	}
}
