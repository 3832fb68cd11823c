package cli_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"github.com/volcano-sh/agentcube/internal/cli"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"agentcube": func() {
			os.Exit(cli.Main(cli.Process{
				Args: os.Args[1:], Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Version: "1.2.3-test",
			}))
		},
	})
}

// TestScript runs the program itself, as far as that needs no sandbox.
func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("HOME", filepath.Join(env.WorkDir, "home"))
			env.Setenv("XDG_CONFIG_HOME", "")
			env.Setenv("XDG_STATE_HOME", "")
			env.Setenv("AGENTCUBE_DATA_DIR", filepath.Join(env.WorkDir, "data"))
			env.Setenv("AGENTCUBE_TEMPLATE_DIR", filepath.Join(env.WorkDir, "templates"))
			if slices.Contains([]string{"script-completion", "script-exec", "script-given", "script-invoke", "script-sleep", "script-tokens"}, filepath.Base(env.WorkDir)) {
				if err := servePlanes(env); err != nil {
					return err
				}
			}
			if err := takePort(env); err != nil {
				return err
			}
			return takeDataDir(env)
		},
	})
}

// takePort holds a port for the script to find taken, and names one where
// nothing listens.
func takePort(env *testscript.Env) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	env.Defer(func() { _ = l.Close() })
	env.Setenv("TAKEN", l.Addr().String())
	env.Setenv("SELF", fmt.Sprint(os.Getpid()))
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	env.Setenv("NOBODY", free.Addr().String())
	return free.Close()
}

// takeDataDir holds a data folder as a running AgentCube does.
func takeDataDir(env *testscript.Env) error {
	dir := filepath.Join(env.WorkDir, "held")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(dir, "agentcube.lock"))
	if err != nil {
		return err
	}
	env.Defer(func() { _ = f.Close() })
	if _, err := f.WriteString("4242\n"); err != nil {
		return err
	}
	return unix.Flock(int(f.Fd()), unix.LOCK_EX)
}
