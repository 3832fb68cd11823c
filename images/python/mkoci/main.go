// Command mkoci packs a root filesystem as an OCI archive:
//
//	mkoci -root DIR -out FILE -name REF -epoch SECONDS [-env K=V]... [-user U] [-workdir D] [-label K=V]... [-- CMD...]
//
// The archive appears under its name only when it is complete. Content of dev,
// proc, sys and run is left out.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/volcano-sh/agentcube/internal/image/ociwrite"
)

type pairs []string

func (p *pairs) String() string { return strings.Join(*p, " ") }

func (p *pairs) Set(s string) error {
	if name, _, ok := strings.Cut(s, "="); !ok || name == "" {
		return errors.New("want NAME=VALUE")
	}
	*p = append(*p, s)
	return nil
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "mkoci:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("mkoci", flag.ContinueOnError)
	root := flags.String("root", "", "directory to pack")
	out := flags.String("out", "", "archive to write")
	name := flags.String("name", "", "reference of the image")
	epoch := flags.Int64("epoch", 0, "creation time and latest file time, in seconds since 1970")
	user := flags.String("user", "", "user that runs the command")
	workdir := flags.String("workdir", "", "working directory")
	var env, labels pairs
	flags.Var(&env, "env", "environment variable, NAME=VALUE (repeatable)")
	flags.Var(&labels, "label", "label, NAME=VALUE (repeatable)")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *root == "" || *out == "" || *name == "" {
		return errors.New("-root, -out and -name are required")
	}
	archive := ociwrite.Archive{
		Name: *name, Created: time.Unix(*epoch, 0), OS: "linux", Architecture: runtime.GOARCH,
		Config: v1.Config{Env: env, User: *user, WorkingDir: *workdir, Cmd: flags.Args(), Labels: map[string]string{}},
	}
	for _, l := range labels {
		k, v, _ := strings.Cut(l, "=")
		archive.Config.Labels[k] = v
	}
	return pack(ctx, *root, *out, archive)
}

func pack(ctx context.Context, root, out string, archive ociwrite.Archive) (err error) {
	tmp, err := os.MkdirTemp(filepath.Dir(out), ".mkoci-")
	if err != nil {
		return fmt.Errorf("make temporary directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	layer, err := ociwrite.GzipLayer(ctx, filepath.Join(tmp, "layer"), root, ociwrite.TarOptions{
		Latest: archive.Created,
		Skip: func(name string) bool {
			top, _, below := strings.Cut(name, "/")
			return below && (top == "dev" || top == "proc" || top == "sys" || top == "run")
		},
	})
	if err != nil {
		return err
	}
	archive.Layers = []ociwrite.Layer{layer}
	f, err := os.Create(filepath.Join(tmp, "archive"))
	if err != nil {
		return fmt.Errorf("create archive: %w", err)
	}
	defer f.Close()
	if err := ociwrite.WriteArchive(ctx, f, archive); err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("close archive: %w", err)
	}
	if err := os.Rename(f.Name(), out); err != nil {
		return fmt.Errorf("publish archive: %w", err)
	}
	return nil
}
