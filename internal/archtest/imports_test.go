package archtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

const module = "github.com/volcano-sh/agentcube"

// pkg is what `go list` says of a package.
type pkg struct {
	ImportPath   string
	Name         string
	Doc          string
	Dir          string
	Standard     bool
	GoFiles      []string
	TestGoFiles  []string
	XTestGoFiles []string
	Imports      []string
}

func (p pkg) ours() bool {
	return p.ImportPath == module || strings.HasPrefix(p.ImportPath, module+"/")
}

// rel is the import path within this module.
func (p pkg) rel() string { return strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/") }

// list loads this module and all it depends on, once. It is built for users, so
// without cgo.
var list = sync.OnceValues(func() (map[string]pkg, error) {
	// `go test` remembers results by what the test itself has read.
	for _, dir := range []string{"api", "client", "cmd", "internal", "images", "test"} {
		seen := func(string, fs.DirEntry, error) error { return nil }
		if err := filepath.WalkDir(filepath.Join("../..", dir), seen); err != nil {
			return nil, err
		}
	}
	cmd := exec.Command("go", "list", "-deps", "-json=ImportPath,Name,Doc,Dir,Standard,GoFiles,TestGoFiles,XTestGoFiles,Imports", "./...")
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=readonly")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, errors.Join(err, errors.New(stderr.String()))
	}
	pkgs := map[string]pkg{}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs, nil
		} else if err != nil {
			return nil, err
		}
		pkgs[p.ImportPath] = p
	}
})

func load(t *testing.T) map[string]pkg {
	t.Helper()
	pkgs, err := list()
	if err != nil {
		t.Fatal(err)
	}
	return pkgs
}

// in reports whether path is dir or below it.
func in(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }

func inAny(path string, dirs []string) bool {
	return slices.ContainsFunc(dirs, func(dir string) bool { return in(path, dir) })
}

// chain is the shortest way from a package to one that is forbidden, or nil.
func chain(pkgs map[string]pkg, from string, forbidden func(path string) bool) []string {
	came := map[string]string{from: ""}
	for queue := []string{from}; len(queue) > 0; queue = queue[1:] {
		at := queue[0]
		if at != from && forbidden(at) {
			var way []string
			for ; at != ""; at = came[at] {
				way = append([]string{at}, way...)
			}
			return way
		}
		for _, next := range pkgs[at].Imports {
			if _, seen := came[next]; !seen {
				came[next] = at
				queue = append(queue, next)
			}
		}
	}
	return nil
}

// TestNeverReaches: what must not be linked into what, by whatever way.
func TestNeverReaches(t *testing.T) {
	heavy := []string{"k8s.io", "sigs.k8s.io", "gvisor.dev", "github.com/spf13", "modernc.org", "github.com/valkey-io"}
	telemetry := []string{"github.com/prometheus", "go.opentelemetry.io"} // they know internal/trace, and hooks
	own := func(dirs ...string) (out []string) {
		for _, dir := range dirs {
			out = append(out, module+"/"+dir)
		}
		return out
	}
	tests := []struct {
		from   string // folders
		never  []string
		unless []string
	}{
		{"cmd/picod", heavy, nil},
		{"internal/picod", heavy, nil},
		{"internal/manager", own("internal/router", "internal/picod", "internal/operator", "internal/cli"), nil},
		{"internal/router", own("internal/manager", "internal/picod", "internal/operator", "internal/cli"), nil},
		{"internal/picod", own("internal/manager", "internal/router", "internal/operator", "internal/cli"), nil},
		{"internal/operator", own("internal/manager", "internal/router", "internal/picod", "internal/cli"), nil},
		{"client", own("internal"), nil},
		{"cmd/picod", telemetry, nil},
		{"client", telemetry, nil},
		{"internal/manager", telemetry, nil},
		{"internal/router", telemetry, nil},
		{"internal/httpserve", telemetry, nil},
		{"internal/manager", own("internal/sandbox", "internal/session"), own("internal/sandbox", "internal/session")},
		{"internal/router", own("internal/sandbox", "internal/session"), own("internal/sandbox", "internal/session")},
	}
	pkgs := load(t)
	for _, test := range tests {
		for path, p := range pkgs {
			if !p.ours() || !in(p.rel(), test.from) {
				continue
			}
			way := chain(pkgs, path, func(to string) bool {
				return inAny(to, test.never) && !slices.Contains(test.unless, to)
			})
			if way != nil {
				t.Errorf("%s must not depend on %s:\n  %s", p.rel(), way[len(way)-1], strings.Join(way, "\n  imports "))
			}
		}
	}
}

// TestOnlyImports: the vocabulary stands alone, so that whoever programs
// against it inherits nothing.
func TestOnlyImports(t *testing.T) {
	tests := map[string][]string{ // beside the standard library
		"api":              nil,
		"internal/sandbox": nil,
		"internal/trace":   nil,
		"internal/session": {module + "/api"},
		"client":           {module + "/api", module + "/api/audit", "github.com/golang-jwt/jwt/v5"},
		"api/audit":        {"github.com/golang-jwt/jwt/v5"},
	}
	pkgs := load(t)
	for rel, allowed := range tests {
		p, ok := pkgs[module+"/"+rel]
		if !ok {
			t.Errorf("there is no package %s", rel)
		}
		for _, path := range p.Imports {
			if !pkgs[path].Standard && !slices.Contains(allowed, path) {
				t.Errorf("%s must not import %s", rel, path)
			}
		}
	}
}

// TestOnlyImportedBy: what is behind an interface stays there.
func TestOnlyImportedBy(t *testing.T) {
	tests := []struct {
		path string
		by   []string
	}{
		{"gvisor.dev", []string{"internal/sandbox/gvisor"}},
		{"modernc.org/sqlite", []string{"internal/session/sqlite"}},
		{"github.com/valkey-io/valkey-go", []string{"internal/session/redis"}},
		{"github.com/spf13/cobra", []string{"internal/cli"}},
		{"github.com/coreos/go-oidc", []string{"internal/auth/oidc"}},
		{"github.com/google/go-containerregistry", []string{"internal/image", "images"}},
		{"github.com/prometheus", []string{"internal/metrics", "internal/operator"}},
		{"go.opentelemetry.io", []string{"internal/trace/otlp"}},
	}
	pkgs := load(t)
	for _, test := range tests {
		used := false
		for _, p := range pkgs {
			if !p.ours() {
				continue
			}
			for _, path := range p.Imports {
				if in(path, test.path) {
					used = true
					if !inAny(p.rel(), test.by) {
						t.Errorf("%s imports %s; only %s may", p.rel(), path, strings.Join(test.by, ", "))
					}
				}
			}
		}
		if !used {
			t.Errorf("nothing imports %s any more: mend this test", test.path)
		}
	}
}

// TestPackages: every package says what it is for and has a name that does.
func TestPackages(t *testing.T) {
	junk := []string{"util", "utils", "common", "helper", "helpers", "types", "misc", "shared"}
	for _, p := range load(t) {
		if !p.ours() {
			continue
		}
		if p.Doc == "" && len(p.GoFiles) > 0 {
			t.Errorf("%s has no package comment", p.rel())
		}
		if slices.Contains(junk, p.Name) {
			t.Errorf("%s: %q says nothing about what is in it", p.rel(), p.Name)
		}
	}
}
