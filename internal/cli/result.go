package cli

import (
	"fmt"
	"unicode/utf8"

	"github.com/volcano-sh/agentcube/client"
)

// result is what became of a command, for programs.
type result struct {
	// SessionID is there when the session stays.
	SessionID string `json:"sessionId,omitempty"`
	// ExitCode is that of this program too.
	ExitCode int    `json:"exitCode"`
	Stdout   string `json:"stdout"`
	Stderr   string `json:"stderr"`
	// The output byte for byte, where it is not UTF-8.
	StdoutBase64 []byte `json:"stdoutBase64,omitempty"`
	StderrBase64 []byte `json:"stderrBase64,omitempty"`
	// The middle of longer output is missing.
	StdoutTruncated bool `json:"stdoutTruncated"`
	StderrTruncated bool `json:"stderrTruncated"`
	// StartError is "" when the command began.
	StartError string  `json:"startError,omitempty"`
	Seconds    float64 `json:"seconds"`
}

func newResult(res client.ExecResult, sessionID string) result {
	exact := func(out []byte) []byte {
		if utf8.Valid(out) {
			return nil
		}
		return out
	}
	return result{
		SessionID: sessionID, ExitCode: commandExit(res), Stdout: string(res.Stdout), Stderr: string(res.Stderr),
		StdoutBase64: exact(res.Stdout), StderrBase64: exact(res.Stderr),
		StdoutTruncated: res.StdoutTruncated, StderrTruncated: res.StderrTruncated,
		StartError: string(res.StartError), Seconds: res.Duration.Seconds(),
	}
}

// passOutput passes the output of a command through, or writes all that became
// of it as one document. kept is the id of the session, if it stays.
func (a *app) passOutput(res client.ExecResult, kept string) error {
	if a.output == outputJSON {
		return encodeJSON(a.Stdout, newResult(res, kept))
	}
	if _, err := a.Stdout.Write(res.Stdout); err != nil {
		return fmt.Errorf("write stdout: %w", err)
	}
	if _, err := a.Stderr.Write(res.Stderr); err != nil {
		return fmt.Errorf("write stderr: %w", err)
	}
	// What PicoD adds, such as that the time was over, has no line end.
	if n := len(res.Stderr); n > 0 && res.Stderr[n-1] != '\n' && isTerminal(a.Stderr) {
		fmt.Fprintln(a.Stderr)
	}
	if res.StdoutTruncated || res.StderrTruncated {
		fmt.Fprintln(a.Stderr, "agentcube: warning: the output was longer than what is kept; the middle is missing")
	}
	return nil
}
