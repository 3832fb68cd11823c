// Command cluster runs a Kubernetes for as long as a command runs in it:
//
//	cluster --binaries build/kubernetes [--tier apiserver|controllers|node|services] [--logs DIR] [--image NAME=ARCHIVE]... [-- COMMAND ARGUMENT...]
//
// KUBECONFIG and PATH of the command, or of a shell, are such that kubectl works.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/volcano-sh/agentcube/test/kubernetes/cluster"
)

func main() {
	code, err := cluster.Enter(func() int {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
		defer stop()
		code, err := run(ctx)
		if err != nil {
			fmt.Fprintf(os.Stderr, "cluster: %v\n", err)
		}
		return code
	})
	if err != nil {
		fmt.Fprintf(os.Stderr, "cluster: %v\n", err)
		code = 1
	}
	os.Exit(code)
}

func run(ctx context.Context) (code int, err error) {
	flags := flag.NewFlagSet("cluster", flag.ContinueOnError)
	var options cluster.Options
	images := map[string]string{}
	flags.StringVar(&options.Binaries, "binaries", "build/kubernetes", "folder of programs that build.sh has made")
	flags.StringVar(&options.Logs, "logs", "", "folder for what the programs say (default: none is kept)")
	tier := flags.String("tier", "node", "apiserver, controllers, node or services")
	flags.Func("image", "name, with its host, and path of an OCI archive to load; any number", func(value string) error {
		name, archive, found := strings.Cut(value, "=")
		if !found {
			return errors.New("it is NAME=ARCHIVE")
		}
		images[name] = archive
		return nil
	})
	if err := flags.Parse(os.Args[1:]); err != nil {
		return 2, nil // it has said why
	}
	switch *tier {
	case "apiserver":
	case "controllers":
		options.Controllers = true
	case "node":
		options.Node = true
	case "services":
		options.Services = true
	default:
		return 2, fmt.Errorf("there is no tier %q", *tier)
	}
	began := time.Now()
	c, err := cluster.Start(ctx, options)
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, c.Stop()) }()
	fmt.Fprintf(os.Stderr, "cluster: ready after %.1f s\n", time.Since(began).Seconds())
	for name, archive := range images {
		if err := c.LoadImage(ctx, archive, name); err != nil {
			return 1, err
		}
	}
	return command(ctx, flags.Args(), c, options.Binaries)
}

// command runs what was asked for, or a shell, and returns how it ended.
func command(ctx context.Context, args []string, c *cluster.Cluster, binaries string) (int, error) {
	if len(args) == 0 {
		args = []string{"bash", "--norc"}
	}
	binaries, err := filepath.Abs(binaries)
	if err != nil {
		return 1, fmt.Errorf("find binaries: %w", err)
	}
	path := binaries + string(os.PathListSeparator) + os.Getenv("PATH")
	if err := os.Setenv("PATH", path); err != nil { // the command itself may be kubectl
		return 1, fmt.Errorf("set PATH: %w", err)
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.Kubeconfig, "PS1=cluster$ ")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode(), nil
	}
	if err != nil {
		return 1, fmt.Errorf("run %s: %w", args[0], err)
	}
	return 0, nil
}
