package bench

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"
)

// nativeLoop runs a command for every line it reads, and says how long that
// took. Its arguments are the function of the module subprocess to run it with,
// and the command.
const nativeLoop = `
import subprocess, sys, time
call = getattr(subprocess, sys.argv[1])
for line in sys.stdin:
    begin = time.perf_counter()
    call(sys.argv[2:])
    print((time.perf_counter() - begin) * 1000, flush=True)
`

// realPython is the interpreter behind a name, which may be a script that
// chooses one.
func realPython(ctx context.Context, name string) (string, error) {
	out, err := exec.CommandContext(ctx, name, "-c", "import sys; print(sys.executable)").Output()
	if err != nil {
		return "", fmt.Errorf("start %s: %w", name, err)
	}
	return strings.TrimSpace(string(out)), nil
}

// native is a Python process on this machine that runs commands.
type native struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func startNative(ctx context.Context, python string, call []string) (*native, error) {
	n := &native{cmd: exec.CommandContext(ctx, python, append([]string{"-c", nativeLoop}, call...)...)}
	var err error
	if n.in, err = n.cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("start %s: %w", python, err)
	}
	out, err := n.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", python, err)
	}
	n.out = bufio.NewReader(out)
	if err := n.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", python, err)
	}
	return n, nil
}

// run runs the command and returns the milliseconds that Python measured.
func (n *native) run() (float64, error) {
	if _, err := io.WriteString(n.in, "\n"); err != nil {
		return 0, fmt.Errorf("run command natively: %w", err)
	}
	line, err := n.out.ReadString('\n')
	if err != nil {
		return 0, fmt.Errorf("run command natively: %w", err)
	}
	return strconv.ParseFloat(strings.TrimSpace(line), 64)
}

// stop ends the process, which leaves its loop when its input ends.
func (n *native) stop() {
	_ = n.in.Close()
	_ = n.cmd.Wait()
}
