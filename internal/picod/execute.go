package picod

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/volcano-sh/agentcube/internal/picod/jail"
	"github.com/volcano-sh/agentcube/internal/picod/proc"
)

const defaultTimeout = 60 * time.Second

type executeRequest struct {
	Command    []string          `json:"command"`
	Timeout    string            `json:"timeout"`
	WorkingDir string            `json:"working_dir"`
	Env        map[string]string `json:"env"`
	Stdin      []byte            `json:"stdin"` // base64
	// Remove are files to be removed once the command has ended, whether or not
	// somebody waits for it: scripts that were uploaded to be run once.
	Remove []string `json:"remove"`
}

type executeResponse struct {
	Stdout          string  `json:"stdout"`
	Stderr          string  `json:"stderr"`
	ExitCode        int     `json:"exit_code"`
	Duration        float64 `json:"duration"`
	StartTime       string  `json:"start_time"`
	EndTime         string  `json:"end_time"`
	StdoutTruncated bool    `json:"stdout_truncated,omitempty"`
	StderrTruncated bool    `json:"stderr_truncated,omitempty"`
	StdoutBytes     int64   `json:"stdout_bytes,omitempty"`
	StderrBytes     int64   `json:"stderr_bytes,omitempty"`
	StdoutBase64    string  `json:"stdout_base64,omitempty"`
	StderrBase64    string  `json:"stderr_base64,omitempty"`
	// StartError is set when the command could not be started: "not_found",
	// "not_executable" or "other". The text is in stderr.
	StartError string `json:"start_error,omitempty"`
	// Removed: all that the request named under "remove" is gone. Clients that
	// do not find it set clean up by themselves.
	Removed bool `json:"removed,omitempty"`
}

// execute runs one command and answers with what became of it.
func (q *request) execute() *problem {
	var in executeRequest
	if p := q.readJSON(&in); p != nil {
		return p
	}
	cmd, p := q.command(in)
	if p != nil {
		return p
	}
	removals, p := q.removals(in.Remove)
	if p != nil {
		return p
	}
	q.freeBody()
	select {
	case q.slots <- struct{}{}:
		defer func() { <-q.slots }()
	default:
		return fault(http.StatusTooManyRequests, "TOO_MANY_EXECUTIONS",
			fmt.Sprintf("too many commands at a time (limit %d), try again later", q.cfg.MaxConcurrent))
	}
	start := time.Now()
	quiet := q.beat()
	res := q.runner.Run(q.r.Context(), cmd)
	quiet()
	end := time.Now()
	defer res.Release()
	removed := q.remove(removals)
	if res.Canceled {
		return nil // nobody is there to answer
	}
	out := answer(cmd, res, start, end)
	out.Removed = removed
	q.reply(http.StatusOK, false, out)
	return nil
}

// command checks a request and turns it into what is run.
func (q *request) command(in executeRequest) (proc.Command, *problem) {
	cmd := proc.Command{Argv: in.Command, Stdin: in.Stdin, MaxOutput: q.cfg.MaxOutputBytes}
	if q.zygote != nil {
		cmd.Forker = q.zygote
	}
	if in.Command == nil {
		return cmd, fault(http.StatusBadRequest, "INVALID_REQUEST", "Invalid request body: command is required")
	}
	if len(in.Command) == 0 {
		return cmd, fault(http.StatusBadRequest, "EMPTY_COMMAND", "command cannot be empty")
	}
	for _, arg := range in.Command {
		if strings.IndexByte(arg, 0) >= 0 {
			return cmd, fault(http.StatusBadRequest, "INVALID_REQUEST", "Invalid request body: command holds a NUL byte")
		}
	}
	if p := checkEnv(in.Env); p != nil {
		return cmd, p
	}
	var err error
	if cmd.Timeout, err = parseTimeout(in.Timeout); err != nil {
		return cmd, fault(http.StatusBadRequest, "INVALID_TIMEOUT", "Invalid timeout format: "+err.Error())
	}
	if cmd.Timeout > q.cfg.MaxTimeout {
		return cmd, fault(http.StatusBadRequest, "TIMEOUT_TOO_LONG", fmt.Sprintf("Invalid timeout: the maximum is %s", q.cfg.MaxTimeout))
	}
	dir, p := q.workingDir(in.WorkingDir)
	if p != nil {
		return cmd, p
	}
	cmd.Dir = dir
	cmd.Env = q.environment(in.Env, dir)
	return cmd, nil
}

// workingDir resolves and, where missing, makes the directory of a command.
func (q *request) workingDir(name string) (string, *problem) {
	if name == "" {
		return q.ws.Dir(), nil
	}
	invalid := func(err error) *problem {
		return fault(http.StatusBadRequest, "INVALID_WORKING_DIRECTORY", "Invalid working directory: "+err.Error())
	}
	rel, err := q.ws.Rel(name)
	if err != nil {
		return "", invalid(err)
	}
	resolved, left, err := q.ws.Resolve(rel)
	if errors.Is(err, jail.ErrEscapes) && left > 0 {
		// A directory that would have to be made behind a link to the outside
		// fails as making it, one that is there as leaving the workspace.
		if _, statErr := os.Stat(filepath.Join(q.ws.Dir(), rel)); errors.Is(statErr, fs.ErrNotExist) {
			return "", fault(http.StatusInternalServerError, "PATH_ESCAPES_WORKSPACE", "Failed to create working directory: "+err.Error())
		}
	}
	if err != nil {
		return "", invalid(err)
	}
	if err := q.ws.MkdirAll(resolved); err != nil {
		p := badPath(err, "Directory")
		p.status, p.text = max(p.status, http.StatusInternalServerError), "Failed to create working directory: "+p.text
		return "", p
	}
	return filepath.Join(q.ws.Dir(), resolved), nil
}

// traceVariable hands commands the step of a trace that their request is part of, so
// that they can go on with it, as OpenTelemetry has programs do.
const traceVariable = "TRACEPARENT"

// environment layers the daemon's, the session's and the request's variables. The
// step of the request's trace comes under those that a client has chosen.
func (q *request) environment(own map[string]string, dir string) []string {
	var session map[string]string
	if s := q.gate.Session(); s != nil {
		session = s.Env
	}
	base := q.env
	if q.parent.Valid() {
		base = append(base[:len(base):len(base)], traceVariable+"="+q.parent.String())
	}
	env := make([]string, 0, len(base)+len(session)+len(own)+1)
	for _, kv := range base {
		name, _, _ := strings.Cut(kv, "=")
		_, inSession := session[name]
		_, inOwn := own[name]
		if !inSession && !inOwn && name != "PWD" {
			env = append(env, kv)
		}
	}
	for name, value := range session {
		if _, over := own[name]; !over && name != "PWD" {
			env = append(env, name+"="+value)
		}
	}
	for name, value := range own {
		if name != "PWD" {
			env = append(env, name+"="+value)
		}
	}
	return append(env, "PWD="+dir)
}

// answer turns a result into what clients read.
func answer(cmd proc.Command, res *proc.Result, start, end time.Time) executeResponse {
	a := executeResponse{
		Stdout: res.Stdout.Text(), Stderr: res.Stderr.Text(), ExitCode: res.ExitCode,
		Duration:  end.Sub(start).Seconds(),
		StartTime: start.Format(time.RFC3339Nano), EndTime: end.Format(time.RFC3339Nano),
	}
	if res.Stdout.Truncated() {
		a.StdoutTruncated, a.StdoutBytes = true, res.Stdout.Total()
	}
	if res.Stderr.Truncated() {
		a.StderrTruncated, a.StderrBytes = true, res.Stderr.Total()
	}
	if !res.Stdout.Valid() {
		a.StdoutBase64 = base64.StdEncoding.EncodeToString(res.Stdout.Bytes())
	}
	if !res.Stderr.Valid() {
		a.StderrBase64 = base64.StdEncoding.EncodeToString(res.Stderr.Bytes())
	}
	if res.StartError != "" {
		a.Stderr, a.StartError = res.StartError, string(res.StartKind)
	}
	if res.TimedOut {
		if a.Stderr != "" && !strings.HasSuffix(a.Stderr, "\n") {
			a.Stderr += "\n"
		}
		a.Stderr += timedOut(cmd.Timeout)
	}
	return a
}
