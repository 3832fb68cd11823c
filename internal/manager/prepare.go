package manager

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"time"

	"github.com/volcano-sh/agentcube/api"
	record "github.com/volcano-sh/agentcube/api/audit"
	"github.com/volcano-sh/agentcube/internal/audit"
	"github.com/volcano-sh/agentcube/internal/auth"
	"github.com/volcano-sh/agentcube/internal/httpserve"
)

const (
	// prepareTimeout bounds the preparation of a template: its image may have
	// to be unpacked first, and its modules take their time to import.
	prepareTimeout = 15 * time.Minute
	// maxSteps are kept for a client that reads slowly; what is more is left out.
	maxSteps = 16
)

// prepare answers POST /v1/templates/{namespace}/{name}/prepare: a stream of
// api.PrepareStep, one JSON document a line. Whoever may create a session may
// ask for it, as the first session has the same made. What fails before the first
// step is answered like any other failure.
func (m *Manager) prepare(w http.ResponseWriter, r *http.Request, who auth.Principal) error {
	of := auth.TemplateRef{Kind: api.KindCodeInterpreter, Namespace: r.PathValue("namespace"), Name: r.PathValue("name")}
	if err := m.cfg.Authorizer.Authorize(r.Context(), who, auth.VerbCreate, of); err != nil {
		return err
	}
	tmpl, err := m.template(r.Context(), who, Request{Kind: of.Kind, CreateRequest: api.CreateRequest{Namespace: of.Namespace, Name: of.Name}})
	if err != nil {
		return err
	}
	m.warm() // its pool is part of it
	ctx, cancel := context.WithTimeout(r.Context(), prepareTimeout)
	defer cancel()
	defer context.AfterFunc(m.base, cancel)()

	steps, done := make(chan string, maxSteps), make(chan error, 1)
	go func() {
		done <- m.driver.Prepare(ctx, m.templateSpec(tmpl), func(step string) {
			select {
			case steps <- step:
			default:
			}
		})
	}()
	out := stepWriter{w: w, r: r, log: m.log}
	for {
		select {
		case step := <-steps:
			out.write(api.PrepareStep{Step: step})
		case err := <-done:
			if err == nil {
				e := audit.Of(r.Context(), record.TemplatePrepared)
				e.Template = tmpl.Namespace + "/" + tmpl.Name
				m.cfg.Audit.Append(e)
			}
			for len(steps) > 0 {
				out.write(api.PrepareStep{Step: <-steps})
			}
			return out.end(err)
		}
	}
}

// stepWriter writes the lines of one answer.
type stepWriter struct {
	w     http.ResponseWriter
	r     *http.Request
	log   *slog.Logger
	begun bool
}

func (s *stepWriter) write(step api.PrepareStep) {
	if !s.begun {
		s.begun = true
		s.w.Header().Set("Content-Type", "application/x-ndjson")
		s.w.Header().Set("Cache-Control", "no-store")
		s.w.WriteHeader(http.StatusOK)
	}
	line, err := json.Marshal(step)
	if err == nil {
		_, err = s.w.Write(append(line, '\n'))
	}
	if err == nil {
		err = http.NewResponseController(s.w).Flush()
	}
	// The client is gone, which the request's context tells the driver.
	if err != nil {
		s.log.Debug("progress was not delivered", "error", err)
	}
}

// end writes the last line. A failure is for the caller to answer as long as
// nothing was written.
func (s *stepWriter) end(err error) error {
	if err == nil {
		s.write(api.PrepareStep{Done: true})
		return nil
	}
	if !s.begun {
		return err
	}
	failed := *httpserve.AsError(err)
	failed.Message, failed.RequestID, failed.Timestamp = failed.Text, httpserve.RequestID(s.r.Context()), time.Now().UTC()
	s.log.Error("template was not prepared", "requestId", failed.RequestID, "error", err)
	s.write(api.PrepareStep{Done: true, Error: &failed})
	return nil
}
