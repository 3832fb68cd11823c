package zygote

import (
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/volcano-sh/agentcube/internal/picod/proc"
)

// maxSource is how many bytes of a script are looked through.
const maxSource = 1 << 20

// names are those of the preloaded modules, without the parts behind a dot.
type names []string

func namesOf(modules []string) names {
	var n names
	for _, module := range modules {
		root, _, _ := strings.Cut(module, ".")
		if root != "" && !slices.Contains(n, root) {
			n = append(n, root)
		}
	}
	return n
}

// in tells whether what cmd runs names one of them.
func (n names) in(cmd proc.Command) bool {
	kind, ok := plain(cmd.Argv)
	if !ok {
		return false
	}
	switch kind {
	case "command":
		return n.within(cmd.Argv[2])
	case "module":
		root, _, _ := strings.Cut(cmd.Argv[2], ".")
		return slices.Contains(n, root)
	}
	path := cmd.Argv[1]
	if !filepath.IsAbs(path) {
		path = filepath.Join(cmd.Dir, path)
	}
	return n.within(head(path))
}

// within tells whether one of them is a word of the text.
func (n names) within(text string) bool {
	return slices.ContainsFunc(n, func(name string) bool {
		for at := 0; ; {
			i := strings.Index(text[at:], name)
			if i < 0 {
				return false
			}
			from, to := at+i, at+i+len(name)
			if (from == 0 || !letter(text[from-1])) && (to == len(text) || !letter(text[to])) {
				return true
			}
			at = to
		}
	})
}

// letter tells whether a byte can be part of a name in Python.
func letter(b byte) bool {
	return b == '_' || b >= '0' && b <= '9' || b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= 0x80
}

// head returns how a regular file begins; empty for any other, which user code
// may have put there so that opening it waits, or is noticed by somebody.
func head(path string) string {
	handle, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(handle)
	var st unix.Stat_t
	if unix.Fstat(handle, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return ""
	}
	fd, err := unix.Open("/proc/self/fd/"+strconv.Itoa(handle), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	buf := make([]byte, min(st.Size, maxSource))
	n := 0
	for n < len(buf) {
		got, err := unix.Read(fd, buf[n:])
		if err != nil || got <= 0 {
			break
		}
		n += got
	}
	return string(buf[:n])
}
