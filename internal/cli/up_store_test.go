package cli

import (
	"os"
	"testing"

	"github.com/volcano-sh/agentcube/internal/config"
)

// TestInstallation: a data folder has one name, which is not another's.
func TestInstallation(t *testing.T) {
	names := map[string]bool{}
	for range 2 {
		cfg := config.New([]string{"HOME=" + t.TempDir()})
		cfg.DataDir = t.TempDir()
		first, err := installation(cfg)
		if err != nil || first == "" {
			t.Fatalf("installation = %q, %v", first, err)
		}
		if again, err := installation(cfg); again != first || err != nil {
			t.Errorf("installation again = %q, %v, want %q", again, err, first)
		}
		names[first] = true
		if err := os.WriteFile(cfg.InstallationPath(), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if name, err := installation(cfg); err == nil {
			t.Errorf("an empty file is the name %q", name)
		}
	}
	if len(names) != 2 {
		t.Errorf("two folders have one name: %v", names)
	}
}
