package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/volcano-sh/agentcube/client"
	"github.com/volcano-sh/agentcube/internal/httpserve"
	"github.com/volcano-sh/agentcube/internal/image"
)

// Exit codes; `agentcube help exit-codes` is the same list for people.
const (
	exitOK           = 0
	exitFailure      = 1
	exitUsage        = 2
	exitUnreachable  = 3
	exitNotFound     = 4
	exitUnauthorized = 5
	exitTimeout      = 124
	// In run and session exec, codes below 124 are the command's own.
	exitOurs        = 125
	exitNotStarted  = 126
	exitNoCommand   = 127
	exitInterrupted = 130
	exitKilled      = 137
)

// cliError is a failure of which a command knows more than the error says.
type cliError struct {
	code int    // exit code; 0 lets the cause decide
	err  error  // nil: print nothing, only exit
	hint string // what to do about it
}

func (e *cliError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *cliError) Unwrap() error { return e.err }

// withHint adds what to do about err.
func withHint(err error, hint string) error { return &cliError{err: err, hint: hint} }

func usageError(cmd *cobra.Command, err error) error {
	return &cliError{code: exitUsage, err: err, hint: "`" + cmd.CommandPath() + " --help` shows how to use it"}
}

// exitWith ends the invocation with a code and without a message.
func exitWith(code int) error {
	if code == 0 {
		return nil
	}
	return &cliError{code: code}
}

// failure is an error as it is shown.
type failure struct {
	Error     string `json:"error"`
	Code      string `json:"code,omitempty"`
	Hint      string `json:"hint,omitempty"`
	RequestID string `json:"requestId,omitempty"`
	Fate      string `json:"fate,omitempty"`
	ExitCode  int    `json:"exitCode"`
}

// report prints err to stderr and returns the exit code.
func (a *app) report(ctx context.Context, err error) int {
	f := a.describe(ctx, err)
	var own *cliError
	if errors.As(err, &own) && own.err == nil {
		return f.ExitCode
	}
	if a.output == outputJSON {
		raw, merr := json.Marshal(f)
		if merr == nil {
			fmt.Fprintf(a.Stderr, "%s\n", raw)
			return f.ExitCode
		}
	}
	// One line, whatever the cause holds.
	fmt.Fprintf(a.Stderr, "agentcube: %s\n", oneLine(f.Error))
	if f.Hint != "" {
		fmt.Fprintf(a.Stderr, "hint: %s\n", oneLine(f.Hint))
	}
	return f.ExitCode
}

func (a *app) describe(ctx context.Context, err error) failure {
	f := failure{Error: err.Error(), ExitCode: a.exitCode(ctx, err)}
	var apiErr *client.APIError
	if errors.As(err, &apiErr) {
		f.Code, f.Hint, f.RequestID, f.Fate = string(apiErr.Code), apiErr.Hint, apiErr.RequestID, string(apiErr.Fate)
		if f.Hint == "" && errors.Is(err, client.ErrUnauthorized) {
			f.Hint = "is the token right? `agentcube doctor` checks the token file"
		}
	}
	var imageErr *image.Error
	if errors.As(err, &imageErr) {
		f.Code, f.Hint = string(imageErr.Code), imageErr.Hint
	}
	var own *cliError
	var hinted interface{ Hint() string }
	var inUse *httpserve.AddrInUseError
	switch {
	case errors.As(err, &own) && own.hint != "":
		f.Hint = own.hint
	case errors.As(err, &hinted):
		f.Hint = hinted.Hint()
	case errors.As(err, &inUse):
		f.Hint = "stop that process, or choose another address with --listen"
	case errors.Is(err, client.ErrUnreachable):
		f.Hint = "is it running? `agentcube up` starts it; --server names another address"
	case errors.Is(err, context.DeadlineExceeded) && f.Hint == "":
		f.Hint = "the time-out can be raised where the command has --timeout"
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		f.Error, f.Hint = "interrupted", ""
	}
	return f
}

func (a *app) exitCode(ctx context.Context, err error) int {
	var own *cliError
	if errors.As(err, &own) && own.code != 0 {
		if own.code == exitUsage && a.passthrough {
			return exitOurs
		}
		return own.code
	}
	switch {
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		return exitInterrupted
	case errors.Is(err, context.DeadlineExceeded):
		return exitTimeout
	case a.passthrough:
		return exitOurs
	case errors.Is(err, client.ErrUnreachable):
		return exitUnreachable
	case errors.Is(err, client.ErrNotFound), errors.Is(err, client.ErrSessionEnded), errors.Is(err, client.ErrCheckpointUnusable),
		image.CodeOf(err) == image.CodeNotFound:
		return exitNotFound
	case errors.Is(err, client.ErrUnauthorized):
		return exitUnauthorized
	}
	return exitFailure
}

// oneLine joins lines and makes what would move the cursor visible.
func oneLine(s string) string {
	return printable(strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' }), "; "))
}
