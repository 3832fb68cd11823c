package manager

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/auth"
	"github.com/volcano-sh/agentcube/internal/httpguard"
	"github.com/volcano-sh/agentcube/internal/httpserve"
	"github.com/volcano-sh/agentcube/internal/session"
)

// maxForkBody bounds the body of a fork: 64 keys and the metadata.
const maxForkBody = 2 << 20

func (m *Manager) pauseSession(w http.ResponseWriter, r *http.Request, who auth.Principal) error {
	return m.answerSession(w, r, who, m.Pause)
}

func (m *Manager) resumeSession(w http.ResponseWriter, r *http.Request, who auth.Principal) error {
	return m.answerSession(w, r, who, m.Resume)
}

func (m *Manager) forkSession(w http.ResponseWriter, r *http.Request, who auth.Principal) error {
	var req api.ForkRequest
	signed, err := readSigned(w, r, &req)
	if err != nil {
		return err
	}
	forks, err := m.Fork(r.Context(), who, r.PathValue("id"), req, r.Header.Get(api.HeaderSessionSignature), signed)
	if err != nil {
		return err
	}
	out := api.ForkResponse{Sessions: make([]api.CreateResponse, 0, len(forks))}
	for _, rec := range forks {
		out.Sessions = append(out.Sessions, m.created(rec))
	}
	httpserve.WriteJSON(w, http.StatusOK, out)
	return nil
}

func (m *Manager) checkpointSession(w http.ResponseWriter, r *http.Request, who auth.Principal) error {
	var req api.CheckpointRequest
	signed, err := readSigned(w, r, &req)
	if err != nil {
		return err
	}
	c, err := m.Checkpoint(r.Context(), who, r.PathValue("id"), req, r.Header.Get(api.HeaderSessionSignature), signed)
	if err != nil {
		return err
	}
	httpserve.WriteJSON(w, http.StatusOK, c.API(m.clock, m.cfg.CheckpointRetention))
	return nil
}

// readSigned reads a body that may be signed, and says what its signature has to
// be about. No body counts as {}.
func readSigned(w http.ResponseWriter, r *http.Request, v any) (auth.Agreement, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxForkBody))
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge || errors.Is(err, httpguard.ErrStalled) {
		return auth.Agreement{}, err
	}
	if err != nil {
		return auth.Agreement{}, invalid("Invalid request body").WithCause(err)
	}
	if len(body) > 0 {
		r.Body = io.NopCloser(bytes.NewReader(body))
		if err := httpserve.ReadJSON(w, r, maxForkBody, v); err != nil {
			return auth.Agreement{}, err
		}
	}
	return auth.Agreement{Method: r.Method, Path: r.URL.EscapedPath(), Body: body}, nil
}

func (m *Manager) listCheckpoints(w http.ResponseWriter, r *http.Request, who auth.Principal) error {
	owner, err := listOwner(r, who)
	if err != nil {
		return err
	}
	all, err := m.Checkpoints(r.Context(), owner)
	if err != nil {
		return err
	}
	out := api.CheckpointList{Checkpoints: make([]api.Checkpoint, 0, len(all))}
	for _, c := range all {
		out.Checkpoints = append(out.Checkpoints, c.API(m.clock, m.cfg.CheckpointRetention))
	}
	httpserve.WriteJSON(w, http.StatusOK, out)
	return nil
}

func (m *Manager) deleteCheckpointByName(w http.ResponseWriter, r *http.Request, who auth.Principal) error {
	owner := who.Name
	if named := r.URL.Query().Get("owner"); named != "" {
		owner = named
	}
	c, err := m.DeleteCheckpoint(r.Context(), who, owner, r.PathValue("name"))
	if err != nil {
		return err
	}
	httpserve.WriteJSON(w, http.StatusOK, c.API(m.clock, m.cfg.CheckpointRetention))
	return nil
}

// answerSession answers with the record that change returns.
func (m *Manager) answerSession(w http.ResponseWriter, r *http.Request, who auth.Principal,
	change func(ctx context.Context, who auth.Principal, id string) (session.Session, error),
) error {
	rec, err := change(r.Context(), who, r.PathValue("id"))
	if err != nil {
		return err
	}
	httpserve.WriteJSON(w, http.StatusOK, rec.API(m.clock))
	return nil
}
