package gvisor

import (
	"strings"
	"testing"
)

// TestLimitsAreTold: what the machine cannot hold is said, with the reason.
// Before, processes were said to be limited wherever that was.
func TestLimitsAreTold(t *testing.T) {
	d := New(Config{})
	for controller, limit := range map[string]string{"": "", "memory": "memory", "cpu": "cpu", "pids": "processes"} {
		d.groups = &cgroups{v2: true, missing: map[string]string{}}
		if controller != "" {
			d.groups.missing[controller] = "there is none"
		}
		told := d.Capabilities().Limits
		if len(told) != 4 {
			t.Errorf("limits %+v", told)
		}
		for _, l := range told {
			if l.Enforced == (l.Name == limit) || l.Name == limit != strings.Contains(l.How, "there is none") {
				t.Errorf("without %q: %+v", controller, l)
			}
		}
	}
}
