package gvisor

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/volcano-sh/agentcube/internal/sandbox/gvisor/agent"
)

// agentImage returns the EROFS image that holds PicoD, made once for each
// version of it.
func agentImage(ctx context.Context, dir string) (string, error) {
	binary, err := agent.Binary()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(binary)
	path := filepath.Join(dir, "picod-"+hex.EncodeToString(sum[:8])+".erofs")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("make agent directory: %w", err)
	}
	work, err := os.MkdirTemp(dir, ".build-")
	if err != nil {
		return "", fmt.Errorf("make agent image: %w", err)
	}
	defer os.RemoveAll(work)
	root, out := filepath.Join(work, "root"), filepath.Join(work, "image")
	if err := os.Mkdir(root, 0o755); err != nil {
		return "", fmt.Errorf("make agent image: %w", err)
	}
	if err := os.WriteFile(filepath.Join(root, "picod"), binary, 0o755); err != nil {
		return "", fmt.Errorf("make agent image: %w", err)
	}
	cmd := exec.CommandContext(ctx, "mkfs.erofs", "-T0", "-E", "noinline_data", "-U00000000-0000-0000-0000-000000000000", "--all-root", out, root)
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("make agent image with mkfs.erofs (Debian package erofs-utils): %w: %s", err, text)
	}
	if err := os.Rename(out, path); err != nil {
		return "", fmt.Errorf("make agent image: %w", err)
	}
	return path, nil
}
