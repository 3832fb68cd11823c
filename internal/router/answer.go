package router

import (
	"bufio"
	"maps"
	"net"
	"net/http"
	"strings"

	"github.com/volcano-sh/agentcube/api"
)

// answer is what the proxy writes a sandbox's answer to. Whatever a sandbox sends,
// the headers that are ours reach the client: with an interim answer (1xx) the proxy
// would forget them. Interim answers are dropped.
type answer struct {
	http.ResponseWriter
	ours http.Header
}

// newAnswer keeps the headers that have been set so far.
func newAnswer(w http.ResponseWriter, c *call) *answer {
	ours := w.Header().Clone()
	if !c.agent {
		for _, name := range ownPolicy() {
			ours.Del(name)
			w.Header().Del(name)
		}
	}
	return &answer{w, ours}
}

// Unwrap is for http.ResponseController.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (a *answer) WriteHeader(status int) {
	if status < http.StatusOK && status != http.StatusSwitchingProtocols {
		return
	}
	maps.Copy(a.Header(), a.ours)
	a.ResponseWriter.WriteHeader(status)
}

// Hijack is for http.ResponseController, when protocols are switched: the answer
// is written after it.
func (a *answer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	maps.Copy(a.Header(), a.ours)
	return http.NewResponseController(a.ResponseWriter).Hijack()
}

// modifyResponse drops what a sandbox has no say in. A redirect of PicoD's names
// the path as PicoD knows it.
func modifyResponse(resp *http.Response) error {
	c := callOf(resp.Request.Context())
	if to := resp.Header.Get("Location"); c.agent && strings.HasPrefix(to, "/") && !strings.HasPrefix(to, "//") {
		resp.Header.Set("Location", c.prefix+to)
	}
	for _, name := range notTheirs() {
		resp.Header.Del(name)
	}
	if c.agent {
		for _, name := range notTheAgents() {
			resp.Header.Del(name)
		}
	}
	c.recording.answered(resp)
	return nil
}

// notTheirs are the headers that are ours, and have been set already, and those
// that are about all that is at this host: other sessions, and AgentCube itself.
func notTheirs() []string {
	return []string{
		api.HeaderSessionID, api.HeaderRequestID, api.HeaderTraceID, "X-Content-Type-Options",
		"Alt-Svc", "Clear-Site-Data", "Nel", "Report-To", "Reporting-Endpoints", "Service-Worker-Allowed", "Strict-Transport-Security",
	}
}

// ownPolicy are the headers of answers that a template's own server decides on; for
// those of PicoD they are ours.
func ownPolicy() []string { return []string{"Cache-Control", "Content-Security-Policy"} }

// notTheAgents are headers that PicoD does not send, or not with an effect: what
// does may be a program that runs as root in its sandbox, and has taken its place.
func notTheAgents() []string { return append(ownPolicy(), "Set-Cookie") }
