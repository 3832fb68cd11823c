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
)

// initRequest is the body of PicoD's /init.
type initRequest struct {
	SessionID string            `json:"sessionId"`
	Metadata  map[string]string `json:"metadata,omitempty"`
	Env       map[string]string `json:"env,omitempty"`
}

// initAgent locks the PicoD of a new sandbox to the key of its session: the
// client's, or the Router's.
func (m *Manager) initAgent(ctx context.Context, p plan) error {
	ctx, cancel := context.WithTimeout(ctx, m.cfg.InitTimeout)
	defer cancel()
	mode, key := auth.InitKeyBound, p.record.PublicKey
	if p.record.Auth == api.AuthManaged {
		pem, err := auth.PublicKeyPEM(m.cfg.RouterKey)
		if err != nil {
			return err
		}
		mode, key = auth.InitManaged, pem
	}
	body, err := json.Marshal(initRequest{SessionID: p.record.ID, Metadata: p.record.Metadata, Env: p.record.Env})
	if err != nil {
		return fmt.Errorf("encode init request: %w", err)
	}
	token, err := auth.SignInit(m.cfg.BootstrapKey, auth.Init{
		SessionID: p.record.ID, SandboxID: p.record.SandboxID, Mode: mode, PublicKey: key, Body: body,
	}, time.Now())
	if err != nil {
		return err
	}
	return m.postInit(ctx, p.record.SandboxID, token, body)
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
