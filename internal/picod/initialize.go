package picod

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"strings"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/picod/token"
)

// maxInitBody bounds the body of /init in bytes.
const maxInitBody = 8 << 20

// initRequest is what the control plane says of a new session.
type initRequest struct {
	SessionID string         `json:"sessionId"`
	Metadata  map[string]any `json:"metadata"`
	// Env is the environment that the session has of its template. SessionEnv
	// comes over it, and over what the sandbox knew of an earlier session.
	Env        map[string]string `json:"env"`
	SessionEnv map[string]string `json:"sessionEnv"`
	// Files are written before the session begins.
	Files []initFile `json:"files"`
	// Strict sessions take no tokens but those that are bound to their request.
	Strict bool `json:"strict"`
}

type initFile struct {
	Path    string      `json:"path"`
	Content []byte      `json:"content"`
	Mode    fs.FileMode `json:"mode"`
}

type initResponse struct {
	Message string `json:"message"`
	// Variables and Files count what was taken of the request, by which the
	// control plane tells this from a PicoD that knew neither.
	Variables int `json:"variables,omitempty"`
	Files     int `json:"files,omitempty"`
	// Strict says that it takes bound tokens alone from now on.
	Strict bool `json:"strict,omitempty"`
	// Certificate is the one, in PEM, that PicoD has for this session alone.
	Certificate string `json:"certificate,omitempty"`
}

// initialize locks PicoD to a session key. The files of the session come first:
// when one cannot be written, there is no session.
func (q *request) initialize() *problem {
	offer, err := q.gate.Offer(q.authorization())
	if err != nil {
		return refused(err)
	}
	in, p := q.initRequest(offer)
	if p != nil {
		return p
	}
	if p := q.writeFiles(in.Files); p != nil {
		return p
	}
	if err := q.gate.Accept(offer, token.Given{Env: in.Env, Own: in.SessionEnv, Metadata: in.Metadata, Strict: in.Strict}); err != nil {
		return refused(err)
	}
	q.log.Info("session initialized", "requestId", q.id, "trace", q.parent.ID())
	q.reply(http.StatusOK, false, initResponse{
		Message: "Server initialized successfully", Variables: len(in.SessionEnv), Files: len(in.Files), Strict: in.Strict,
		Certificate: q.gate.CertificatePEM(),
	})
	return nil
}

// initRequest reads the body of an init request.
func (q *request) initRequest(offer *token.Offer) (in initRequest, _ *problem) {
	body, p := q.readBody(maxInitBody)
	if p != nil {
		return in, p
	}
	if err := offer.Claims.CheckBody(hashOf(body)); err != nil {
		return in, refused(err)
	}
	// Only a body that was signed together with the token is believed; older
	// control planes send one that is not, and it means nothing.
	if !offer.Claims.HasBody || len(body) == 0 {
		return in, nil
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return in, fault(http.StatusBadRequest, "INVALID_REQUEST", "Invalid request body: "+err.Error())
	}
	if in.SessionID != "" && in.SessionID != offer.SessionID() {
		return in, fault(http.StatusBadRequest, "INVALID_REQUEST", "Invalid request body: sessionId differs from the token's")
	}
	if p := checkEnv(in.Env); p != nil {
		return in, p
	}
	return in, checkEnv(in.SessionEnv)
}

// writeFiles writes the files of a new session; the problem says which could
// not be written.
func (q *request) writeFiles(files []initFile) *problem {
	seen := make(map[string]bool, len(files))
	for i, f := range files {
		p := q.writeFile(f, seen)
		if p != nil {
			p.text, p.file = fmt.Sprintf("files[%d]: %s", i, p.text), &i
			return p
		}
	}
	return nil
}

func (q *request) writeFile(f initFile, seen map[string]bool) *problem {
	rel, err := q.ws.Rel(f.Path)
	switch {
	case err != nil:
		return badPath(err, "File")
	case seen[rel]:
		return fault(http.StatusBadRequest, "DUPLICATE_PATH", "Invalid path: another file has it too")
	case f.Mode&^fs.ModePerm != 0:
		return fault(http.StatusBadRequest, "INVALID_MODE", "Invalid mode: it is not from 0 to 0777")
	}
	seen[rel] = true
	file, err := q.ws.Create(rel)
	if err != nil {
		return badTarget(err)
	}
	defer file.Discard()
	if _, err := file.Write(f.Content); err != nil {
		return badTarget(err)
	}
	if _, err := file.Commit(rel, &f.Mode); err != nil {
		return badTarget(err)
	}
	return nil
}

// authorization is the header of that name. Several are one list, and so no token:
// whoever is in between may have looked at another one of them.
func (q *request) authorization() string {
	return strings.Join(q.r.Header.Values("Authorization"), ", ")
}

// authorize verifies the token of a request to the API.
func (q *request) authorize() (token.Claims, *problem) {
	if q.r.TLS != nil {
		if err := q.gate.CheckPeer(q.r.TLS); err != nil {
			return token.Claims{}, refused(err)
		}
	}
	claims, err := q.gate.Authorize(q.authorization(), token.Request{
		Method: q.r.Method, Target: api.RequestTarget(q.r.URL.Path, q.r.URL.RawQuery),
	})
	if err != nil {
		return claims, refused(err)
	}
	if claims.Bound {
		q.note.signature(strings.TrimPrefix(q.authorization(), "Bearer "))
	}
	return claims, nil
}

// checkEnv refuses variables that no process can have.
func checkEnv(env map[string]string) *problem {
	for name, value := range env {
		if name == "" || strings.ContainsAny(name, "=\x00") || strings.IndexByte(value, 0) >= 0 {
			return fault(http.StatusBadRequest, "INVALID_ENV", "Invalid environment variable name or value")
		}
	}
	return nil
}
