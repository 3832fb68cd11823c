package proc

import (
	"errors"
	"io/fs"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// lookup finds the file of a command the way a shell does, in the PATH that the
// command itself will see. Relative PATH entries are ignored: the working
// directory belongs to whoever wrote files into it last.
func lookup(name, path string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	found := exec.ErrNotFound
	for _, dir := range filepath.SplitList(path) {
		if !filepath.IsAbs(dir) || name == "" {
			continue
		}
		file := dir + "/" + name
		var st unix.Stat_t
		if err := unix.Stat(file, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
			continue
		}
		if st.Mode&0o111 != 0 {
			return file, nil
		}
		found = fs.ErrPermission
	}
	return "", &exec.Error{Name: name, Err: found}
}

// getenv returns the last value of key in env.
func getenv(env []string, key string) string {
	for i := len(env) - 1; i >= 0; i-- {
		if v, ok := strings.CutPrefix(env[i], key+"="); ok {
			return v
		}
	}
	return ""
}

// startError is the text a client sees when a command could not be started.
func startError(name string, limit int, err error) string {
	if errors.Is(err, unix.EAGAIN) && limit > 0 {
		return "fork/exec " + name + ": too many processes in this session"
	}
	return err.Error()
}

// StartKind is the kind of reason why a command was not started.
type StartKind string

// The kinds; the empty one means that it was started.
const (
	StartNotFound      StartKind = "not_found"      // no such command; a shell would say 127
	StartNotExecutable StartKind = "not_executable" // it is there and cannot be run; a shell would say 126
	StartOther         StartKind = "other"
)

func startKind(err error) StartKind {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, exec.ErrNotFound):
		return StartNotFound
	case errors.Is(err, fs.ErrPermission), errors.Is(err, unix.ENOEXEC), errors.Is(err, unix.EISDIR):
		return StartNotExecutable
	}
	return StartOther
}
