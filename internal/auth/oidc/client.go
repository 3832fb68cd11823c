package oidc

import (
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/volcano-sh/agentcube/internal/auth/oidc/issuer"
)

// maxDocument bounds what a provider answers.
const maxDocument = 1 << 20

// newClient is for one provider: it follows no redirects, asks nobody in plain text
// whose URL is https, and reads so much of an answer.
func newClient(of string, config *tls.Config) *http.Client {
	return &http.Client{
		Timeout:       fetchTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &bounded{
			plain: !strings.HasPrefix(of, "https://"),
			next: &http.Transport{
				Proxy:                  http.ProxyFromEnvironment,
				DialContext:            (&net.Dialer{Timeout: fetchTimeout / 2}).DialContext,
				TLSClientConfig:        config,
				TLSHandshakeTimeout:    fetchTimeout / 2,
				ForceAttemptHTTP2:      true,
				MaxResponseHeaderBytes: 64 << 10,
				DisableKeepAlives:      true, // it is asked every few minutes
				IdleConnTimeout:        time.Second,
			},
		},
	}
}

// bounded bounds whom is asked, and what is read.
type bounded struct {
	plain bool
	next  http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (b *bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" && !b.plain || !issuer.Safe(r.URL) {
		return nil, errors.New("the provider names a URL that is not https")
	}
	resp, err := b.next.RoundTrip(r)
	if err == nil {
		resp.Body = http.MaxBytesReader(nil, resp.Body, maxDocument)
	}
	return resp, err
}
