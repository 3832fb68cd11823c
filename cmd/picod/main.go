// Command picod is the agent inside a sandbox. See package picod for what it
// does; here its flags and environment become a Config.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/volcano-sh/agentcube/internal/hostlink"
	"github.com/volcano-sh/agentcube/internal/picod"
	"github.com/volcano-sh/agentcube/internal/picod/proc"
	"github.com/volcano-sh/agentcube/internal/picod/token"
	"github.com/volcano-sh/agentcube/internal/trunk"
)

const (
	defaultKeyFile = "/etc/picod/public-key.pem"
	ownPrefix      = "PICOD_" // of variables that commands do not see
	routerKeyVar   = ownPrefix + "AUTH_PUBLIC_KEY"
	sandboxVar     = ownPrefix + "SANDBOX_ID"
	sessionVar     = ownPrefix + "SESSION_ID"
	minProcs       = 4
)

func main() {
	err := run(os.Args[1:], os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "picod:", err)
		os.Exit(1)
	}
}

func run(args []string, stderr io.Writer) error {
	switch {
	case len(args) > 0 && args[0] == "relay":
		return relay()
	case len(args) > 0 && args[0] == "attach":
		return picod.Attach()
	case len(args) > 0 && args[0] == "install":
		if len(args) != 2 {
			return errors.New("install wants one path")
		}
		return install(args[1])
	}
	cfg, err := configure(args, stderr)
	if err != nil {
		return err
	}
	for _, kv := range os.Environ() {
		if name, _, _ := strings.Cut(kv, "="); strings.HasPrefix(name, ownPrefix) {
			_ = os.Unsetenv(name)
		}
	}
	// A command that is waited for holds a processor until the scheduler takes
	// it back; with one or two of them, other requests would feel that.
	if runtime.GOMAXPROCS(0) < minProcs {
		runtime.GOMAXPROCS(minProcs)
	}
	if err := proc.Harden(cfg.RunAs != nil); err != nil {
		return fmt.Errorf("harden: %w", err)
	}
	server, err := picod.New(cfg, slog.New(slog.NewJSONHandler(stderr, nil)))
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	return server.Run(ctx)
}

// configure turns flags and environment into a Config.
func configure(args []string, stderr io.Writer) (picod.Config, error) {
	cfg := picod.DefaultConfig()
	cfg.IsInit, cfg.Accounts = true, "/etc"
	fl := flag.NewFlagSet("picod", flag.ContinueOnError)
	fl.SetOutput(stderr)
	fl.IntVar(&cfg.Port, "port", cfg.Port, "TCP `port` to listen on, on all interfaces")
	fl.StringVar(&cfg.Workspace, "workspace", ".", "`directory` of files and commands; made if missing")
	keyFile := fl.String("bootstrap-key", "", "`file` with the public key that may initialise (default "+defaultKeyFile+")")
	keyVar := fl.String("bootstrap-key-env", ownPrefix+"BOOTSTRAP_KEY", "environment `variable` with that key, instead of a file")
	hostFD := fl.Int("host-fd", 0, "first of the four file `descriptors` of a line to the host, besides the port; 0: none")
	runAs := fl.String("run-as", "", "`uid:gid` of commands; default: the user of picod")
	fl.IntVar(&cfg.MaxProcesses, "max-processes", 0, "processes of all commands together, which takes a cgroup-dir; 0: no limit")
	fl.IntVar(&cfg.MaxOutputBytes, "max-output-bytes", cfg.MaxOutputBytes, "`bytes` kept of each output stream")
	fl.IntVar(&cfg.MaxConcurrent, "max-concurrent", cfg.MaxConcurrent, "commands at a time")
	fl.IntVar(&cfg.MaxConnections, "max-connections", cfg.MaxConnections, "connections at a time, besides the host's own")
	fl.DurationVar(&cfg.MaxTimeout, "max-timeout", cfg.MaxTimeout, "longest time-out of a command")
	fl.Int64Var(&cfg.MaxUploadBytes, "max-upload-bytes", cfg.MaxUploadBytes, "largest multipart upload in `bytes`")
	fl.BoolVar(&cfg.PythonZygote, "python-zygote", false, "keep a started Python interpreter ready for runs of python3")
	preload := fl.String("preload", "", "`modules`, separated by commas, that it imports ahead")
	fl.StringVar(&cfg.StateDir, "state-dir", "", "`directory` where the session survives a restart of picod; default: nowhere")
	fl.Func("unmount", "`mount point` to unmount first, if it is one; may be repeated", unmount)
	fl.StringVar(&cfg.CgroupDir, "cgroup-dir", cfg.CgroupDir, "`directory` for control groups of commands; empty: use none")
	if err := fl.Parse(args); err != nil {
		return cfg, err
	}
	if fl.NArg() > 0 {
		return cfg, fmt.Errorf("unexpected argument %q", fl.Arg(0))
	}
	var err error
	if cfg.Workspace, err = filepath.Abs(cfg.Workspace); err != nil {
		return cfg, fmt.Errorf("find workspace: %w", err)
	}
	if cfg.RunAs, err = parseAccount(*runAs); err != nil {
		return cfg, err
	}
	if *preload != "" {
		cfg.Preload = strings.Split(*preload, ",")
	}
	if *hostFD != 0 {
		if cfg.Host, err = hostFrom(*hostFD); err != nil {
			return cfg, err
		}
	}
	cfg.SandboxID, cfg.SessionID = os.Getenv(sandboxVar), os.Getenv(sessionVar)
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(name, ownPrefix) && name != *keyVar {
			cfg.Env = append(cfg.Env, kv)
		}
	}
	return cfg, readKeys(&cfg, *keyFile, *keyVar)
}

// relay serves a trunk on its standard input and output: it connects the host
// to TCP ports on the sandbox's loopback interface. The driver starts it where
// the first process is not PicoD.
func relay() error {
	line := hostlink.Pair{In: os.Stdin, Out: os.Stdout}
	return trunk.Serve(context.Background(), line, trunk.Loopback)
}

// hostFrom takes the line that the driver left at four file descriptors.
func hostFrom(first int) (*hostlink.Files, error) {
	var line hostlink.Files
	for i := range line {
		fd := first + i
		if err := unix.SetNonblock(fd, true); err != nil {
			return nil, fmt.Errorf("use host line: %w", err)
		}
		unix.CloseOnExec(fd)
		line[i] = os.NewFile(uintptr(fd), "host line")
	}
	return &line, nil
}

// unmount uncovers a directory. gVisor puts a file system of its own on an
// empty /tmp, which the limit on the root file system would not count.
func unmount(path string) error {
	err := unix.Unmount(path, unix.MNT_DETACH)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("unmount %s: %w", path, err)
	}
	return nil
}

// readKeys finds the keys: the router's in the environment, the bootstrap key
// there or in a file.
func readKeys(cfg *picod.Config, keyFile, keyVar string) (err error) {
	if text := os.Getenv(routerKeyVar); text != "" {
		if cfg.RouterKey, err = token.ParseKey([]byte(text)); err != nil {
			return fmt.Errorf("read %s: %w", routerKeyVar, err)
		}
	}
	text := []byte(os.Getenv(keyVar))
	if len(text) == 0 {
		file := keyFile
		if file == "" {
			file = defaultKeyFile
		}
		text, err = os.ReadFile(file)
		if keyFile == "" && (cfg.RouterKey != nil || cfg.Host != nil) && errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read bootstrap key: %w", err)
		}
	}
	if cfg.Bootstrap, err = token.ParseKey(text); err != nil {
		return fmt.Errorf("read bootstrap key: %w", err)
	}
	return nil
}

// parseAccount reads uid:gid. The daemon's own user is no other user.
func parseAccount(text string) (*picod.Account, error) {
	if text == "" {
		return nil, nil
	}
	u, g, _ := strings.Cut(text, ":")
	uid, uidErr := strconv.ParseUint(u, 10, 31)
	gid, gidErr := strconv.ParseUint(g, 10, 31)
	if uidErr != nil || gidErr != nil {
		return nil, fmt.Errorf("run-as %q is not uid:gid in numbers", text)
	}
	if int(uid) == os.Geteuid() && int(gid) == os.Getegid() {
		return nil, nil
	}
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("run-as %q needs picod to be root", text)
	}
	return &picod.Account{UID: uint32(uid), GID: uint32(gid)}, nil
}
