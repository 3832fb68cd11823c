package e2e

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// setup is what `make test-e2e` says, and what the tests share.
type setup struct {
	bin    string // the agentcube binary
	image  string // archive of the default image
	python string // interpreter that has the SDK
	readme string // the README that the SDK has to fulfil
	root   string // the repository
	dir    string // removed at the end
	seed   string // image store with the default image in it
	at     *installation
	shared *server // which at is, when these tests have started it

	// How much the tests of sleep do; AGENTCUBE_E2E_PAUSES and
	// AGENTCUBE_E2E_SLEEPERS make it more.
	pauses   int // of one session
	sleepers int // sessions at once
}

// env is set by TestMain before any test runs, and never changed.
var env setup

func TestMain(m *testing.M) {
	code, err := runTests(m)
	if err != nil {
		fmt.Fprintf(os.Stderr, "end-to-end tests: %v\n", err)
		code = 1
	}
	os.Exit(code)
}

func runTests(m *testing.M) (code int, err error) {
	for variable, to := range map[string]*string{
		"AGENTCUBE_BIN": &env.bin, "AGENTCUBE_IMAGE": &env.image,
		"AGENTCUBE_PYTHON": &env.python, "AGENTCUBE_SDK_README": &env.readme,
	} {
		if *to = os.Getenv(variable); *to == "" {
			return 1, fmt.Errorf("%s is not set; run them with: make test-e2e", variable)
		}
		if _, err := os.Stat(*to); err != nil {
			return 1, fmt.Errorf("%s names what is not there: %w; run them with: make test-e2e", variable, err)
		}
	}
	env.pauses, env.sleepers = 50, 20
	for variable, to := range map[string]*int{"AGENTCUBE_E2E_PAUSES": &env.pauses, "AGENTCUBE_E2E_SLEEPERS": &env.sleepers} {
		if text := os.Getenv(variable); text != "" {
			if *to, err = strconv.Atoi(text); err != nil {
				return 1, fmt.Errorf("%s is no number: %w", variable, err)
			}
		}
	}
	if env.root, err = filepath.Abs("../.."); err != nil {
		return 1, err
	}
	// The name is short because sockets of sandboxes are below it.
	if env.dir, err = os.MkdirTemp("", "ac"); err != nil {
		return 1, err
	}
	defer os.RemoveAll(env.dir)
	if file := os.Getenv(InstallationVariable); file != "" {
		if env.at, err = installed(file); err != nil {
			return 1, err
		}
		flag.Parse()
		if err := flag.Set("test.run", "^("+strings.Join(Anywhere(), "|")+")$"); err != nil {
			return 1, err
		}
		return m.Run(), nil
	}
	if os.Geteuid() != 0 {
		return 1, fmt.Errorf("sandboxes can only be made by root; run them with: sudo make test-e2e")
	}
	// The first server imports the image for all others.
	if env.shared, err = prepareServer(filepath.Join(env.dir, "s"), "--image-archive", env.image); err != nil {
		return 1, err
	}
	if err := env.shared.start(); err != nil {
		return 1, err
	}
	env.seed = filepath.Join(env.shared.data, "images")
	if env.at, err = env.shared.asInstallation(); err != nil {
		return 1, errors.Join(err, env.shared.stop())
	}
	code = m.Run()
	if err := env.shared.stop(); err != nil {
		return 1, err
	}
	if code != 0 {
		fmt.Fprintf(os.Stderr, "log of the shared server:\n%s\n", env.shared.log())
	}
	return code, env.shared.remove()
}
