// Package cli is the agentcube command: one file per command, and all the
// wiring of the parts into the one process that `agentcube up` is.
//
// Main runs one invocation and returns its exit code; nothing else in the
// package ends the process. Commands return errors, and errors.go alone says
// what becomes of them: one line, a hint where there is one, an exit code.
package cli
