package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/volcano-sh/agentcube/internal/image/ociwrite"
)

// WriteImage writes an OCI archive to path: an image that holds one static program
// and runs it. Its name begins with a host, such as "agentcube.test/probe:latest",
// and Pods that use it need the pull policy IfNotPresent, as nothing can be pulled.
func WriteImage(ctx context.Context, path, name, program string) (err error) {
	dir, err := os.MkdirTemp("", "image-")
	if err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	defer os.RemoveAll(dir)
	root := filepath.Join(dir, "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	base := filepath.Base(program)
	if err := copyProgram(filepath.Join(root, base), program); err != nil {
		return err
	}
	layer, err := ociwrite.GzipLayer(ctx, filepath.Join(dir, "layer"), root, ociwrite.TarOptions{})
	if err != nil {
		return err
	}
	archive := ociwrite.Archive{
		Name: name, Created: time.Unix(0, 0), OS: "linux", Architecture: runtime.GOARCH, Layers: []ociwrite.Layer{layer},
	}
	archive.Config.Entrypoint = []string{"/" + base}
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("make archive: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return ociwrite.WriteArchive(ctx, f, archive)
}

func copyProgram(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("open program: %w", err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o755)
	if err != nil {
		return fmt.Errorf("make program: %w", err)
	}
	if _, err := io.Copy(out, in); err != nil {
		return errors.Join(fmt.Errorf("copy program: %w", err), out.Close())
	}
	return out.Close()
}

// LoadImage gives the node the image of an OCI archive, and Pods find it by name,
// whatever the archive calls it.
func (c *Cluster) LoadImage(ctx context.Context, archive, name string) error {
	path, err := filepath.Abs(archive)
	if err != nil {
		return fmt.Errorf("find image: %w", err)
	}
	cmd := c.command(ctx, "ctr", "--address="+c.socket(), "--namespace=k8s.io", "images", "import", "--local", "--index-name="+name, path)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("load image %s: %w\n%s", path, err, out)
	}
	return nil
}
