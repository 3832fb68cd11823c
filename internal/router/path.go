package router

import (
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/volcano-sh/agentcube/api"
)

// filesPath is below what PicoD serves the files of the workspace.
const filesPath = "/api/files/"

// invocation is what the path of a data-plane request says.
type invocation struct {
	kind, namespace, name string
	// prefix is what comes before the sandbox's own path, as it was sent.
	prefix string
	// path is what goes to the sandbox: decoded once, without dot segments.
	path string
	// escapes: dot segments led out of what PicoD serves as files. Without them
	// it would know the path as another one, or as none at all.
	escapes bool
	// bare: the path ended at "/invocations", without a slash.
	bare bool
}

// parseInvocation reads
// /v1/namespaces/{namespace}/{kind}/{name}/invocations/{path}. It takes the path
// as it was sent, so that an encoded slash in a name does not move the borders.
func parseInvocation(escaped string) (invocation, bool) {
	rest, ok := strings.CutPrefix(escaped, "/v1/namespaces/")
	if !ok {
		return invocation{}, false
	}
	parts := strings.SplitN(rest, "/", 5)
	if len(parts) < 4 || parts[3] != "invocations" {
		return invocation{}, false
	}
	var inv invocation
	switch parts[1] {
	case "code-interpreters":
		inv.kind = api.KindCodeInterpreter
	case "agent-runtimes":
		inv.kind = api.KindAgentRuntime
	default:
		return invocation{}, false
	}
	namespace, err1 := url.PathUnescape(parts[0])
	name, err2 := url.PathUnescape(parts[2])
	if err1 != nil || err2 != nil || namespace == "" || name == "" {
		return invocation{}, false
	}
	inv.namespace, inv.name = namespace, name
	if len(parts) == 4 {
		inv.bare = true
		return inv, true
	}
	inv.prefix = strings.TrimSuffix(escaped, "/"+parts[4])
	path, err := url.PathUnescape(parts[4])
	if err != nil {
		return invocation{}, false
	}
	inv.path = removeDots("/" + path)
	inv.escapes = strings.HasPrefix("/"+path, filesPath) && !strings.HasPrefix(inv.path, filesPath)
	return inv, true
}

// allows reports whether a method is carried: those that PicoD knows, and to an
// agent's own server all that are plain requests.
func (inv invocation) allows(method string) bool {
	switch method {
	case http.MethodGet, http.MethodPost:
		return true
	case http.MethodHead, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return inv.kind == api.KindAgentRuntime
	}
	return false
}

// removeDots resolves "." and ".." segments of a decoded path, which cannot
// leave the root. All else, empty segments too, stays as it is.
func removeDots(path string) string {
	if !strings.Contains(path, "/.") {
		return path
	}
	segments := strings.Split(path, "/")[1:]
	out := make([]string, 0, len(segments))
	for i, s := range segments {
		last := i == len(segments)-1
		switch s {
		case "..":
			if len(out) > 0 {
				out = out[:len(out)-1]
			}
		case ".":
		default:
			out = append(out, s)
			continue
		}
		if last {
			out = append(out, "") // "/a/." names the folder /a/
		}
	}
	return "/" + strings.Join(out, "/")
}

// choose picks the entry point for a path: the longest prefix that ends at a
// segment border, else the first entry point.
func choose(entryPoints []api.EntryPoint, path string) (api.EntryPoint, bool) {
	if len(entryPoints) == 0 {
		return api.EntryPoint{}, false
	}
	best, length := entryPoints[0], -1
	for _, e := range entryPoints {
		prefix := "/" + strings.Trim(e.Path, "/")
		if prefix == "/" {
			prefix = ""
		}
		if len(prefix) > length && (path == prefix || strings.HasPrefix(path, prefix+"/")) {
			best, length = e, len(prefix)
		}
	}
	return best, true
}

// endpoint is where a call goes.
type endpoint struct {
	scheme string // "http" or "https"
	host   string // names the pool of connections
	port   uint16
}

func parseEndpoint(e api.EntryPoint) (endpoint, bool) {
	scheme, host := strings.ToLower(e.Protocol), e.Endpoint
	if s, h, ok := strings.Cut(host, "://"); ok {
		scheme, host = strings.ToLower(s), h
	}
	if scheme != "http" && scheme != "https" {
		return endpoint{}, false
	}
	_, text, err := net.SplitHostPort(host)
	if err != nil {
		return endpoint{}, false
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil || port == 0 {
		return endpoint{}, false
	}
	return endpoint{scheme: scheme, host: host, port: uint16(port)}, true
}
