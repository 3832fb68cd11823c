package httpserve

import (
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/volcano-sh/agentcube/api"
)

// Hosts keeps web pages away from a service that listens on the machine of the
// person who browses: a page can make a browser send requests to
// localhost, or to a name of its own that resolves to 127.0.0.1, but it cannot
// choose the Host and Origin that the browser sends with them.
type Hosts struct {
	// Any turns the check of Host off, for a listener that others reach
	// under names that nobody has listed. Origin is checked all the same.
	Any bool
	// Names are accepted as Host besides localhost and loopback addresses,
	// without port, such as "agentcube.example".
	Names []string
}

// Check returns a 403 error when the request's Host is not one of ours, or
// when it comes from a web page of another origin.
func (h Hosts) Check(r *http.Request) error {
	if !h.Any && !h.known(hostname(r.Host)) {
		return api.Errorf(http.StatusForbidden, api.CodeForbidden, "host is not allowed").
			WithHint("use http://localhost, or add the name to the configured host names")
	}
	for _, origin := range r.Header.Values("Origin") {
		if !sameOrigin(origin, r) {
			return api.Errorf(http.StatusForbidden, api.CodeForbidden, "origin is not allowed")
		}
	}
	// Browsers send this with requests that carry no Origin too, such as for
	// an image. "none" is what a person typed.
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "same-origin", "none":
		return nil
	}
	return api.Errorf(http.StatusForbidden, api.CodeForbidden, "origin is not allowed")
}

func (h Hosts) known(name string) bool {
	if strings.EqualFold(name, "localhost") {
		return true
	}
	if ip := net.ParseIP(name); ip != nil && ip.IsLoopback() {
		return true
	}
	return slices.ContainsFunc(h.Names, func(n string) bool { return strings.EqualFold(n, name) })
}

// sameOrigin reports whether origin is the very host and port of the request.
func sameOrigin(origin string, r *http.Request) bool {
	u, err := url.Parse(origin)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return false
	}
	return strings.EqualFold(u.Host, r.Host)
}

// hostname is a Host header without its port and brackets.
func hostname(host string) string {
	u := url.URL{Host: host}
	return u.Hostname()
}
