package sentry

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

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
		if diff := cmp.Diff(tt.want, TellMemory(tt.in)); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", tt.name, diff)
		}
	}
}

func TestGiven(t *testing.T) {
	got := given([]string{"runsc-sandbox", "--log-fd=3", "boot", "--io-fds=5,6", "--pass-fd=13:3,14:4", "--mounts-fd=-1", "--total-memory=99", "--stdio-fds=", "sb-fd"})
	want := map[int]bool{3: true, 5: true, 6: true, 13: true, 14: true, -1: true}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}
