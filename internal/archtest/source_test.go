package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// forbidden functions, and the folders whose code may call them all the same.
var forbidden = []struct {
	pkg   string // import path
	names []string
	in    []string
	why   string
}{
	{"os", []string{"Getenv", "LookupEnv", "ExpandEnv", "Environ", "Setenv", "Unsetenv"}, []string{"cmd", "internal/config", "images",
		"test/kubernetes/cmd", "internal/sandbox/gvisor/agent"}, // where gVisor's kernel is can be said in no other way
		"only internal/config and main read the environment"},
	{"syscall", []string{"Getenv", "Environ", "Setenv"}, []string{"cmd", "internal/config"},
		"only internal/config and main read the environment"},
	{"os", []string{"Exit"}, []string{"cmd", "images", "test/kubernetes/cmd", "test/security/cmd"}, "only main ends the process"},
	{"log", []string{"Fatal", "Fatalf", "Fatalln", "Panic", "Panicf", "Panicln", "Print", "Printf", "Println"}, []string{"images"},
		"errors are returned and log/slog is used"},
	{"log/slog", []string{"SetDefault", "Debug", "Info", "Warn", "Error", "Log", "LogAttrs"}, nil,
		"a logger is handed over, not taken from the air"},
	{"net/http", []string{"Get", "Post", "PostForm", "Head", "Handle", "HandleFunc", "ListenAndServe", "DefaultClient", "DefaultServeMux"}, nil,
		"they share state and have no time-out"},
}

// TestCalls: what only some code may call, and no init functions.
func TestCalls(t *testing.T) {
	for _, p := range load(t) {
		if !p.ours() {
			continue
		}
		for _, name := range p.GoFiles {
			checkFile(t, p, filepath.Join(p.Dir, name))
		}
	}
}

func checkFile(t *testing.T, p pkg, path string) {
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, path, nil, 0)
	if err != nil {
		t.Error(err)
		return
	}
	at := func(n ast.Node) string {
		return p.rel() + "/" + filepath.Base(path) + ":" + strconv.Itoa(fset.Position(n.Pos()).Line)
	}
	imports := importNames(file)
	ast.Inspect(file, func(n ast.Node) bool {
		// That of gvisor registers nothing: where the first thread stays is decided
		// before main, or not at all.
		if f, ok := n.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" && p.rel() != "internal/sandbox/gvisor" {
			t.Errorf("%s: func init: registration is explicit here", at(n))
		}
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		x, ok := sel.X.(*ast.Ident)
		if !ok {
			return true
		}
		for _, rule := range forbidden {
			if imports[x.Name] == rule.pkg && slices.Contains(rule.names, sel.Sel.Name) && !inAny(p.rel(), rule.in) {
				t.Errorf("%s: %s.%s: %s", at(n), x.Name, sel.Sel.Name, rule.why)
			}
		}
		return true
	})
}

// importNames maps the names that packages have in a file to their paths.
func importNames(file *ast.File) map[string]string {
	out := map[string]string{}
	for _, spec := range file.Imports {
		path := strings.Trim(spec.Path.Value, `"`)
		name := path[strings.LastIndex(path, "/")+1:]
		if spec.Name != nil {
			name = spec.Name.Name
		}
		out[name] = path
	}
	return out
}
