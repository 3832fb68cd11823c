package zygote

import (
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/volcano-sh/agentcube/internal/picod/proc"
)

// startVars begin the names of variables that act when an interpreter, its C
// library or a numerical library starts, which the zygote has behind it.
var startVars = []string{
	"PYTHON", "LD_", "LC_", "LANG", "LOCPATH", "TZ", "HOME", "MALLOC_", "GLIBC_", "GCONV_", "OMP_", "GOMP_", "KMP_",
	"OPENBLAS_", "GOTO_", "MKL_", "BLIS_", "NPY_", "NUMEXPR_", "OPENSSL_", "SSL_",
}

// plain takes a command line of the interpreter apart. Only forms without
// options of the interpreter itself are known.
func plain(argv []string) (kind string, ok bool) {
	switch {
	case len(argv) < 2 || argv[1] == "":
		return "", false
	case argv[1] == "-c" && len(argv) > 2:
		return "command", true
	case argv[1] == "-m" && len(argv) > 2:
		return "module", true
	case argv[1][0] != '-':
		return "file", true
	}
	return "", false
}

// job is the message that makes a spare become cmd; false when a process
// started in the usual way could differ from it.
func (p *process) job(cmd proc.Command, file string) ([]byte, bool) {
	kind, ok := plain(cmd.Argv)
	if !ok || !p.is(file) {
		return nil, false
	}
	sets, unsets, ok := p.difference(cmd.Env)
	if !ok || p.changed() {
		return nil, false
	}
	fields := []string{kind, file, cmd.Dir, strconv.Itoa(len(sets))}
	fields = append(fields, sets...)
	fields = append(fields, strconv.Itoa(len(unsets)))
	fields = append(fields, unsets...)
	fields = append(fields, cmd.Argv...)
	msg := []byte(strings.Join(fields, "\x00"))
	return msg, len(msg) <= maxJob
}

// is tells whether file is the interpreter of the zygote. A link to it from
// elsewhere can mean another set of libraries.
func (p *process) is(file string) bool {
	if file == p.file {
		return true
	}
	return filepath.Dir(file) == filepath.Dir(p.file) && strings.HasPrefix(filepath.Base(file), "python") &&
		identify(file).same(p.self)
}

// difference is what must be set and taken away to get from the environment
// of the zygote to env; false when something is among it that has acted already.
func (p *process) difference(env []string) (sets, unsets []string, ok bool) {
	seen := make(map[string]bool, len(env))
	for i := len(env) - 1; i >= 0; i-- { // the last one counts
		name, value, _ := strings.Cut(env[i], "=")
		if seen[name] {
			continue
		}
		seen[name] = true
		if had, there := p.env[name]; there && had == value {
			continue
		}
		if p.acts(name) {
			return nil, nil, false
		}
		sets = append(sets, env[i])
	}
	for name := range p.env {
		if seen[name] {
			continue
		}
		if p.acts(name) {
			return nil, nil, false
		}
		unsets = append(unsets, name)
	}
	return sets, unsets, true
}

// acts tells whether a variable may have had an influence on the zygote.
func (p *process) acts(name string) bool {
	if p.reads[name] || p.readsAll && name != "PWD" {
		return true
	}
	return slices.ContainsFunc(startVars, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
}

// changed tells whether anything was added to or taken from the directories
// that modules come from.
func (p *process) changed() bool {
	for path, id := range p.paths {
		if now := identify(path); now != id {
			return true
		}
	}
	return false
}
