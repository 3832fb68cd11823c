package manager

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/auth"
	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/session"
	"github.com/volcano-sh/agentcube/internal/trace"
)

// initRequest is the body of PicoD's /init.
type initRequest struct {
	SessionID string            `json:"sessionId"`
	Metadata  map[string]string `json:"metadata,omitempty"`
	// Env is the template's, SessionEnv comes over it and goes into copies.
	Env        map[string]string `json:"env,omitempty"`
	SessionEnv map[string]string `json:"sessionEnv,omitempty"`
	Files      []initFile        `json:"files,omitempty"`
	Strict     bool              `json:"strict,omitempty"`
}

type initFile struct {
	Path    string `json:"path"`
	Content []byte `json:"content"`
	Mode    uint32 `json:"mode"`
}

// initAnswer is what PicoD says to it.
type initAnswer struct {
	// Variables and Files count what it has taken of SessionEnv and Files, Strict says
	// that it is strict; those of before know none of them.
	Variables int  `json:"variables"`
	Files     int  `json:"files"`
	Strict    bool `json:"strict"`
	// Certificate is PicoD's in this session, in PEM; those of before have none.
	Certificate string `json:"certificate"`
	// Reason is a stable word for a refusal, and File the file that is the cause.
	Reason string `json:"reason"`
	File   *int   `json:"file"`
}

// offer is what locks the PicoD of a new sandbox to the key of its session.
type offer struct {
	token string
	body  []byte
	err   error
}

// offer makes an offer in the background, as signing takes longer than much else
// of a creation. It is on the channel when it is made; nil where there is no
// PicoD.
func (m *Manager) offer(p plan) <-chan *offer {
	made := make(chan *offer, 1)
	if p.record.Auth == api.AuthNone {
		made <- nil
		return made
	}
	go func() {
		o := &offer{}
		o.token, o.body, o.err = m.signOffer(p.record, p.record.SandboxID, p.given)
		made <- o
	}()
	return made
}

// signOffer signs an offer to the PicoD that takes itself for agent.
func (m *Manager) signOffer(rec session.Session, agent string, g given) (token string, body []byte, err error) {
	mode, key := auth.InitKeyBound, rec.PublicKey
	if rec.Auth == api.AuthManaged {
		pem, err := auth.PublicKeyPEM(m.cfg.RouterKey)
		if err != nil {
			return "", nil, err
		}
		mode, key = auth.InitManaged, pem
	}
	in := initRequest{SessionID: rec.ID, Metadata: rec.Metadata, Env: rec.Env, SessionEnv: g.env, Strict: rec.Strict}
	for _, f := range g.files {
		in.Files = append(in.Files, initFile{Path: f.Path, Content: f.Content, Mode: permissions(f)})
	}
	body, err = json.Marshal(in)
	if err != nil {
		return "", nil, fmt.Errorf("encode init request: %w", err)
	}
	token, err = auth.SignInit(m.cfg.BootstrapKey, auth.Init{
		SessionID: rec.ID, SandboxID: agent, Mode: mode, PublicKey: key, Body: body,
	}, time.Now())
	return token, body, err
}

// initAgent locks the PicoD of a new sandbox to the key of its session, the
// client's or the Router's, and hands over what the session is given. It returns the
// certificate that PicoD has made for it, if it has.
func (m *Manager) initAgent(ctx context.Context, p plan, o *offer) (certificate string, _ error) {
	if o.err != nil {
		return "", initFailed(o.err)
	}
	ctx, cancel := context.WithTimeout(ctx, m.cfg.InitTimeout)
	defer cancel()
	ctx, span := trace.Start(ctx, "sandbox init", trace.Client)
	status, answer, err := m.postInit(ctx, p.record.SandboxID, o.token, o.body)
	span.End(initFailure(status, err))
	taken := answer.Variables == len(p.given.env) && answer.Files == len(p.given.files) && answer.Strict == p.record.Strict
	switch {
	case err != nil:
		return "", initFailed(err)
	case status == http.StatusOK && taken:
		return answer.Certificate, checkCertificate(answer.Certificate, p.record.ID)
	case status == http.StatusOK && p.record.Checkpoint != "":
		// Its PicoD is as old as what it began from.
		return "", api.Errorf(http.StatusGone, api.CodeCheckpointUnusable,
			"the checkpoint is of a version of AgentCube that knew no env and files").
			WithHint("leave them out, or make the checkpoint anew")
	case answer.File != nil && *answer.File >= 0 && *answer.File < len(p.given.files):
		return "", notWritten(*answer.File, answer.Reason)
	}
	return "", initFailed(fmt.Errorf("init request answered with status %d, %d variables, %d files, strict %v",
		status, answer.Variables, answer.Files, answer.Strict))
}

// initFailure is a word for an init request that did not succeed.
func initFailure(status int, err error) string {
	switch {
	case err != nil:
		return "error"
	case status != http.StatusOK:
		return "refused"
	}
	return ""
}

// checkCertificate refuses what no client could use.
func checkCertificate(text, sessionID string) error {
	if text == "" {
		return nil
	}
	block, rest := pem.Decode([]byte(text))
	if block == nil || block.Type != "CERTIFICATE" || len(rest) > 0 {
		return initFailed(errors.New("the agent's certificate is not one in PEM"))
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err == nil {
		err = certificate.VerifyHostname(api.SecureName(sessionID))
	}
	if err != nil {
		return initFailed(fmt.Errorf("check the agent's certificate: %w", err))
	}
	return nil
}

func initFailed(err error) *api.Error {
	return api.Errorf(http.StatusInternalServerError, api.CodeSandboxInitFailed, "internal server error").WithCause(err)
}

// notWritten is the answer when PicoD could not write a file. Only its stable
// words are believed: what runs as root in the sandbox may answer in its place.
func notWritten(file int, reason string) *api.Error {
	why := "could not be written"
	switch reason {
	case "PATH_ESCAPES_WORKSPACE":
		why = "leads out of the workspace"
	case "DUPLICATE_PATH":
		why = "is the same as that of another file"
	case "PATH_IS_DIRECTORY":
		why = "is that of a folder"
	case "NOT_A_DIRECTORY":
		why = "goes through what is not a folder"
	case "NOT_A_REGULAR_FILE":
		why = "is that of what is not a regular file"
	case "INVALID_PATH":
		why = "is not valid there"
	case "DISK_FULL":
		why = "has no room: the disk of the sandbox is full"
	}
	return api.Errorf(http.StatusUnprocessableEntity, api.CodeFileNotWritten, "files[%d].path %s", file, why)
}

// postInit sends an init request. The answer is bounded, and empty where it is
// not what PicoD answers.
func (m *Manager) postInit(ctx context.Context, sandboxID, token string, body []byte) (status int, answer initAnswer, err error) {
	status, text, err := m.postAgent(ctx, sandboxID, "/init", token, body)
	if err != nil {
		return 0, answer, fmt.Errorf("init request: %w", err)
	}
	if json.Unmarshal(text, &answer) != nil {
		answer = initAnswer{}
	}
	return status, answer, nil
}

// postAgent sends a request to the PicoD of a sandbox. The answer is bounded.
func (m *Manager) postAgent(ctx context.Context, sandboxID, path, token string, body []byte) (status int, answer []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+sandboxID+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+token)
	trace.Inject(ctx, req.Header)
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return m.cfg.Driver.Dial(ctx, sandboxID, sandbox.AgentPort)
		},
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	return resp.StatusCode, answer, err
}

func (m *Manager) bootstrapPEM() string {
	text, err := auth.PublicKeyPEM(&m.cfg.BootstrapKey.PublicKey)
	if err != nil {
		panic("manager: bootstrap key does not encode: " + err.Error()) // an RSA key always does
	}
	return text
}
