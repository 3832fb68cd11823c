package cluster

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
)

// The program starts itself anew under these names: as the first process of the
// namespaces, and in them, to do what it is for.
const (
	initName   = "agentcube-cluster-init"
	insideName = "agentcube-cluster"
)

// Entered reports whether this process is where a node can run.
func Entered() bool { return os.Args[0] == insideName }

// Enter runs inside in namespaces of its own, and returns what it returned, for
// the process to exit with. The program is started anew for that, with the same
// arguments and files, so that nothing should have happened before. It needs root.
//
// Interrupting the process group interrupts what is inside, and SIGTERM is handed
// on to it; Enter returns after it in either case.
func Enter(inside func() int) (code int, err error) {
	switch os.Args[0] {
	case insideName:
		return inside(), nil
	case initName:
		return runInit()
	}
	if os.Geteuid() != 0 {
		return 1, errors.New("a node of Kubernetes needs namespaces and control groups, which only root can make")
	}
	p, err := makePlace(os.TempDir())
	if err != nil {
		return 1, err
	}
	code, err = runOutside(p)
	return code, errors.Join(err, p.remove())
}

// runOutside starts the first process of the namespaces, and waits for it. When it
// ends the kernel has ended all others.
func runOutside(p *place) (int, error) {
	self, err := os.Executable()
	if err != nil {
		return 1, fmt.Errorf("find own program: %w", err)
	}
	cmd := exec.Command(self, os.Args[1:]...) //nolint:noctx // a signal ends it, in an orderly way
	cmd.Args[0] = initName
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{p.folder}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS,
		Pdeathsig:  syscall.SIGKILL,
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return 1, fmt.Errorf("make namespaces: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		select {
		case got := <-signals:
			if got != syscall.SIGINT { // the terminal has sent it to all
				_ = cmd.Process.Signal(syscall.SIGTERM)
			}
		case err := <-ended:
			var exit *exec.ExitError
			if err != nil && !errors.As(err, &exit) {
				return 1, fmt.Errorf("wait for namespaces: %w", err)
			}
			return exitCode(cmd.ProcessState.Sys().(syscall.WaitStatus)), nil
		}
	}
}

// runInit is the life of the first process: it furnishes the namespaces, starts the
// program in them, and buries whatever dies until that does.
func runInit() (int, error) {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	folder := os.NewFile(3, "folder")
	self, err := os.Executable()
	if err != nil {
		return 1, fmt.Errorf("find own program: %w", err)
	}
	if err := furnish(folder); err != nil {
		return 1, fmt.Errorf("furnish namespaces: %w", err)
	}
	child, err := os.StartProcess(self, append([]string{insideName}, os.Args[1:]...), &os.ProcAttr{
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
	})
	if err != nil {
		return 1, fmt.Errorf("start %s: %w", self, err)
	}
	go func() {
		for got := range signals {
			if got == syscall.SIGTERM {
				_ = child.Signal(syscall.SIGTERM)
			}
		}
	}()
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return 1, fmt.Errorf("wait for processes: %w", err)
		case pid == child.Pid:
			return exitCode(status), nil
		}
	}
}

// exitCode is the status as a shell would say it.
func exitCode(status syscall.WaitStatus) int {
	if status.Signaled() {
		return 128 + int(status.Signal())
	}
	return status.ExitStatus()
}
