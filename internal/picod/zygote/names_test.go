package zygote

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/volcano-sh/agentcube/internal/picod/proc"
)

// TestNames: a module is found in what a run would execute, as a word, and
// nothing but a regular file is looked into.
func TestNames(t *testing.T) {
	w := &world{t: t, dir: t.TempDir()}
	w.write("uses.py", "import os\nimport numpy as np\n")
	w.write("not.py", "import os\n")
	w.write("late.py", strings.Repeat("#", maxSource)+"\nimport numpy\n")
	w.write("empty.py", "")
	w.write("directory/numpy", "numpy")
	for name, err := range map[string]error{
		"pipe": unix.Mkfifo(w.dir+"/fifo.py", 0o600),
		"link": unix.Symlink("uses.py", w.dir+"/link.py"),
		"loop": unix.Symlink("loop.py", w.dir+"/loop.py"),
	} {
		if err != nil {
			t.Fatalf("make %s: %v", name, err)
		}
	}
	n := namesOf([]string{"numpy", "matplotlib.pyplot", "matplotlib.figure", ""})
	if len(n) != 2 {
		t.Errorf("names are %q", n)
	}
	for argv, want := range map[string]bool{
		"python3 -c import numpy":                    true,
		"python3 -c numpy":                           true,
		"python3 -c import numpy_financial":          false,
		"python3 -c import my_numpy, numpy2, numpyé": false,
		"python3 -c import numpyx; numpy.x":          true,
		"python3 -c from matplotlib import pyplot":   true,
		"python3 -c print(1)":                        false,
		"python3 -c ":                                false,
		"python3 -m numpy.f2py":                      true,
		"python3 -m uses":                            false,
		"python3 uses.py":                            true,
		"python3 " + w.dir + "/uses.py":              true,
		"python3 ./directory/../uses.py":             true,
		"python3 link.py":                            true,
		"python3 not.py numpy":                       false,
		"python3 late.py":                            false,
		"python3 empty.py":                           false,
		"python3 fifo.py":                            false,
		"python3 loop.py":                            false,
		"python3 directory":                          false,
		"python3 missing.py":                         false,
		"python3 /dev/zero":                          false,
		"python3 -u uses.py":                         false,
		"python3":                                    false,
	} {
		if got := n.in(proc.Command{Argv: strings.SplitN(argv, " ", 3), Dir: w.dir}); got != want {
			t.Errorf("%s: %v, want %v", argv, got, want)
		}
	}
}

// TestTwoInterpreters: what names no preloaded module runs without them, what
// names one has them, from a file as well, and a copy with them does not wait for a run.
func TestTwoInterpreters(t *testing.T) {
	w := begin(t, "decimal", "no_such_module")
	plain := w.command("python3", "-c", "import sys; print('deci' + 'mal' in sys.modules)")
	w.write("named.py", "import sys; print('decimal' in sys.modules)")
	for range 3 {
		if got := w.forked(plain); got != (outcome{Stdout: "False\n"}) {
			t.Errorf("without a name: %+v", got)
		}
		for _, named := range [][]string{{"python3", "named.py"}, {"python3", "-c", "import sys; print('decimal' in sys.modules)"}} {
			if got := w.forked(w.command(named...)); got != (outcome{Stdout: "True\n"}) {
				t.Errorf("%q: %+v", named, got)
			}
		}
	}
	s := w.zygote.plain.take()
	for s == nil {
		s = w.zygote.plain.take()
	}
	defer s.Discard()
	if pids := w.helpers(); len(pids) < 3 || len(pids) > 4 {
		t.Errorf("%d processes, want two interpreters and one or two spares of one of them", len(pids))
	}
}

// TestFallback: with the interpreter that has the modules gone, its runs begin
// in the other one.
func TestFallback(t *testing.T) {
	w := begin(t, "decimal")
	w.zygote.loaded.close()
	got := w.forked(w.command("python3", "-c", "import decimal; print(decimal.Decimal(1))"))
	if got != (outcome{Stdout: "1\n"}) {
		t.Errorf("got %+v", got)
	}
}
