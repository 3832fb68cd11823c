package zygote

import (
	"archive/zip"
	"bytes"
	"context"
	_ "embed" // for the Python side
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/volcano-sh/agentcube/internal/picod/proc"
)

//go:embed zygote.py
var source string

const (
	maxHello = 128 << 10
	maxPaths = 64
	// sourcePath is where the interpreter finds the Python side: the numbers
	// of descriptors begin behind the standard ones.
	sourcePath = "/proc/self/fd/4"
)

// errFork says that the zygote could not fork: the process limit is reached.
var errFork = errors.New("zygote cannot fork")

// process is one running zygote.
type process struct {
	file    string // the interpreter
	self    identity
	env     map[string]string
	helper  *proc.Helper
	runner  *proc.Runner
	control *net.UnixConn
	turn    chan struct{} // held by who demands a fork
	broken  chan error    // why a demanded fork failed

	// What it said about itself.
	version  string
	paths    map[string]identity
	reads    map[string]bool
	readsAll bool
	failed   []string
}

// identity tells whether a file or directory is what it was.
type identity struct {
	device, inode uint64
	sec, nsec     int64
}

// identify looks at a path; what is not there has an identity too.
func identify(path string) identity {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return identity{}
	}
	return identity{device: st.Dev, inode: st.Ino, sec: st.Mtim.Sec, nsec: st.Mtim.Nsec}
}

func (i identity) same(other identity) bool { return i == other && i != identity{} }

// start starts a zygote and waits until it has imported its modules.
func (k *keeper) start(ctx context.Context) (_ *process, err error) {
	p := &process{runner: k.runner, env: map[string]string{}, turn: make(chan struct{}, 1), broken: make(chan error, 1)}
	env := make([]string, 0, len(k.cfg.Env)+1)
	path := sourcePath
	for _, kv := range k.cfg.Env {
		name, value, _ := strings.Cut(kv, "=")
		p.env[name] = value
		if name == "PYTHONPATH" {
			path += ":" + value
			continue
		}
		env = append(env, kv)
	}
	env = append(env, "PYTHONPATH="+path)
	code, err := archive()
	if err != nil {
		return nil, err
	}
	defer code.Close()
	ours, theirs, err := pair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	_ = ours.Close()
	if err != nil {
		return nil, fmt.Errorf("use socket: %w", err)
	}
	p.control = conn.(*net.UnixConn)
	p.helper, err = k.runner.Help(proc.Command{
		Argv: []string{"python3", "-c", ""}, Dir: k.cfg.Dir, Env: env,
	}, theirs, code)
	if err != nil {
		_ = p.control.Close()
		return nil, fmt.Errorf("start zygote: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = p.control.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	p.file, p.self = p.helper.File, identify(p.helper.File)
	if err := p.greet(k.cfg.Modules); err != nil {
		p.stop()
		return nil, err
	}
	return p, nil
}

// greet says what to import and hears how it went.
func (p *process) greet(modules []string) error {
	if err := p.control.SetDeadline(time.Now().Add(importPatience)); err != nil {
		return fmt.Errorf("wait for zygote: %w", err)
	}
	_, writeErr := p.control.Write([]byte(strings.Join(modules, "\x00") + "\x00"))
	buf := make([]byte, maxHello)
	// What has ended may have said why.
	n, err := p.control.Read(buf)
	if err != nil {
		return fmt.Errorf("greet zygote: %w", errors.Join(writeErr, err))
	}
	if string(buf[:n]) == "unsupported" {
		return fmt.Errorf("start zygote: this version of Python: %w", errors.ErrUnsupported)
	}
	if !p.parse(strings.Split(string(buf[:n]), "\x00")) {
		return errors.New("zygote does not say what it is")
	}
	return nil
}

// parse reads what the zygote says of itself.
func (p *process) parse(fields []string) bool {
	if len(fields) < 2 || fields[0] != "hello" {
		return false
	}
	p.version, fields = fields[1], fields[2:]
	var groups [3][]string
	for i := range groups {
		if len(fields) == 0 {
			return false
		}
		n, err := strconv.Atoi(fields[0])
		if err != nil || n < 0 || n >= len(fields) {
			return false
		}
		groups[i], fields = fields[1:n+1], fields[n+1:]
	}
	if len(fields) != 1 || len(groups[0]) > maxPaths {
		return false
	}
	p.paths, p.reads = map[string]identity{}, map[string]bool{}
	for _, path := range groups[0] {
		p.paths[path] = identify(path)
	}
	for _, name := range groups[1] {
		p.reads[name] = true
	}
	p.failed, p.readsAll = groups[2], fields[0] == "all"
	return true
}

// What a spare is forked for: a spare that is made ahead does as much of its
// job as it can while there is time for it.
const (
	ahead = "ahead"
	now   = "now"
)

// demand makes one spare for a run that waits for it, or nil.
func (p *process) demand() *spare {
	wait := time.NewTimer(forkPatience)
	defer wait.Stop()
	select {
	case p.turn <- struct{}{}:
	case <-wait.C:
		return nil
	}
	defer func() { <-p.turn }()
	s, err := p.fork(now)
	if err == nil {
		return s
	}
	if !errors.Is(err, errFork) {
		select {
		case p.broken <- err:
		default:
		}
	}
	return nil
}

// fork makes one spare. It is for one caller at a time.
func (p *process) fork(what string) (_ *spare, err error) {
	ours, theirs, err := pair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	s := &spare{process: p, sock: ours, pidfd: -1, done: make(chan struct{})}
	defer func() {
		if err != nil {
			s.Discard()
		}
	}()
	if err := p.control.SetDeadline(time.Now().Add(forkPatience)); err != nil {
		return nil, fmt.Errorf("ask zygote: %w", err)
	}
	rights := unix.UnixRights(int(theirs.Fd()))
	if _, _, err := p.control.WriteMsgUnix([]byte(what), rights, nil); err != nil {
		return nil, fmt.Errorf("ask zygote: %w", err)
	}
	var buf [64]byte
	n, err := p.control.Read(buf[:])
	if err != nil {
		return nil, fmt.Errorf("wait for zygote: %w", err)
	}
	if answer := string(buf[:n]); answer != "forked" {
		if answer == "failed" {
			return nil, errFork
		}
		return nil, errors.New("zygote gives no answer")
	}
	return s, s.meet()
}

// stop ends the zygote and what hangs on it.
func (p *process) stop() {
	_ = p.control.Close()
	p.helper.Close()
}

// pair returns the ends of a socket that keeps messages apart.
func pair() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make socket: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "zygote"), os.NewFile(uintptr(fds[1]), "zygote"), nil
}

// archive returns a file that the interpreter can import the Python side from
// and that nobody can change.
func archive() (_ *os.File, err error) {
	var buf bytes.Buffer
	w := zip.NewWriter(&buf)
	// Stored: the interpreter may be without zlib.
	entry, err := w.CreateHeader(&zip.FileHeader{Name: "sitecustomize.py", Method: zip.Store})
	if err == nil {
		_, err = io.WriteString(entry, source)
	}
	if err = errors.Join(err, w.Close()); err != nil {
		return nil, fmt.Errorf("pack zygote: %w", err)
	}
	fd, err := unix.MemfdCreate("zygote", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("make file: %w", err)
	}
	file := os.NewFile(uintptr(fd), "zygote")
	if _, err = file.Write(buf.Bytes()); err == nil {
		seals := unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
		_, err = unix.FcntlInt(file.Fd(), unix.F_ADD_SEALS, seals)
	}
	if err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("write zygote: %w", err)
	}
	return file, nil
}
