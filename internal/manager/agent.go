package manager

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/auth"
	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/session"
)

// initRequest is the body of PicoD's /init.
type initRequest struct {
	SessionID string            `json:"sessionId"`
	Metadata  map[string]string `json:"metadata,omitempty"`
	Env       map[string]string `json:"env,omitempty"`
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
func (m *Manager) offer(rec session.Session) <-chan *offer {
	made := make(chan *offer, 1)
	if rec.Auth == api.AuthNone {
		made <- nil
		return made
	}
	go func() {
		o := &offer{}
		o.token, o.body, o.err = m.signOffer(rec)
		made <- o
	}()
	return made
}

func (m *Manager) signOffer(rec session.Session) (token string, body []byte, err error) {
	mode, key := auth.InitKeyBound, rec.PublicKey
	if rec.Auth == api.AuthManaged {
		pem, err := auth.PublicKeyPEM(m.cfg.RouterKey)
		if err != nil {
			return "", nil, err
		}
		mode, key = auth.InitManaged, pem
	}
	body, err = json.Marshal(initRequest{SessionID: rec.ID, Metadata: rec.Metadata, Env: rec.Env})
	if err != nil {
		return "", nil, fmt.Errorf("encode init request: %w", err)
	}
	token, err = auth.SignInit(m.cfg.BootstrapKey, auth.Init{
		SessionID: rec.ID, SandboxID: rec.SandboxID, Mode: mode, PublicKey: key, Body: body,
	}, time.Now())
	return token, body, err
}

// initAgent locks the PicoD of a new sandbox to the key of its session: the
// client's, or the Router's.
func (m *Manager) initAgent(ctx context.Context, rec session.Session, o *offer) error {
	if o.err != nil {
		return o.err
	}
	ctx, cancel := context.WithTimeout(ctx, m.cfg.InitTimeout)
	defer cancel()
	return m.postInit(ctx, rec.SandboxID, o.token, o.body)
}

func (m *Manager) postInit(ctx context.Context, sandboxID, token string, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+sandboxID+"/init", bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("make init request: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+token)
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return m.cfg.Driver.Dial(ctx, sandboxID, sandbox.AgentPort)
		},
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return fmt.Errorf("send init request: %w", err)
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("init request answered with status %d", resp.StatusCode)
	}
	return nil
}

func (m *Manager) bootstrapPEM() string {
	text, err := auth.PublicKeyPEM(&m.cfg.BootstrapKey.PublicKey)
	if err != nil {
		panic("manager: bootstrap key does not encode: " + err.Error()) // an RSA key always does
	}
	return text
}
