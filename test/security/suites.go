package security

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

const (
	// buildTime is how long a test program may take to be built.
	buildTime = 15 * time.Minute
	// testTime is how long the tests of one folder may take; those of the whole
	// program take the longest.
	testTime = 20 * time.Minute
	// noticeTime is how long a test may take to notice something, and waitTime how long
	// one is left alone that waits; as it is it takes a few seconds.
	noticeTime = 2 * time.Minute
	waitTime   = 20 * time.Second
)

// errWaited is about tests that did not end in time.
var errWaited = errors.New("the tests did not end in time")

// workshop is where programs are built and tests are run.
type workshop struct {
	root    string // of the repository
	dir     string // for what is made
	python  string // that has what the SDK's tests need
	goFlags string // what the go command is told anyway
}

// result is what became of tests: "PASS", "FAIL" or "SKIP" by name, and "" of one
// that did not come to its end.
type result struct {
	of     map[string]string
	output string
}

// changed is a file with other content than it has; the zero value is none.
type changed struct{ file, content string }

// run runs tests that are all in one folder, with a file changed.
func (w workshop) run(ctx context.Context, limit time.Duration, in string, names []string, with changed) (result, error) {
	if (Test{In: in}).Python() {
		return w.runPython(ctx, limit, in, names, with)
	}
	return w.runGo(ctx, limit, in, names, with)
}

var goResult = regexp.MustCompile(`(?m)^--- (PASS|FAIL|SKIP): (\w+) \(`)

// runGo builds the tests of a package apart from running them, as what does not
// compile must not look like a test that fails.
func (w workshop) runGo(ctx context.Context, limit time.Duration, in string, names []string, with changed) (result, error) {
	env, err := w.overlay(with)
	if err != nil {
		return result{}, err
	}
	program := filepath.Join(w.dir, "program.test")
	os.Remove(program) // of a package without tests none is made
	built, err := command(ctx, buildTime, w.root, env, "go", "test", "-c", "-vet=off", "-o", program, "./"+in)
	if err != nil {
		return result{}, err
	}
	if built.code != 0 {
		return result{}, fmt.Errorf("it does not compile:\n%s", built.output)
	}
	ran, err := command(ctx, limit+endTime, filepath.Join(w.root, in), env, program,
		"-test.v", "-test.timeout="+limit.String(), "-test.run="+pattern(names))
	if err != nil {
		return result{}, fmt.Errorf("%w\n%s", err, tail(ran.output))
	}
	if strings.Contains(ran.output, "panic: test timed out after") {
		return result{}, fmt.Errorf("%w, %v:\n%s", errWaited, limit, tail(ran.output))
	}
	of := map[string]string{}
	for _, m := range goResult.FindAllStringSubmatch(ran.output, -1) {
		of[m[2]] = m[1]
	}
	if failed := strings.Contains(ran.output, "--- FAIL: "); ran.code != 0 && !failed {
		return result{}, fmt.Errorf("the test program failed, and no test of it:\n%s", tail(ran.output))
	}
	return result{of, ran.output}, nil
}

// pattern matches tests by their names, or one part of a test.
func pattern(names []string) string {
	if len(names) == 1 {
		return "^" + strings.ReplaceAll(names[0], "/", "$/^") + "$"
	}
	return "^(" + strings.Join(names, "|") + ")$"
}

// overlay is how the go command hears of a file that is changed, also where a test
// calls it.
func (w workshop) overlay(with changed) (env []string, err error) {
	env = []string{"CGO_ENABLED=0"} // what starts gVisor cannot be built with it
	if with.file == "" {
		return env, nil
	}
	instead := filepath.Join(w.dir, "changed.go")
	text, err := json.Marshal(map[string]any{"Replace": map[string]string{filepath.Join(w.root, with.file): instead}})
	if err != nil {
		return nil, fmt.Errorf("encode overlay: %w", err)
	}
	list := filepath.Join(w.dir, "overlay.json")
	err = errors.Join(os.WriteFile(instead, []byte(with.content), 0o600), os.WriteFile(list, text, 0o600))
	return append(env, "GOFLAGS="+w.goFlags+" -overlay="+list), err
}

const sdk = "sdk/python"

var (
	pythonFailure = regexp.MustCompile(`(?m)^FAILED \S+::(\w+)`)
	pythonNotRun  = regexp.MustCompile(`(?m)^.*\b\d+ (errors?|skipped|deselected)\b.* in [0-9.]+s`)
)

// runPython runs tests of the SDK with a copy of it.
func (w workshop) runPython(ctx context.Context, limit time.Duration, in string, names []string, with changed) (result, error) {
	copied := filepath.Join(w.dir, "sdk")
	if err := errors.Join(os.RemoveAll(copied), os.CopyFS(copied, os.DirFS(filepath.Join(w.root, sdk, "src")))); err != nil {
		return result{}, fmt.Errorf("copy the SDK: %w", err)
	}
	if with.file != "" {
		file := filepath.Join(copied, strings.TrimPrefix(with.file, sdk+"/src/"))
		if err := os.WriteFile(file, []byte(with.content), 0o600); err != nil {
			return result{}, fmt.Errorf("change the SDK: %w", err)
		}
	}
	args := []string{w.python, "-m", "pytest", "-q", "-rf", "--tb=short", "-p", "no:cacheprovider"}
	for _, name := range names {
		args = append(args, strings.TrimPrefix(in, sdk+"/")+"::"+name)
	}
	env := []string{"PYTHONPATH=" + copied, "PYTHONDONTWRITEBYTECODE=1"}
	ran, err := command(ctx, limit, filepath.Join(w.root, sdk), env, args...)
	if err != nil {
		return result{}, fmt.Errorf("%w\n%s", err, tail(ran.output))
	}
	of := map[string]string{}
	for _, m := range pythonFailure.FindAllStringSubmatch(ran.output, -1) {
		of[m[1]] = "FAIL"
	}
	// 1 is that tests failed, all else that they could not be run.
	if ran.code > 1 || ran.code == 1 && len(of) == 0 || pythonNotRun.MatchString(ran.output) {
		return result{}, fmt.Errorf("pytest could not run the tests:\n%s", tail(ran.output))
	}
	for _, name := range names {
		if of[name] == "" {
			of[name] = "PASS"
		}
	}
	return result{of, ran.output}, nil
}

// tail is the end of an output, which says why.
func tail(output string) string {
	const most = 4000
	if len(output) > most {
		output = "..." + output[len(output)-most:]
	}
	return output
}
