package httpserve

import (
	"net"
	"net/http"
	"net/netip"
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
	// Names are accepted as Host, without port, besides localhost, loopback
	// addresses and the very address that the request was sent to: these a page
	// can have under no name of its own.
	Names []string
}

// Check returns a 403 error when the request's Host is not one of ours, or
// when it comes from a web page of another origin.
func (h Hosts) Check(r *http.Request) error {
	if name := hostname(r.Host); !h.known(name) && !sentTo(r, name) {
		return api.Errorf(http.StatusForbidden, api.CodeForbidden, "host is not allowed").
			WithHint("use http://localhost, or add the name to the setting allowedHosts")
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
	if ip, err := netip.ParseAddr(name); err == nil && ip.Zone() == "" && ip.Unmap().IsLoopback() {
		return true
	}
	return slices.ContainsFunc(h.Names, func(n string) bool { return strings.EqualFold(n, name) })
}

// sentTo reports whether name is the address at which the request's connection
// arrived.
func sentTo(r *http.Request, name string) bool {
	ip, err := netip.ParseAddr(name)
	at, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	return err == nil && ok && ip.Unmap() == at.AddrPort().Addr().Unmap().WithZone("")
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
