package router

import (
	"net/url"
	"strings"
	"testing"
)

// dotless is removeDots in the words of RFC 3986, 5.2.4, which is another way.
func dotless(in string) string {
	out := ""
	for in != "" {
		switch {
		case strings.HasPrefix(in, "/./"):
			in = in[2:]
		case in == "/.":
			in = "/"
		case strings.HasPrefix(in, "/../"):
			in = in[3:]
			out = out[:max(strings.LastIndex(out, "/"), 0)]
		case in == "/..":
			in = "/"
			out = out[:max(strings.LastIndex(out, "/"), 0)]
		default:
			n := strings.Index(in[1:], "/") + 1
			if n == 0 {
				n = len(in)
			}
			out += in[:n]
			in = in[n:]
		}
	}
	return out
}

// FuzzRemoveDots: the path that goes to a sandbox is the one of RFC 3986, and there
// is nothing left in it that would lead anywhere else.
func FuzzRemoveDots(f *testing.F) {
	for _, path := range []string{"", "a", "a/../b", "./..", "../../x", "a//../b", ".../.hidden", "a/b/..", "a/.", "//..//", "/../", "..//a", "a/..\x00/b"} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		got := removeDots("/" + path)
		if want := dotless("/" + path); got != want {
			t.Errorf("%q becomes %q, want %q", "/"+path, got, want)
		}
		for segment := range strings.SplitSeq(got, "/") {
			if segment == "." || segment == ".." {
				t.Errorf("%q becomes %q", "/"+path, got)
			}
		}
		if again := removeDots(got); again != got {
			t.Errorf("%q becomes %q, and then %q", "/"+path, got, again)
		}
	})
}

// FuzzInvocation: the parts of a path are those that its slashes part, and a path
// that means files stays with the files, or says that it does not.
func FuzzInvocation(f *testing.F) {
	const base = "/v1/namespaces/default/code-interpreters/python/invocations"
	for _, rest := range []string{"", "/", "/api/files/a", "/api/files/..%2f..%2fetc", "/api/files/%2e%2e/execute", "//x", "/%2F%2F", "/a%00b", "/%zz", "/%25", "/..;/x"} {
		f.Add(base + rest)
	}
	f.Add("/v1/namespaces/a%2Fb/agent-runtimes/c%2e%2e/invocations/x")
	f.Add("/v1/namespaces//agent-runtimes/c/invocations/x")
	f.Add("/v1/namespaces/a/pods/c/invocations/x")
	f.Fuzz(func(t *testing.T, escaped string) {
		inv, ok := parseInvocation(escaped)
		if !ok {
			return
		}
		if inv.namespace == "" || inv.name == "" || inv.kind != "CodeInterpreter" && inv.kind != "AgentRuntime" {
			t.Errorf("%q is %+v", escaped, inv)
		}
		kind := map[string]string{"CodeInterpreter": "code-interpreters", "AgentRuntime": "agent-runtimes"}[inv.kind]
		parts := strings.SplitN(escaped, "/", 8)
		if len(parts) < 7 || parts[4] != kind || parts[6] != "invocations" || unescaped(parts[3]) != inv.namespace || unescaped(parts[5]) != inv.name {
			t.Fatalf("%q is %+v", escaped, inv)
		}
		if inv.bare {
			if len(parts) != 7 {
				t.Errorf("%q is bare", escaped)
			}
			return
		}
		sent := "/" + unescaped(parts[7])
		if inv.path != dotless(sent) || inv.prefix != strings.Join(parts[:7], "/") {
			t.Errorf("%q is %+v", escaped, inv)
		}
		if strings.HasPrefix(sent, filesPath) && !strings.HasPrefix(inv.path, filesPath) && !inv.escapes {
			t.Errorf("%q leaves the files as %q", escaped, inv.path)
		}
	})
}

func unescaped(s string) string {
	out, err := url.PathUnescape(s)
	if err != nil {
		return "?" + s
	}
	return out
}
