package cli

import (
	"os"
	"path/filepath"
	"testing"
)

// TestPodTokens: the first file that has a token counts, as it is now; the key to a
// machine is none.
func TestPodTokens(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	named, projected, account := filepath.Join(dir, "named"), filepath.Join(dir, "projected"), filepath.Join(dir, "account")
	files := podTokens{named, projected, account}
	for _, step := range []struct{ file, content, want string }{
		{"", "", ""},
		{account, "of.the.account\n", "of.the.account"},
		{projected, " \n", "of.the.account"},
		{projected, "for.agent-cube.alone_\n", "for.agent-cube.alone_"},
		{projected, "rotated.agentcube.alone", "rotated.agentcube.alone"},
		{named, "ac_0123456789abcdefghijklmnopqrstuvwxyzABCDEFG", "rotated.agentcube.alone"},
		{named, "chosen by hand", "rotated.agentcube.alone"},
		{named, "act_0123456789abcdefghijklmnopqrstuvwxyzABCDEFG", "act_0123456789abcdefghijklmnopqrstuvwxyzABCDEFG"},
	} {
		if step.file != "" {
			if err := os.WriteFile(step.file, []byte(step.content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := files.read(); err != nil || got != step.want {
			t.Errorf("after %q in %s: token %q, %v, want %q", step.content, step.file, got, err, step.want)
		}
	}
	if _, err := (podTokens{dir}).read(); err == nil {
		t.Error("a folder was taken for a token")
	}
}
