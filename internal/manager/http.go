package manager

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/audit"
	"github.com/volcano-sh/agentcube/internal/auth"
	"github.com/volcano-sh/agentcube/internal/httpserve"
	"github.com/volcano-sh/agentcube/internal/session"
)

// maxCreateBody bounds the body of a create request; the largest that passes
// the other checks has about 2 MiB, and more where much is escaped.
const maxCreateBody = 4 << 20

// Page sizes of the session list.
const (
	defaultPage = 100
	maxPage     = 1000
)

// newRoutes is the table of the control-plane API. A method that a path does
// not have falls through to the 404, as older clients expect.
func (m *Manager) newRoutes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", health)
	mux.HandleFunc("GET /v1/openapi.yaml", describe)
	for _, r := range slices.Concat(m.table(), m.tokenTable()) {
		mux.Handle(r.pattern, m.authenticated(r.scopes, r.handler))
	}
	mux.HandleFunc("/", httpserve.NotFound)
	return mux
}

// route is something that callers ask for who say who they are.
type route struct {
	pattern string
	// scopes of which the caller needs one. That is asked before anything is
	// looked up, so that the answer tells nothing of what there is.
	scopes  auth.Scopes
	handler handler
}

func (m *Manager) table() []route {
	const (
		create = auth.ScopeCreate
		use    = auth.ScopeUse
		admin  = auth.ScopeAdmin
	)
	return []route{
		{"POST /v1/code-interpreter", create, m.create(api.KindCodeInterpreter)},
		{"POST /v1/agent-runtime", create, m.create(api.KindAgentRuntime)},
		// Either path deletes any session of the caller, as it always did.
		{"DELETE /v1/code-interpreter/sessions/{id}", use | admin, m.deleteOld},
		{"DELETE /v1/agent-runtime/sessions/{id}", use | admin, m.deleteOld},
		{"GET /v1/sessions", use | admin, m.list},
		{"GET /v1/sessions/{id}", use | admin, m.get},
		{"DELETE /v1/sessions/{id}", use | admin, m.delete},
		{"POST /v1/sessions/{id}/pause", use, m.pauseSession},
		{"POST /v1/sessions/{id}/resume", use, m.resumeSession},
		{"POST /v1/sessions/{id}/fork", create, m.forkSession},
		{"POST /v1/sessions/{id}/checkpoints", create, m.checkpointSession},
		{"GET /v1/checkpoints", use | admin, m.listCheckpoints},
		{"DELETE /v1/checkpoints/{name}", use | admin, m.deleteCheckpointByName},
		{"POST /v1/templates/{namespace}/{name}/prepare", create, m.prepare},
	}
}

func health(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", httpserve.ContentTypeJSON)
	_, _ = io.WriteString(w, `{"status":"healthy"}`)
}

func describe(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/yaml")
	_, _ = io.WriteString(w, api.OpenAPI())
}

type handler func(w http.ResponseWriter, r *http.Request, who auth.Principal) error

func (m *Manager) authenticated(oneOf auth.Scopes, h handler) http.Handler {
	return httpserve.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		who, err := m.cfg.Authenticator.Authenticate(r)
		if err != nil {
			m.auditStranger(r, err)
			return err
		}
		r = r.WithContext(audit.WithCause(r.Context(), audit.Cause{
			Actor: who.Name, RequestID: httpserve.RequestID(r.Context()), From: r.RemoteAddr,
		}))
		if err = who.Need(oneOf); err == nil && r.Method == http.MethodPost {
			err = m.cfg.Audit.Ready()
		}
		if err == nil {
			err = h(w, r, who)
		}
		if err != nil {
			m.auditRefused(r, err)
		}
		return err
	})
}

func (m *Manager) create(kind string) handler {
	return func(w http.ResponseWriter, r *http.Request, who auth.Principal) error {
		req := Request{Kind: kind, IdempotencyKey: r.Header.Get(api.HeaderIdempotencyKey)}
		if err := readCreate(w, r, &req.CreateRequest); err != nil {
			return err
		}
		rec, err := m.Create(r.Context(), who, req)
		if err != nil {
			return err
		}
		out := m.created(rec)
		out.Variables, out.Files = len(req.Env), len(req.Files)
		httpserve.WriteJSON(w, http.StatusOK, out)
		return nil
	}
}

func readCreate(w http.ResponseWriter, r *http.Request, req *api.CreateRequest) error {
	// The fields of api.CreateRequest, but with pointers that tell null, which
	// is refused, from the empty string.
	var body struct {
		Name      string             `json:"name"`
		Namespace string             `json:"namespace"`
		PublicKey string             `json:"publicKey"`
		TTL       int64              `json:"ttl"`
		Metadata  map[string]*string `json:"metadata"`

		Checkpoint string                     `json:"checkpoint"`
		Env        map[string]json.RawMessage `json:"env"`
		Files      []fileBody                 `json:"files"`
	}
	if err := httpserve.ReadJSON(w, r, maxCreateBody, &body); err != nil {
		return err
	}
	*req = api.CreateRequest{
		Name: body.Name, Namespace: body.Namespace, PublicKey: body.PublicKey, TTL: body.TTL, Checkpoint: body.Checkpoint,
	}
	if body.Metadata != nil {
		req.Metadata = make(map[string]string, len(body.Metadata))
	}
	for k, v := range body.Metadata {
		if v == nil {
			return invalid("metadata values must be strings")
		}
		req.Metadata[k] = *v
	}
	var err error
	if req.Env, err = readEnv(body.Env); err != nil {
		return err
	}
	req.Files, err = readFiles(body.Files)
	return err
}

func (m *Manager) created(rec session.Session) api.CreateResponse {
	return api.CreateResponse{
		Kind: "Sandbox", SessionID: rec.ID, SandboxID: rec.SandboxID, SandboxName: rec.SandboxID,
		EntryPoints: rec.EntryPoints, OwnerID: rec.Owner, Session: rec.API(m.clock),
	}
}

// deleteOld knows no ended sessions: what has ended is as unknown as what
// never was, which clients of this path count as success.
func (m *Manager) deleteOld(w http.ResponseWriter, r *http.Request, who auth.Principal) error {
	id := r.PathValue("id")
	_, err := m.Delete(r.Context(), who, id)
	if err != nil && httpserve.AsError(err).Code == api.CodeSessionEnded {
		return unknownSession(id).WithCause(err)
	}
	if err != nil {
		return err
	}
	httpserve.WriteJSON(w, http.StatusOK, struct {
		Message string `json:"message"`
	}{"Sandbox deleted successfully"})
	return nil
}

func unknownSession(id string) *api.Error {
	return api.Errorf(http.StatusNotFound, api.CodeSessionNotFound,
		"Session ID %s not found, maybe already deleted", shorten(id))
}

// shorten keeps an answer from repeating whatever a caller sent.
func shorten(id string) string {
	const longest = 64
	if len(id) > longest {
		return strconv.Quote(id[:longest]) + "..."
	}
	return strconv.Quote(id)
}

func (m *Manager) delete(w http.ResponseWriter, r *http.Request, who auth.Principal) error {
	return m.answerSession(w, r, who, m.Delete)
}

func (m *Manager) get(w http.ResponseWriter, r *http.Request, who auth.Principal) error {
	rec, err := m.seen(r.Context(), who, r.PathValue("id"))
	if err != nil {
		return err
	}
	httpserve.WriteJSON(w, http.StatusOK, rec.API(m.clock))
	return nil
}

func (m *Manager) list(w http.ResponseWriter, r *http.Request, who auth.Principal) error {
	q, err := listQuery(r)
	if err != nil {
		return err
	}
	if q.Owner, err = listOwner(r, who); err != nil {
		return err
	}
	page, next, err := m.cfg.Store.List(r.Context(), q)
	if err != nil {
		return err
	}
	out := api.SessionList{Sessions: make([]api.Session, 0, len(page)), NextPageToken: next}
	for _, rec := range page {
		out.Sessions = append(out.Sessions, rec.API(m.clock))
	}
	httpserve.WriteJSON(w, http.StatusOK, out)
	return nil
}

// listQuery reads ?limit=&pageToken=&state=. No state means all states.
func listQuery(r *http.Request) (session.Query, error) {
	values := r.URL.Query()
	q := session.Query{Cursor: values.Get("pageToken")}
	var err error
	if q.Limit, err = pageLimit(values); err != nil {
		return q, err
	}
	known := append(liveStates(), api.StateEnded)
	for _, name := range values["state"] {
		if !slices.Contains(known, api.State(name)) {
			return q, invalid("state must be pending, running, paused or ended")
		}
		q.States = append(q.States, api.State(name))
	}
	return q, nil
}

func pageLimit(values url.Values) (int, error) {
	text := values.Get("limit")
	if text == "" {
		return defaultPage, nil
	}
	limit, err := strconv.Atoi(text)
	if err != nil || limit < 1 || limit > maxPage {
		return 0, invalid("limit must be a number from 1 to %d", maxPage)
	}
	return limit, nil
}

// listOwner is whose sessions or checkpoints are to be listed: those of the
// caller, or of every owner, which is "", with ?all=true.
func listOwner(r *http.Request, who auth.Principal) (string, error) {
	everybody, err := boolean(r.URL.Query(), "all")
	if err != nil || !everybody {
		return who.Name, err
	}
	return "", who.Need(auth.ScopeAdmin)
}

func boolean(values url.Values, name string) (bool, error) {
	switch values.Get(name) {
	case "", "false":
		return false, nil
	case "true":
		return true, nil
	}
	return false, invalid("%s must be true or false", name)
}
