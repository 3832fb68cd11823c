"""The side of the zygote that is Python. See the package's documentation.

The interpreter imports this file as sitecustomize, at the very end of its start:
everything is set up, and nothing of what it is to run has begun. There it stays,
in serve(), and forks. A child that gets its job writes it into the interpreter's
configuration, as if it had stood on the command line, and lets the start go on:
what comes after is the interpreter's own code, without a frame of ours below it.
"""

import sys

CONTROL = 3  # the descriptor of the socket to PicoD
SOURCE = 4  # the descriptor that this file was read from

if sys.version_info[:2] != (3, 11) or sys.implementation.name != "cpython":
    # What is used here of the interpreter's inside was compared for one version.
    sys.modules["os"].write(CONTROL, b"unsupported")
    sys.modules["os"]._exit(0)

_loaded = set(sys.modules)  # by the start itself
_importers = set(sys.path_importer_cache)

import atexit
import gc
import os

import _socket
import ctypes

TYPE_CHECKING = False  # the module of that name is not worth its memory here
if TYPE_CHECKING:
    from typing import Any, Self

PR_SET_DUMPABLE = 4
PR_SET_NAME = 15
SIGCHLD = 17
CLONE_PARENT = 0x8000
CLONE_CHILD_CLEARTID = 0x200000
CLONE_CHILD_SETTID = 0x1000000
_SPECIAL = {"sys", "builtins", "__main__"}  # modules that end in an order of their own
LONGEST = 128 << 10  # bytes of a message
STREAMS = 3  # standard descriptors

_api = ctypes.PyDLL(None)
_config = (ctypes.c_uint64 * 1024)()  # more than any PyConfig needs
_libc = ctypes.CDLL(None)


def _declare() -> None:
    api, pointer = _api, ctypes.c_void_p
    api.PyConfig_InitPythonConfig.argtypes = [pointer]
    api.PyConfig_InitPythonConfig.restype = None
    api._PyInterpreterState_GetConfigCopy.argtypes = [pointer]
    api._PyConfig_AsDict.argtypes = [pointer]
    api._PyConfig_AsDict.restype = ctypes.py_object
    api._PyConfig_FromDict.argtypes = [pointer, ctypes.py_object]
    api._PyInterpreterState_SetConfig.argtypes = [pointer]
    api.Py_IncRef.argtypes = [ctypes.py_object]
    api.Py_IncRef.restype = None
    _libc.prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4


def _forget_ourselves() -> None:
    """Take away what tells a start through here from any other."""
    own = f"/proc/self/fd/{SOURCE}"
    sys.path[:] = [entry for entry in sys.path if entry != own]
    for path in [path for path in sys.path_importer_cache if path == own or path not in _importers]:
        del sys.path_importer_cache[path]
    zipimport: Any = sys.modules.get("zipimport")
    if zipimport is not None:
        zipimport._zip_directory_cache.pop(own, None)
    for name in [name for name in sys.modules if name not in _loaded and name != __name__]:
        del sys.modules[name]
    rest = os.environ["PYTHONPATH"].partition(":")[2]
    if rest:
        os.environ["PYTHONPATH"] = rest
    else:
        del os.environ["PYTHONPATH"]
    os.close(SOURCE)


def _own_customize() -> bool:
    """Import the image's own sitecustomize, if it has one."""
    del sys.modules[__name__]
    try:
        __import__("sitecustomize")
    except ImportError as error:
        if error.name != "sitecustomize":
            raise
        # The importing machinery looks for it when this import ends.
        sys.modules[__name__] = _module
        return False
    return True


class _Reads:
    """Notes which environment variables are asked for."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.all = False

    def __enter__(self) -> "Self":
        kind: Any = type(os.environ)
        self._kept = kind.__getitem__, kind.__iter__
        get, each = self._kept

        def getitem(environ: "Any", key: "Any") -> "Any":
            if isinstance(key, str):
                self.names.add(key)
            return get(environ, key)

        def iterate(environ: "Any") -> "Any":
            self.all = True
            return each(environ)

        kind.__getitem__, kind.__iter__ = getitem, iterate
        return self

    def __exit__(self, *exc: object) -> None:
        kind: Any = type(os.environ)
        kind.__getitem__, kind.__iter__ = self._kept


def _preload(modules: list[str]) -> list[tuple[str, str]]:
    """Import modules; returns what failed, as (name, kind of error)."""
    failed = []
    for name in modules:
        try:
            __import__(name)
        except (Exception, SystemExit) as error:
            failed.append((name, type(error).__name__))
    return failed


def _unload(held: "dict[str, Any]") -> None:
    """Keep the end of a process from taking apart what came with the zygote.

    It runs behind all other functions registered with atexit. The modules stay
    in memory, which is about to go away as a whole; without this, a run would pay
    for thousands of objects that it may never have looked at. What the run itself
    has imported and defined ends as ever.
    """
    modules = sys.modules
    for name, module in held.items():
        if modules.get(name) is module:
            del modules[name]


def _end_at_once() -> None:
    """Keep the C library from running the endings of preloaded libraries.

    A few hundred of them would each write to, and so copy, a page of their own. As
    the last to be registered so far these two are called behind what the run
    itself registers: all streams are written out, and the process ends with
    the status that it was to end with.
    """
    try:
        end, flush, on_exit = _libc._exit, _libc.fcloseall, _libc.on_exit
    except AttributeError:
        return
    on_exit(ctypes.cast(end, ctypes.c_void_p), None)
    on_exit(ctypes.cast(flush, ctypes.c_void_p), None)


def _trim() -> None:
    """Give memory back that only the imports needed."""
    linecache: Any = sys.modules.get("linecache")
    if linecache is not None:
        linecache.clearcache()
    gc.collect()
    if hasattr(_libc, "malloc_trim"):  # not in every C library
        _libc.malloc_trim(ctypes.c_size_t(0))


def _rehearse() -> None:
    """Do what a job does first, so that its memory is this process's own."""
    _reseed()
    _configure("command", "", sys.executable, list(sys.orig_argv))
    exec(compile("print", "<string>", "exec"), {})


def _reseed() -> None:
    """Draw new seeds: the process may be a copy, as may be the whole machine."""
    random: Any = sys.modules.get("random")
    if random is not None:
        random.seed()
    numpy: Any = sys.modules.get("numpy.random")
    if numpy is not None:
        numpy.seed()
    tempfile: Any = sys.modules.get("tempfile")
    if tempfile is not None:
        tempfile._name_sequence = None


def _shadowed(kind: str, value: str, names: set[str]) -> bool:
    """Whether the first entry of sys.path holds another module of a name in use."""
    if not names:
        return False
    where = "."
    if kind == "file":
        real = os.path.realpath(value)
        if os.path.isdir(real) or real.endswith((".zip", ".pyz", ".egg")):
            return True
        where = os.path.dirname(real)
    try:
        return any(entry.partition(".")[0] in names for entry in os.listdir(where))
    except OSError:
        return True


def _take(sock: _socket.socket, names: set[str]) -> bool:
    """Wait for a job and turn this process into it. False: it cannot be done."""
    data, ancillary, _, _ = sock.recvmsg(LONGEST, _socket.CMSG_LEN(STREAMS * 4))
    if not data:
        os._exit(0)  # PicoD does not want it any more
    raw = b"".join(item[2] for item in ancillary)
    fds = [int.from_bytes(raw[i : i + 4], sys.byteorder) for i in range(0, len(raw), 4)]
    if len(fds) != STREAMS:
        return False
    for target, fd in enumerate(fds):
        os.dup2(fd, target)
    for fd in fds:
        os.close(fd)
    fields = data.decode("utf-8", "surrogateescape").split("\0")
    kind, file, directory, count = fields[0], fields[1], fields[2], int(fields[3])
    sets, fields = fields[4 : 4 + count], fields[4 + count :]
    count = int(fields[0])
    unsets, argv = fields[1 : 1 + count], fields[1 + count :]
    for name in unsets:
        os.environ.pop(name, None)
    for item in sets:
        name, _, value = item.partition("=")
        os.environ[name] = value
    try:
        os.chdir(directory)
    except OSError:
        return False
    # argv is [program, FILE, ...] or [program, -c or -m, VALUE, ...].
    value = argv[1] if kind == "file" else argv[2]
    if _shadowed(kind, value, names):
        return False
    _reseed()
    return _configure(kind, value, file, argv)


def _new_main() -> None:
    """Put a new __main__ in the place of the one that the collector cannot see."""
    old = sys.modules["__main__"]
    new = type(sys)("__main__")
    new.__dict__.clear()
    new.__dict__.update(old.__dict__)
    sys.modules["__main__"] = new


def _configure(kind: str, value: str, file: str, argv: list[str]) -> bool:
    """Write the job into the interpreter's configuration."""
    d = _api._PyConfig_AsDict(_config)
    d["program_name"] = argv[0]
    d["executable"] = d["base_executable"] = file
    d["orig_argv"] = argv
    d["_install_importlib"] = 0  # it is there; this keeps paths from being found anew
    d["run_command"] = d["run_module"] = d["run_filename"] = None
    if kind == "file":
        d["run_filename"] = value
        d["argv"] = argv[1:]
    elif kind == "command":
        d["run_command"] = value + "\n"
        d["argv"] = ["-c", *argv[3:]]
    else:
        d["run_module"] = value
        d["argv"] = ["-m", *argv[3:]]
    kept = sys.path[:], sys.prefix, sys.exec_prefix
    if _api._PyConfig_FromDict(_config, d) != 0 or _api._PyInterpreterState_SetConfig(_config) != 0:
        return False
    sys.path[:], sys.prefix, sys.exec_prefix = kept
    if os.path.basename(file) != _name:
        name = ctypes.create_string_buffer(os.fsencode(os.path.basename(file)))
        _libc.prctl(PR_SET_NAME, ctypes.addressof(name), 0, 0, 0)
    _new_main()
    return True


def _spare(sock: _socket.socket, names: set[str], *, ahead: bool) -> None:
    """A process without a job: get one, and return to become it."""
    try:
        os.setsid()
        os.close(CONTROL)
        if ahead:
            _rehearse()
        sock.send(b"ready\0%d" % os.getpid())
        if not _take(sock, names):
            os._exit(0)
        _libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)
        gc.enable()
        sock.send(b"go")  # from here on it is never run a second time
        sock.close()
    except BaseException:
        os._exit(1)


class _Sibling:
    """Forks children that are children of this process's parent.

    The C library has no function for that: this makes the system call, and does
    what fork() does besides where there is one thread and no lock is held. fork()
    tells where the thread keeps its own number, which the kernel is to renew.
    """

    def __init__(self) -> None:
        self.usable = False
        numbers = {"x86_64": (56, 273, 274), "aarch64": (220, 99, 100)}.get(os.uname().machine)
        if numbers is None:
            return
        self.clone, self.set_robust, get_robust = numbers
        head, length = ctypes.c_size_t(), ctypes.c_size_t()
        _api.syscall.restype = ctypes.c_long
        if (
            _api.syscall(get_robust, 0, ctypes.byref(head), ctypes.byref(length)) != 0
            or not head.value
        ):
            return
        # In glibc the list of robust locks stands behind the thread's number.
        self.head, self.length, self.tid = head.value, length.value, head.value - 16
        # Libraries end their threads before a fork, and begin them when needed.
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        own = ctypes.c_int.from_address(self.tid).value
        self.usable = own == os.getpid() and len(os.listdir("/proc/self/task")) == 1

    def fork(self) -> int:
        _api.PyOS_BeforeFork()
        ctid = ctypes.c_size_t(self.tid)  # the fourth or the fifth, by machine
        flags = CLONE_PARENT | CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID | SIGCHLD
        pid: int = _api.syscall(
            ctypes.c_long(self.clone), ctypes.c_long(flags), None, None, ctid, ctid
        )
        if pid == 0:
            _api.syscall(
                ctypes.c_long(self.set_robust),
                ctypes.c_size_t(self.head),
                ctypes.c_size_t(self.length),
            )
            _api.PyOS_AfterFork_Child()
        else:
            _api.PyOS_AfterFork_Parent()
        if pid < 0:
            raise OSError("clone")
        return pid


def _fork_twice() -> int:
    """Fork a child whose parent has ended: PicoD inherits it."""
    pid = os.fork()
    if pid == 0:
        try:
            if os.fork() == 0:
                return 0
        except OSError:
            os._exit(1)
        os._exit(0)
    if os.waitpid(pid, 0)[1] != 0:
        raise OSError("fork")
    return pid


def _serve(control: _socket.socket, names: set[str], sibling: _Sibling) -> None:
    """Fork whenever asked to. Only spares return."""
    fork = sibling.fork if sibling.usable else _fork_twice
    while True:
        data, ancillary, _, _ = control.recvmsg(16, _socket.CMSG_LEN(4))
        if not data:
            os._exit(0)
        sock = _socket.socket(fileno=int.from_bytes(ancillary[0][2], sys.byteorder))
        try:
            pid = fork()
        except OSError:
            pid = -1
        if pid == 0:
            control.detach()
            _spare(sock, names, ahead=data == b"ahead")
            return
        sock.close()
        control.send(b"forked" if pid > 0 else b"failed")


def _start() -> bool:
    _declare()
    control = _socket.socket(fileno=CONTROL)
    modules = [name for name in control.recv(LONGEST).decode().split("\0") if name]
    _libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    _forget_ourselves()
    customized = _own_customize()
    before = {name.partition(".")[0] for name in sys.modules}
    held: dict[str, Any] = {}
    atexit.register(_unload, held)
    with _Reads() as reads:
        failed = _preload(modules)
    held.update((name, module) for name, module in sys.modules.items() if name not in _SPECIAL)
    _api.Py_IncRef(held)
    names = {name.partition(".")[0] for name in held} - before
    _api.PyConfig_InitPythonConfig(_config)
    if _api._PyInterpreterState_GetConfigCopy(_config) != 0:
        os._exit(1)
    if modules:
        _end_at_once()
    if sys.getfilesystemencoding() != "utf-8":
        os._exit(1)  # jobs come in UTF-8
    site: Any = sys.modules.get("site")
    paths = [path for path in [*sys.path, getattr(site, "USER_SITE", None)] if path]
    hello = [f"{sys.version_info[0]}.{sys.version_info[1]}"]
    for group in (paths, sorted(reads.names), [f"{name}: {kind}" for name, kind in failed]):
        hello += [str(len(group)), *group]
    hello.append("all" if reads.all else "")
    _trim()
    # Collections in children would write to, and so copy, every page.
    gc.freeze()
    gc.disable()
    sibling = _Sibling()
    # A snapshot may be taken from here on: there is no second copy of anything.
    control.send("\0".join(["hello", *hello]).encode("utf-8", "surrogateescape"))
    _serve(control, names, sibling)
    return customized


_module = sys.modules[__name__]
_name = os.path.basename(sys.executable)
if not _start():
    # The start goes on as it does where there is no such module.
    raise ImportError(name="sitecustomize")
