package router

import (
	"bytes"
	"crypto/tls"
	"net"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/volcano-sh/agentcube/api"
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

// said is a connection whose other end has said all that there is to say.
type said struct {
	net.Conn
	in *bytes.Reader
}

func (s *said) Read(p []byte) (int, error)      { return s.in.Read(p) }
func (s *said) SetReadDeadline(time.Time) error { return nil }
func (s *said) SetDeadline(time.Time) error     { return nil }
func (s *said) RemoteAddr() net.Addr            { return &net.TCPAddr{} }

// hello is what a client begins a connection with.
func hello(f *testing.F, name string, least uint16) []byte {
	near, far := net.Pipe()
	defer near.Close()
	got := make(chan []byte, 1)
	go func() {
		buf := make([]byte, 64<<10)
		n, _ := far.Read(buf)
		far.Close()
		got <- buf[:n]
	}()
	err := tls.Client(near, &tls.Config{ServerName: name, MinVersion: least, NextProtos: []string{"h2"}, InsecureSkipVerify: true}).HandshakeContext(f.Context())
	if err == nil {
		f.Fatal("a handshake with nobody")
	}
	return <-got
}

// FuzzHello: of whatever begins like TLS a name is read that it holds, and what is
// passed on is what was read of it, from its beginning.
func FuzzHello(f *testing.F) {
	for _, name := range []string{"", "s.example", api.SecureName("0a1b2c3d-0000-4000-8000-000000000000"), strings.Repeat("x", 250)} {
		for _, least := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			f.Add(hello(f, name, least))
		}
	}
	long := hello(f, "s.example", tls.VersionTLS13)
	f.Add(long[:len(long)-1])
	f.Add(append(slices.Clone(long), "what follows"...))
	f.Add([]byte{22, 3, 1, 0xff, 0xff, 1, 0xff, 0xff, 0xff})
	f.Add([]byte("\x16GET / HTTP/1.1\r\n\r\n"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, sent []byte) {
		name, read, err := readHello(t.Context(), &said{in: bytes.NewReader(sent)})
		if err != nil {
			if name != "" || read != nil {
				t.Errorf("refused with %q and %d bytes", name, len(read))
			}
			return
		}
		if !bytes.HasPrefix(sent, read) || len(read) > maxHello || len(read) == 0 || read[0] != 22 {
			t.Errorf("passes on %d bytes that were not sent so", len(read))
		}
		if id, ok := api.SessionOfName(name); ok && (id == "" || api.SecureName(id) != name || strings.ContainsAny(name, "\x00\r\n\" /")) {
			t.Errorf("%q is the name of session %q, whose name is %q", name, id, api.SecureName(id))
		}
	})
}
