// Package agent carries the programs of a sandbox: PicoD, which runs inside,
// and gVisor's kernel, which the sandbox is.
package agent

import (
	"embed"
	"errors"
)

// The directory always holds README, so that the package compiles before the
// programs have been built.
//
//go:embed bin
var files embed.FS

// ErrMissing says that the program was built without PicoD inside.
var ErrMissing = errors.New("this build has no picod inside: build it with make")

// Binary is the static PicoD executable for this platform.
func Binary() ([]byte, error) {
	b, err := files.ReadFile("bin/picod")
	if err != nil {
		return nil, ErrMissing
	}
	return b, nil
}
