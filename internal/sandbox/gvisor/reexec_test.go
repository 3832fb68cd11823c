package gvisor

import "testing"

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
