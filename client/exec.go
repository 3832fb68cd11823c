package client

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// DefaultTimeout is the time-out of a command when ExecRequest says none.
const DefaultTimeout = time.Minute

// execGrace is how much longer than the command's own time-out Execute waits
// for the answer, for the way there and back and output yet to be carried.
const execGrace = 30 * time.Second

// TimedOutExitCode is the exit code of a command that its time-out ended.
const TimedOutExitCode = 124

// ExecRequest is a command to run.
type ExecRequest struct {
	// Command is the program and its arguments. No shell is involved.
	Command []string
	// Timeout ends the command and all it started; 0 means DefaultTimeout.
	Timeout time.Duration
	// WorkingDir is relative to the workspace, or absolute inside it; empty
	// means the workspace. It is made when it does not exist.
	WorkingDir string
	// Env is added to the command's environment.
	Env map[string]string
	// Stdin is the command's standard input; nil means none.
	Stdin []byte
	// Remove lists files of the workspace that are removed when the command has
	// ended, such as the script that it ran; at most 16. Servers older than this
	// leave them.
	Remove []string
}

// StartError is why a command could not be started.
type StartError string

// The reasons; the text for people is in ExecResult.Stderr.
const (
	// StartNotFound: there is no such program.
	StartNotFound StartError = "not_found"
	// StartNotExecutable: the file is there, but cannot be run.
	StartNotExecutable StartError = "not_executable"
	// StartOther: something else, such as too many processes.
	StartOther StartError = "other"
)

// ExecResult is what became of a command that ran. A command that fails is a
// result, not an error: look at ExitCode.
type ExecResult struct {
	// ExitCode is the command's own; TimedOutExitCode after a time-out, 1 when
	// it could not be started, -1 when a signal ended it.
	ExitCode int
	// StartError is why the command could not be started; "" when it was, and
	// when the sandbox does not say.
	StartError StartError
	// Stdout and Stderr are the output, byte for byte.
	Stdout, Stderr []byte
	// StdoutTruncated and StderrTruncated tell that there was more output than
	// the sandbox keeps.
	StdoutTruncated, StderrTruncated bool
	// StartTime and EndTime are by the clock of the sandbox.
	StartTime, EndTime time.Time
	// Duration is how long the command ran.
	Duration time.Duration
}

type execBody struct {
	Command    []string          `json:"command"`
	Timeout    string            `json:"timeout,omitempty"`
	WorkingDir string            `json:"working_dir,omitempty"`
	Env        map[string]string `json:"env,omitempty"`
	Stdin      []byte            `json:"stdin,omitempty"`
	Remove     []string          `json:"remove,omitempty"`
}

type execAnswer struct {
	ExitCode        int       `json:"exit_code"`
	StartError      string    `json:"start_error"`
	Stdout          string    `json:"stdout"`
	Stderr          string    `json:"stderr"`
	StdoutBase64    string    `json:"stdout_base64"`
	StderrBase64    string    `json:"stderr_base64"`
	StdoutTruncated bool      `json:"stdout_truncated"`
	StderrTruncated bool      `json:"stderr_truncated"`
	Duration        float64   `json:"duration"`
	StartTime       time.Time `json:"start_time"`
	EndTime         time.Time `json:"end_time"`
}

// Execute runs a command and returns when it has ended. When ctx ends first,
// the command is ended too.
func (s *Session) Execute(ctx context.Context, req ExecRequest) (ExecResult, error) {
	if len(req.Command) == 0 {
		return ExecResult{}, errors.New("execute: command is empty")
	}
	if req.Timeout < 0 {
		return ExecResult{}, fmt.Errorf("execute: timeout %s is negative", req.Timeout)
	}
	if req.Timeout == 0 {
		req.Timeout = DefaultTimeout
	}
	raw, err := json.Marshal(execBody{
		Command: req.Command, Timeout: req.Timeout.String(), WorkingDir: req.WorkingDir, Env: req.Env,
		Stdin: req.Stdin, Remove: req.Remove,
	})
	if err != nil {
		return ExecResult{}, fmt.Errorf("encode execute request: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, req.Timeout+execGrace)
	defer cancel()
	in := s.invocation(http.MethodPost, "api/execute")
	in.json = raw
	var out execAnswer
	if err := s.c.sendJSON(ctx, in, &out); err != nil {
		return ExecResult{}, fmt.Errorf("execute: %w", err)
	}
	return out.result()
}

func (a execAnswer) result() (ExecResult, error) {
	stdout, err := output(a.Stdout, a.StdoutBase64)
	if err != nil {
		return ExecResult{}, fmt.Errorf("decode stdout: %w", err)
	}
	stderr, err := output(a.Stderr, a.StderrBase64)
	if err != nil {
		return ExecResult{}, fmt.Errorf("decode stderr: %w", err)
	}
	return ExecResult{
		ExitCode: a.ExitCode, StartError: StartError(a.StartError),
		Stdout: stdout, Stderr: stderr,
		StdoutTruncated: a.StdoutTruncated, StderrTruncated: a.StderrTruncated,
		StartTime: a.StartTime, EndTime: a.EndTime,
		Duration: time.Duration(a.Duration * float64(time.Second)),
	}, nil
}

// output prefers the exact bytes, which are sent when the text is not UTF-8.
func output(text, exact string) ([]byte, error) {
	if exact == "" {
		return []byte(text), nil
	}
	return base64.StdEncoding.DecodeString(exact)
}
