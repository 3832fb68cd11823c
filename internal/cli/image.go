package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/volcano-sh/agentcube/internal/config"
	"github.com/volcano-sh/agentcube/internal/image"
)

func newImage(a *app) *cobra.Command {
	cmd := newGroup("image", "List, bring in and remove images",
		newImageLs(a), newImageImport(a), newImagePull(a), newImageRm(a))
	a.cfg.BindFlags(cmd.PersistentFlags(), "dataDir")
	return cmd
}

// openImages opens the image store of the data directory.
func openImages(ctx context.Context, cfg *config.Config, log *slog.Logger) (*image.Store, error) {
	if err := os.MkdirAll(cfg.DataDir, dataDirMode); err != nil {
		return nil, fmt.Errorf("make data folder: %w", err)
	}
	store := image.New(image.Options{
		Dir: cfg.ImageDir(), Logger: log,
		InUse: func(digest string) bool {
			return inRecords(digest, filepath.Join(cfg.SandboxDir(), "*", "record.json")) ||
				inRecords(digest, filepath.Join(cfg.DataDir, "snapshots", "*", "snapshot.json"))
		},
	})
	if err := store.Open(ctx); err != nil {
		return nil, err
	}
	return store, nil
}

// inRecords reports whether a sandbox or a checkpoint that exists, or may
// exist, was made from the image: the record of each names the image's file,
// which is called by its digest. It is asked whether or not a server runs.
func inRecords(digest, pattern string) bool {
	hex := []byte(strings.TrimPrefix(digest, "sha256:"))
	records, err := filepath.Glob(pattern)
	if err != nil {
		return true
	}
	for _, path := range records {
		data, err := readBounded(path, 1<<20)
		if err == nil && bytes.Contains(data, hex) {
			return true
		}
	}
	return false
}

func (a *app) images(ctx context.Context) (*image.Store, error) {
	if err := a.cfg.Validate(); err != nil {
		return nil, err
	}
	return openImages(ctx, a.cfg, a.logger())
}

func newImageLs(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List images, the last imported first",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			store, err := a.images(cmd.Context())
			if err != nil {
				return err
			}
			list, err := store.List(cmd.Context())
			if err != nil {
				return err
			}
			if list == nil {
				list = []image.Image{}
			}
			return a.print(struct {
				Images []image.Image `json:"images"`
			}{list}, func(w io.Writer) { imageTable(w, list) })
		},
	}
}

func imageTable(w io.Writer, list []image.Image) {
	rows := make([][]string, 0, len(list))
	for _, img := range list {
		names := strings.Join(img.References, ", ")
		if names == "" {
			names = "(no name)"
		}
		rows = append(rows, []string{names, shortDigest(img.Digest), size(img.Size), size(img.BlobBytes), ago(img.Imported)})
	}
	table(w, []string{"IMAGE", "DIGEST", "SIZE", "COMPRESSED", "IMPORTED"}, rows)
}

func shortDigest(digest string) string {
	const length = len("sha256:") + 12
	return digest[:min(length, len(digest))]
}

func newImageImport(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "import SOURCE [NAME]",
		Short: "Bring in an image from an archive or a folder of this machine",
		Long: "SOURCE is an OCI archive, an OCI layout, an archive of `docker save`, or a folder that\n" +
			"is a root file system. NAME, such as example/tool:1.0, is needed when the source names\n" +
			"no image.",
		Args: args(cobra.RangeArgs(1, 2)),
		RunE: func(cmd *cobra.Command, list []string) error {
			store, err := a.images(cmd.Context())
			if err != nil {
				return err
			}
			ref := ""
			if len(list) == 2 {
				ref = list[1]
			}
			bar := a.imageProgress(list[0])
			img, err := store.Import(cmd.Context(), ref, list[0], bar.update)
			bar.finish()
			if err != nil {
				return fmt.Errorf("import image: %w", err)
			}
			return a.printImage(img)
		},
	}
}

func newImagePull(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "pull NAME",
		Short: "Bring in an image from a registry",
		Args:  args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, list []string) error {
			store, err := a.images(cmd.Context())
			if err != nil {
				return err
			}
			bar := a.imageProgress(list[0])
			img, err := store.Pull(cmd.Context(), list[0], image.PullOptions{}, bar.update)
			bar.finish()
			if err != nil {
				return fmt.Errorf("pull image: %w", err)
			}
			return a.printImage(img)
		},
	}
}

func newImageRm(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "rm NAME...",
		Aliases: []string{"remove"},
		Short:   "Remove images, or names of images, by name or digest",
		Args:    args(cobra.MinimumNArgs(1)),

		ValidArgsFunction: a.complete(anyNumber, a.imageWords),
		RunE: func(cmd *cobra.Command, list []string) error {
			store, err := a.images(cmd.Context())
			if err != nil {
				return err
			}
			return a.each(cmd.Context(), "remove images", "removed", list, func(ctx context.Context, ref string) error {
				if err := store.Remove(ctx, ref); err != nil {
					return fmt.Errorf("remove image: %w", err)
				}
				return nil
			})
		},
	}
}

func (a *app) printImage(img image.Image) error {
	return a.print(img, func(w io.Writer) {
		fmt.Fprintf(w, "%s (%s, %s)\n", strings.Join(img.References, ", "), shortDigest(img.Digest), size(img.Size))
	})
}

// imageBar shows the stages of bringing an image in, one after the other.
type imageBar struct {
	a     *app
	name  string
	stage string
	*progress
}

func (a *app) imageProgress(name string) *imageBar {
	return &imageBar{a: a, name: printable(filepath.Base(name)), progress: &progress{}}
}

func (b *imageBar) update(p image.Progress) {
	if p.Stage != b.stage {
		b.progress.finish()
		b.stage = p.Stage
		total := p.Total
		if total == 0 {
			total = -1
		}
		b.progress = b.a.progressBytes(p.Stage+" "+b.name, total)
	}
	b.set(p.Done)
}

func (b *imageBar) finish() { b.progress.finish() }
