package security

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// options are what the command line says.
type options struct {
	root, python  string
	pattern       *regexp.Regexp
	list, attacks bool
	mutations     bool
}

// Main is `make test-security`: the attacks, and then the defences without which they
// succeed. The error says that one was not held or not noticed, which out has told in
// more words.
func Main(ctx context.Context, args []string, out io.Writer) error {
	opts, err := parse(args, out)
	if err != nil {
		return err
	}
	chosen := slices.DeleteFunc(Defences(), func(d Defence) bool { return !opts.pattern.MatchString(d.Name) })
	if len(chosen) == 0 {
		return fmt.Errorf("no defence is called %s", opts.pattern)
	}
	if opts.list {
		for _, d := range chosen {
			fmt.Fprintf(out, "%-32s %-20s %s\n%34s%s\n", d.Name, d.By, d.Noticed, "", d.Attack)
		}
		return nil
	}
	dir, err := os.MkdirTemp("", "agentcube-security-")
	if err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	defer os.RemoveAll(dir)
	flags, err := command(ctx, time.Minute, opts.root, nil, "go", "env", "GOFLAGS")
	if err != nil {
		return err
	}
	w := workshop{root: opts.root, dir: dir, python: opts.python, goFlags: strings.TrimSpace(flags.output)}
	if opts.attacks {
		tests := testsOf(chosen)
		if opts.pattern.String() == "" {
			tests = append(tests, Attacks()...)
		}
		if err := w.attack(ctx, tests, out); err != nil {
			return err
		}
	}
	if !opts.mutations {
		return nil
	}
	return w.mutate(ctx, chosen, out)
}

func parse(args []string, out io.Writer) (opts options, err error) {
	flags := flag.NewFlagSet("test-security", flag.ContinueOnError)
	flags.SetOutput(out)
	flags.StringVar(&opts.root, "root", ".", "the repository")
	flags.StringVar(&opts.python, "python", "build/venv/bin/python", "the Python that has what the SDK's tests need")
	pattern := flags.String("run", "", "only the defences whose name matches")
	flags.BoolVar(&opts.list, "list", false, "list the defences, and do nothing")
	flags.BoolVar(&opts.attacks, "attacks", true, "run the tests as they are")
	flags.BoolVar(&opts.mutations, "mutations", true, "run each against a program without its defence")
	if err := flags.Parse(args); err != nil {
		return opts, err
	}
	if opts.pattern, err = regexp.Compile(*pattern); err != nil {
		return opts, fmt.Errorf("read -run: %w", err)
	}
	if opts.root, err = filepath.Abs(opts.root); err != nil {
		return opts, err
	}
	opts.python, err = filepath.Abs(opts.python)
	return opts, err
}

// testsOf are the tests of defences, each once.
func testsOf(defences []Defence) (tests []Test) {
	for _, d := range defences {
		same := func(t Test) bool { return t.In == d.Noticed.In && t.function() == d.Noticed.function() }
		if !slices.ContainsFunc(tests, same) {
			tests = append(tests, d.Noticed)
		}
	}
	return tests
}

// attack runs tests as they are, those of a folder together.
func (w workshop) attack(ctx context.Context, tests []Test, out io.Writer) error {
	fmt.Fprintf(out, "==> %d attacks\n", len(tests))
	var folders []string
	names := map[string][]string{}
	for _, t := range tests {
		if names[t.In] == nil {
			folders = append(folders, t.In)
		}
		names[t.In] = append(names[t.In], t.function())
	}
	failed := 0
	for _, in := range folders {
		began, before := time.Now(), failed
		got, err := w.run(ctx, testTime, in, names[in], changed{})
		if ctx.Err() != nil {
			return errors.New("given up")
		}
		if err != nil {
			failed += len(names[in])
			fmt.Fprintf(out, "FAIL  %s: %v\n", in, err)
			continue
		}
		for _, name := range names[in] {
			if got.of[name] != "PASS" {
				failed++
				fmt.Fprintf(out, "FAIL  %s %s %s\n%s\n", in, name, got.of[name], tail(got.output))
			}
		}
		if failed == before {
			fmt.Fprintf(out, "ok    %-44s %2d attacks  %6.1f s\n", in, len(names[in]), time.Since(began).Seconds())
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d attacks were not held off", failed, len(tests))
	}
	return nil
}

// mutate runs the test of each defence without it.
func (w workshop) mutate(ctx context.Context, defences []Defence, out io.Writer) error {
	fmt.Fprintf(out, "==> %d defences, each switched off\n", len(defences))
	began, failed := time.Now(), 0
	for _, d := range defences {
		start := time.Now()
		err := w.notices(ctx, d)
		if ctx.Err() != nil {
			return errors.New("given up")
		}
		if err != nil {
			failed++
			fmt.Fprintf(out, "FAIL  %-32s %v\n", d.Name, err)
			continue
		}
		fmt.Fprintf(out, "ok    %-32s %-20s noticed by %-64s %5.1f s\n", d.Name, d.By, d.Noticed, time.Since(start).Seconds())
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d defences could be missing, and no test would notice", failed, len(defences))
	}
	fmt.Fprintf(out, "%d defences, each noticed by a test, in %v\n", len(defences), time.Since(began).Round(time.Second))
	return nil
}

// notices returns nil when the test of a defence fails without it.
func (w workshop) notices(ctx context.Context, d Defence) error {
	content, err := os.ReadFile(filepath.Join(w.root, d.File))
	if err != nil {
		return err
	}
	without, err := d.Without(string(content))
	if err != nil {
		return err
	}
	limit := noticeTime
	if d.Noticed.waits {
		limit = waitTime
	}
	got, err := w.run(ctx, limit, d.Noticed.In, []string{d.Noticed.Name}, changed{d.File, without})
	if d.Noticed.waits && errors.Is(err, errWaited) {
		return nil
	}
	if err != nil {
		return err
	}
	if how := got.of[d.Noticed.function()]; how != "FAIL" {
		return fmt.Errorf("%s does not notice: %q", d.Noticed, how)
	}
	return nil
}
