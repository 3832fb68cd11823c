package zygote

import (
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// scripts are run as files and with -c; they must not print what differs
// between two processes anyway.
var scripts = map[string]string{
	"print":     "print(1)",
	"empty":     "",
	"arguments": "import sys; print(sys.argv, sys.path, sys.orig_argv[1:2], sys.executable, sys.flags, sys.prefix, sys.exec_prefix)",
	"names":     "print(sorted(globals()), list(globals()), {k: v for k, v in globals().items() if k not in ('__builtins__', '__loader__')}, type(__loader__), __builtins__)",
	"modules":   "import sys; print(sorted(sys.modules)); print(sorted(sys.path_importer_cache), sys.meta_path, sys.path_hooks)",
	"environ":   "import os; print(sorted(os.environ.items())); os.system('env | sort')",
	"state": "import os, resource, gc, sys, signal; print(os.getcwd(), os.getppid() == 1, os.umask(0), os.getuid(), os.getgroups(), os.getsid(0) == os.getpid()," +
		"os.getpgid(0) == os.getpid(), gc.isenabled(), gc.get_threshold(), sys.getrecursionlimit(), sys.getswitchinterval()," +
		"[resource.getrlimit(getattr(resource, n)) for n in dir(resource) if n.startswith('RLIMIT')]," +
		"[(s, signal.getsignal(s)) for s in signal.valid_signals()], signal.pthread_sigmask(0, []), os.nice(0), sys.warnoptions, sys._xoptions)",
	"descriptors":  "import os; print(sorted(os.listdir('/proc/self/fd'))); print(open('/proc/self/comm').read(), open('/etc/passwd').fileno())",
	"streams":      "import sys; print([(f.name, f.mode, f.encoding, f.errors, f.line_buffering, f.write_through, f.buffer.raw.name, f.seekable(), f.isatty(), f.newlines) for f in (sys.stdin, sys.stdout, sys.stderr)]); print(sys.stdin.read())",
	"exit code":    "import sys; sys.exit(7)",
	"exit text":    "raise SystemExit('no more')",
	"exit none":    "raise SystemExit",
	"exit true":    "raise SystemExit(True)",
	"exit big":     "raise SystemExit(257)",
	"exit object":  "raise SystemExit([1])",
	"exit at once": "import os; print('lost', end=''); os._exit(3)",
	"exception":    "def f():\n    g()\ndef g():\n    1 / 0\nf()",
	"chained":      "try:\n    1 / 0\nexcept Exception as e:\n    raise KeyError('x') from e",
	"group":        "raise ExceptionGroup('several', [ValueError(1), TypeError(2)])",
	"syntax":       "print(1\nx = = 2",
	"indentation":  "if True:\nprint(1)",
	"null":         "x = '''a\r\nb'''; print(repr(x))",
	"unicode":      "print('héllo \U0001f600')",
	"surrogate":    "print('\\udc80')",
	"coding":       "# -*- coding: latin-1 -*-\nprint('\xe4')",
	"interrupt":    "raise KeyboardInterrupt",
	"sigint":       "import os, signal; os.kill(os.getpid(), signal.SIGINT); print('not here')",
	"sigterm":      "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
	"abort":        "import os; os.abort()",
	"sigpipe":      "import os; r, w = os.pipe(); os.close(r); os.write(w, b'x')",
	"atexit":       "import atexit; atexit.register(print, 'first'); atexit.register(print, 'second'); print('main')",
	"atexit raise": "import atexit; atexit.register(lambda: 1 / 0)",
	"finalizers":   "class A:\n    def __del__(self): print('gone')\na = A()\nb = A(); b.me = b",
	"unraisable":   "class A:\n    def __del__(self): raise ValueError('in del')\na = A()\ndel a",
	"threads":      "import threading, time\ndef f():\n    time.sleep(0.05); print('thread', threading.current_thread().name, threading.main_thread().name)\nthreading.Thread(target=f).start()\nprint('main')",
	"daemon":       "import threading, time\nthreading.Thread(target=time.sleep, args=(100,), daemon=True).start()\nprint('main')",
	"thread error": "import threading\ndef f():\n    raise ValueError('x')\nthreading.Thread(target=f, name='T').start()",
	"recursion":    "n = 0\ndef f():\n    global n\n    n += 1\n    f()\ntry:\n    f()\nexcept RecursionError:\n    print(n)",
	"stack":        "import inspect, traceback; print(len(inspect.stack())); traceback.print_stack()",
	"warnings":     "import warnings; warnings.warn('a'); warnings.warn('b', stacklevel=2); warnings.warn('c', DeprecationWarning)",
	"buffering":    "import sys, os\nprint('one'); os.write(1, b'two\\n'); print('three', file=sys.stderr); os.write(2, b'four\\n')",
	"subprocess":   "import subprocess, sys; print(subprocess.run([sys.executable, '-c', 'import sys; print(sys.argv, sys.path)', 'x'], capture_output=True, text=True).stdout)",
	"asyncio":      "import asyncio\nasync def f():\n    p = await asyncio.create_subprocess_exec('echo', 'hello', stdout=-1)\n    print(await p.communicate())\n    await asyncio.sleep(0.01)\nasyncio.run(f())",
	"fork":         "import os\nif os.fork() == 0:\n    print('child'); os._exit(0)\nos.wait(); print('parent')",
	"pool":         "import multiprocessing as m\nif __name__ == '__main__':\n    with m.get_context('fork').Pool(2) as p:\n        print(p.map(abs, [-1, -2]))",
	"imports":      "import json, ctypes, socket, struct, sqlite3, decimal, re; print(ctypes.CDLL(None).getpid() > 1, socket.socket().fileno() > 2, struct.calcsize('P'), json.dumps({}), ctypes.sizeof(ctypes.c_int))",
	"ctypes call":  "import ctypes; f = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(lambda x: x + 1); print(f(1)); print(ctypes.pythonapi.Py_IsInitialized())",
	"site":         "import site, sysconfig; print(site.ENABLE_USER_SITE, site.USER_SITE, site.USER_BASE, sysconfig.get_paths())",
	"locale":       "import locale, sys; print(locale.setlocale(locale.LC_ALL), locale.getpreferredencoding(), sys.getfilesystemencoding(), sys.getdefaultencoding())",
	"excepthook":   "import sys; sys.excepthook = lambda *a: print('hook', a[:2]); 1 / 0",
	"last":         "import sys, atexit; atexit.register(lambda: print(sys.last_value, sys.last_traceback.tb_frame.f_code)); 1 / 0",
	"close stdout": "import sys; sys.stdout.close()",
	"close fd":     "import os; os.close(1); print('x')",
	"big":          "print('x' * 300000)",
	"pdb hooks":    "import sys; print(sys.gettrace(), sys.getprofile(), sys.displayhook, sys.excepthook, sys.stdin is sys.__stdin__, sys.stdout is sys.__stdout__)",
	"main module":  "import sys, __main__; print(__main__ is sys.modules['__main__'], __name__, __spec__, __package__, __doc__)",
	"doc":          "'''Text.'''\nprint(__doc__)",
	"annotations":  "x: int = 1\nprint(__annotations__)",
	"help":         "import builtins; print('exit' in dir(builtins), exit, copyright.__class__)",
	"comm":         "print(open('/proc/self/comm').read())",
	"dumpable":     "import os; print(os.stat('/proc/self/fd').st_uid == os.getuid(), os.readlink('/proc/self/exe'), os.readlink('/proc/self/cwd'))",
	"tasks":        "import os; print(len(os.listdir('/proc/self/task')))",
	"input":        "print(input()); print(input())",
	"readline":     "import sys; print([l for l in sys.stdin])",
}

// addresses differ from process to process.
var addresses = regexp.MustCompile(`0x[0-9a-f]{6,}`)

func differ(want, got outcome) string {
	for _, o := range []*outcome{&want, &got} {
		o.Stdout, o.Stderr = addresses.ReplaceAllString(o.Stdout, "0x"), addresses.ReplaceAllString(o.Stderr, "0x")
	}
	return cmp.Diff(want, got)
}

// TestEqual: nothing that a program prints, and not how it ends, tells a forked
// run from a process of its own.
func TestEqual(t *testing.T) {
	w := begin(t)
	for name, script := range scripts {
		t.Run(name, func(t *testing.T) {
			w.t = t
			w.write("script.py", script)
			for form, argv := range map[string][]string{
				"file":     {"python3", "script.py"},
				"absolute": {"python3", w.dir + "/script.py", "a", "-c", ""},
				"code":     {"python3", "-c", script, "x", "ü", "-u"},
				"path":     {"/usr/bin/python3", "-c", script},
				"module":   {"python3", "-m", "script", "x"},
			} {
				cmd := w.command(argv...)
				cmd.Stdin = []byte("one\r\ntwo\nthree")
				want, got := w.run(cmd, false), w.forked(cmd)
				if diff := differ(want, got); diff != "" {
					t.Errorf("%s (-plain +forked):\n%s", form, diff)
				}
				cmd.Stdin = nil
				want, got = w.run(cmd, false), w.forked(cmd)
				if diff := differ(want, got); diff != "" {
					t.Errorf("%s without input (-plain +forked):\n%s", form, diff)
				}
			}
		})
	}
	w.t = t
}

// TestEqualCommandLines: the same for what is on the command line rather than in a file.
func TestEqualCommandLines(t *testing.T) {
	w := begin(t)
	w.write("pack/__main__.py", "import sys; print(sys.argv, sys.path[0], __name__, __file__, __spec__)")
	w.write("sub/other.py", "import sys; print(sys.argv, sys.path[0], __file__); import helper; print(helper.__file__)")
	w.write("sub/helper.py", "")
	w.write("spawn.py", "import multiprocessing as m\ndef f(x): return x * 2\nif __name__ == '__main__':\n    with m.get_context('spawn').Pool(1) as p:\n        print(p.map(f, [1, 2]))")
	for name, argv := range map[string][]string{
		"no file":          {"python3", "missing.py"},
		"directory":        {"python3", "pack"},
		"below":            {"python3", "sub/other.py"},
		"dots":             {"python3", "./sub/../sub/other.py", "x"},
		"spawn":            {"python3", "spawn.py"},
		"module":           {"python3", "-m", "sub.other"},
		"no module":        {"python3", "-m", "sub.missing"},
		"package":          {"python3", "-m", "pack"},
		"library":          {"python3", "-m", "json.tool", "--help"},
		"timeit":           {"python3", "-m", "timeit", "-h"},
		"other name":       {"python3.11", "-c", "import sys; print(sys.executable, sys.orig_argv); print(open('/proc/self/comm').read())"},
		"empty code":       {"python3", "-c", ""},
		"not readable":     {"python3", "/etc/shadow"},
		"a directory of /": {"python3", "/etc"},
		"device":           {"python3", "/dev/null"},
		"bytes":            {"python3", "-c", "import sys; print(ascii(sys.argv))", "\xff\xfe"},
		"bytes in code":    {"python3", "-c", "print('\xff')"},
	} {
		t.Run(name, func(t *testing.T) {
			w.t = t
			cmd := w.command(argv...)
			want, got := w.run(cmd, false), w.forked(cmd)
			if diff := differ(want, got); diff != "" {
				t.Errorf("(-plain +forked):\n%s", diff)
			}
		})
	}
	w.t = t
}

// TestEnvironment: variables reach a forked run, and those that act on the start
// of an interpreter lead to one that starts.
func TestEnvironment(t *testing.T) {
	w := begin(t)
	script := "import os, sys; print(sorted(os.environ.items()), sorted(os.environb) == sorted(map(os.fsencode, os.environ)), sys.flags, sys.stdout.encoding); os.system('env | sort')"
	for name, tt := range map[string]struct {
		extra  map[string]string
		forked bool
	}{
		"added":      {map[string]string{"API_KEY": "x=y z", "B": "ü\xff", "EMPTY": ""}, true},
		"changed":    {map[string]string{"PWD": "/elsewhere", "PATH": "/usr/bin:/bin:/sbin"}, true},
		"unbuffered": {map[string]string{"PYTHONUNBUFFERED": "1"}, false},
		"encoding":   {map[string]string{"PYTHONIOENCODING": "latin-1"}, false},
		"utf8":       {map[string]string{"PYTHONUTF8": "0", "LANG": "C"}, false},
		"language":   {map[string]string{"LC_ALL": "C"}, false},
		"home":       {map[string]string{"HOME": "/"}, false},
		"zone":       {map[string]string{"TZ": "Asia/Tokyo"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := w.command("python3", "-c", script)
			cmd.Env = w.list(tt.extra)
			want, before := w.run(cmd, false), w.taken.Load()
			got := w.run(cmd, true)
			if tt.forked {
				got = w.forked(cmd)
			} else if w.taken.Load() != before {
				t.Error("the zygote took it")
			}
			if diff := differ(want, got); diff != "" {
				t.Errorf("(-plain +forked):\n%s", diff)
			}
			if !strings.Contains(want.Stdout, "PATH") {
				t.Errorf("no output: %+v", want)
			}
		})
	}
}
