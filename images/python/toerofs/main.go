// Command toerofs imports an image archive into an image store and prints the
// path of the EROFS file. The image's environment goes to a file, one
// NAME=VALUE a line. It serves check.sh.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/volcano-sh/agentcube/internal/image"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "toerofs:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("toerofs", flag.ContinueOnError)
	store := flags.String("store", "", "directory of the image store")
	archive := flags.String("archive", "", "archive to import")
	config := flags.String("config", "", "file to write the environment to")
	if err := flags.Parse(args); err != nil {
		return err
	}
	s := image.New(image.Options{Dir: *store})
	if err := s.Open(ctx); err != nil {
		return err
	}
	img, err := s.Import(ctx, "", *archive, nil)
	if err != nil {
		return err
	}
	env := strings.Join(img.Config.Env, "\n") + "\n"
	if err := os.WriteFile(*config, []byte(env), 0o600); err != nil {
		return fmt.Errorf("write environment: %w", err)
	}
	fmt.Println(img.RootfsPath)
	return nil
}
