package fake

import (
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/volcano-sh/agentcube/internal/auth"
	"github.com/volcano-sh/agentcube/internal/sandbox"
)

// maxAgentBody bounds what an Agent reads of a request.
const maxAgentBody = 8 << 20

// Agent stands in for PicoD: GET /health, POST /init, which locks it to a
// session key once, and what only requests signed with that key reach: files, by
// POST /api/files with a JSON body and GET /api/files/{path}, and variables, by
// POST /api/execute of printenv NAME. It checks signatures, but not, as PicoD does,
// what they are for.
type Agent struct {
	spec   sandbox.Spec
	routes *http.ServeMux

	mu    sync.Mutex
	key   *rsa.PublicKey // nil until locked
	files map[string][]byte
	env   map[string]string // of the session's own
	base  map[string]string // of its template
}

var _ Copier = (*Agent)(nil)

// NewAgent returns the agent of a new sandbox.
func NewAgent(spec sandbox.Spec) *Agent {
	a := &Agent{spec: spec, routes: http.NewServeMux(), files: map[string][]byte{}, env: map[string]string{}}
	a.routes.HandleFunc("GET /health", health)
	a.routes.HandleFunc("POST /init", a.lock)
	a.routes.HandleFunc("POST /api/files", a.signed(a.write))
	a.routes.HandleFunc("GET /api/files/{path...}", a.signed(a.read))
	a.routes.HandleFunc("POST /api/execute", a.signed(a.execute))
	return a
}

// ServeHTTP implements http.Handler.
func (a *Agent) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.routes.ServeHTTP(w, r) }

// Copy implements Copier: the files and variables, without the key.
func (a *Agent) Copy(spec sandbox.Spec) http.Handler {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := NewAgent(spec)
	c.files, c.env = maps.Clone(a.files), maps.Clone(a.env)
	return c
}

func health(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, `{"status":"ok","service":"PicoD","version":"0.0.1","uptime":"1s"}`)
}

func (a *Agent) lock(w http.ResponseWriter, r *http.Request) {
	key, err := a.offered(r)
	if err != nil {
		http.Error(w, "Invalid token", http.StatusUnauthorized)
		return
	}
	var in struct {
		Env, SessionEnv map[string]string
		Strict          bool
		Files           []struct {
			Path    string
			Content []byte
		}
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxAgentBody)).Decode(&in); err != nil && !errors.Is(err, io.EOF) {
		http.Error(w, "Invalid request body", http.StatusBadRequest)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.key != nil {
		http.Error(w, "Already initialized", http.StatusConflict)
		return
	}
	a.key, a.base = key, in.Env
	maps.Copy(a.env, in.SessionEnv)
	for _, f := range in.Files {
		a.files[f.Path] = f.Content
	}
	_, _ = fmt.Fprintf(w, `{"message":"ok","variables":%d,"files":%d,"strict":%v}`, len(in.SessionEnv), len(in.Files), in.Strict)
}

// offered is the session key of an init request that the bootstrap key signed.
func (a *Agent) offered(r *http.Request) (*rsa.PublicKey, error) {
	bootstrap, err := auth.ParsePublicKeyPEM(a.spec.BootstrapKey)
	if err != nil {
		return nil, err
	}
	claims := jwt.MapClaims{}
	token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	if _, err := jwt.ParseWithClaims(token, claims, func(*jwt.Token) (any, error) { return bootstrap, nil }); err != nil {
		return nil, err
	}
	if claims["sandboxId"] != a.spec.ID {
		return nil, errors.New("token is for another sandbox")
	}
	encoded, _ := claims["session_public_key"].(string)
	_, key, err := auth.ParseSessionPublicKey(encoded)
	return key, err
}

func (a *Agent) signed(serve http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		a.mu.Lock()
		key := a.key
		a.mu.Unlock()
		if key == nil || auth.VerifyRequest(key, r.Header.Get("Authorization"), time.Now()) != nil {
			http.Error(w, "Invalid token", http.StatusUnauthorized)
			return
		}
		serve(w, r)
	}
}

func (a *Agent) write(w http.ResponseWriter, r *http.Request) {
	var in struct{ Path, Content string }
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxAgentBody)).Decode(&in); err != nil {
		http.Error(w, "Invalid request body", http.StatusBadRequest)
		return
	}
	content, err := base64.StdEncoding.DecodeString(in.Content)
	if err != nil {
		http.Error(w, "Failed to decode content", http.StatusBadRequest)
		return
	}
	a.mu.Lock()
	a.files[in.Path] = content
	a.mu.Unlock()
	_, _ = io.WriteString(w, "{}")
}

func (a *Agent) read(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	content, ok := a.files[r.PathValue("path")]
	a.mu.Unlock()
	if !ok {
		http.NotFound(w, r)
		return
	}
	_, _ = w.Write(content)
}

// execute runs printenv with one name, and nothing else.
func (a *Agent) execute(w http.ResponseWriter, r *http.Request) {
	var in struct{ Command []string }
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxAgentBody)).Decode(&in)
	if err != nil || len(in.Command) != 2 || in.Command[0] != "printenv" {
		http.Error(w, "Invalid request body", http.StatusBadRequest)
		return
	}
	a.mu.Lock()
	value, ok := a.env[in.Command[1]]
	if !ok {
		value, ok = a.base[in.Command[1]]
	}
	a.mu.Unlock()
	out := struct {
		Stdout   string `json:"stdout"`
		Stderr   string `json:"stderr"`
		ExitCode int    `json:"exit_code"`
	}{ExitCode: 1}
	if ok {
		out.Stdout, out.ExitCode = value+"\n", 0
	}
	_ = json.NewEncoder(w).Encode(out)
}
