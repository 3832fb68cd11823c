package cli

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/volcano-sh/agentcube/internal/sandbox"
)

func (s *server) url() string {
	scheme := "http://"
	if s.cfg.TLSCertFile != "" {
		scheme = "https://"
	}
	addr := s.web.Address().String()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return scheme + addr
	}
	if ip := net.ParseIP(host); ip != nil && (ip.IsLoopback() || ip.IsUnspecified()) {
		host = "localhost"
	}
	return scheme + net.JoinHostPort(host, port)
}

// notifyTimeout bounds the wait for a service manager that does not listen.
const notifyTimeout = time.Second

// ready is the message that AgentCube can be used.
type ready struct {
	URL       string          `json:"url"`
	TokenFile string          `json:"tokenFile"`
	DataDir   string          `json:"dataDir"`
	Metrics   string          `json:"metrics,omitempty"`
	Templates []string        `json:"templates"`
	Isolation string          `json:"isolation"`
	Platform  string          `json:"platform"`
	Limits    []sandbox.Limit `json:"limits"`
}

// announce tells the person, and the service manager, that AgentCube is ready.
func (s *server) announce() error {
	caps := s.driver.Capabilities()
	r := ready{
		URL: s.url(), TokenFile: s.cfg.TokenFile, DataDir: s.cfg.DataDir, Metrics: s.telemetry.url(),
		Isolation: caps.Isolation, Platform: caps.Platform, Limits: caps.Limits,
	}
	for _, t := range s.templates.List() {
		r.Templates = append(r.Templates, t.Namespace+"/"+t.Name)
	}
	var held, not []string
	for _, l := range caps.Limits {
		if l.Enforced {
			held = append(held, l.Name)
		} else {
			not = append(not, l.Name+" ("+l.How+")")
		}
	}
	s.notify("READY=1")
	return s.a.print(r, func(w io.Writer) {
		fmt.Fprintln(w, "AgentCube is ready.")
		fields(w,
			"  URL", r.URL, "  Token", r.TokenFile, "  Templates", strings.Join(r.Templates, ", "),
			"  Isolation", r.Isolation+" ("+r.Platform+")",
			"  Metrics", r.Metrics,
			"  Limits", strings.Join(held, ", "), "  Not limited", strings.Join(not, ", "))
		if isTerminal(w) {
			fmt.Fprintln(w, "Ctrl-C stops it and ends all sessions.")
		}
	})
}

// stopping says that the end has begun.
func (s *server) stopping() {
	s.log.Info("stopping")
	s.notify("STOPPING=1")
}

// notify tells the service manager, if one started this process, about a change
// of state, as sd_notify(3) does. That it cannot be told stops nothing.
func (s *server) notify(state string) {
	if s.cfg.NotifySocket == "" {
		return
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: s.cfg.NotifySocket, Net: "unixgram"})
	if err == nil {
		err = conn.SetDeadline(time.Now().Add(notifyTimeout))
		_, werr := io.WriteString(conn, state)
		err = errors.Join(err, werr, conn.Close())
	}
	if err != nil {
		s.log.Warn("service manager not notified", "state", state, "error", err)
	}
}
