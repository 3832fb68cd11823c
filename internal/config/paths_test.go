package config

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestNewPaths(t *testing.T) {
	const system = "/etc/agentcube/config.yaml"
	tests := []struct {
		name string
		env  map[string]string
		euid int
		want paths
	}{
		{"a user", map[string]string{"HOME": "/home/ann"}, 1000, paths{
			"/home/ann/.local/state/agentcube", "/home/ann/.config/agentcube/token", []string{"/home/ann/.config/agentcube/config.yaml", system}}},
		{"root", map[string]string{"HOME": "/root"}, 0, paths{
			"/var/lib/agentcube", "/root/.config/agentcube/token", []string{"/root/.config/agentcube/config.yaml", system}}},
		{"root as a service", nil, 0, paths{
			"/var/lib/agentcube", "/root/.config/agentcube/token", []string{"/root/.config/agentcube/config.yaml", system}}},
		{"XDG", map[string]string{"HOME": "/h", "XDG_CONFIG_HOME": "/c", "XDG_STATE_HOME": "/s"}, 1000, paths{
			"/s/agentcube", "/c/agentcube/token", []string{"/c/agentcube/config.yaml", system}}},
		{"relative XDG folders do not count", map[string]string{"HOME": "/h", "XDG_CONFIG_HOME": "c", "XDG_STATE_HOME": "."}, 1000, paths{
			"/h/.local/state/agentcube", "/h/.config/agentcube/token", []string{"/h/.config/agentcube/config.yaml", system}}},
		{"no home", nil, 1000, paths{configFiles: []string{system}}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, newPaths(test.env, test.euid), cmp.AllowUnexported(paths{})); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
