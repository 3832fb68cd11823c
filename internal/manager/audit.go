package manager

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	record "github.com/volcano-sh/agentcube/api/audit"
	"github.com/volcano-sh/agentcube/internal/audit"
	"github.com/volcano-sh/agentcube/internal/auth"
	"github.com/volcano-sh/agentcube/internal/httpserve"
	"github.com/volcano-sh/agentcube/internal/session"
)

// sealTimeout bounds the wait for a statement: a sandbox that does not answer is
// removed without.
const sealTimeout = 5 * time.Second

// audit records what was done with a session.
func (m *Manager) audit(ctx context.Context, action record.Action, rec session.Session) {
	e := audit.Of(ctx, action)
	e.Owner, e.Session = rec.Owner, rec.ID
	m.cfg.Audit.Append(e)
}

func (m *Manager) auditCreated(ctx context.Context, p plan, rec session.Session) {
	e := audit.Of(ctx, record.SessionCreated)
	if p.parent != "" {
		e.Action, e.Parent = record.SessionForked, p.parent
	}
	e.Owner, e.Session, e.Checkpoint, e.Auth = rec.Owner, rec.ID, rec.Checkpoint, string(rec.Auth)
	e.Template, e.Certificate, e.KeySHA256 = rec.Namespace+"/"+rec.Name, rec.Certificate, keyDigest(rec.PublicKey)
	m.cfg.Audit.Append(e)
}

// keyDigest is the SHA-256 of a public key in PEM, or "" when there is none.
func keyDigest(text string) string {
	if text == "" {
		return ""
	}
	key, err := auth.ParsePublicKeyPEM(text)
	if err != nil {
		return ""
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// auditEnded records the end of a session. One that ran is asked later, when nobody
// waits, where its own record ends.
func (m *Manager) auditEnded(ctx context.Context, rec session.Session, ran bool) {
	e := audit.Of(ctx, record.SessionEnded)
	e.Owner, e.Session, e.Fate, e.Reason = rec.Owner, rec.ID, string(rec.Fate), rec.Reason
	m.cfg.Audit.Append(e)
	if !ran || rec.Certificate == "" {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.unsealed[rec.SandboxID] = rec
}

// sealEnded asks a sandbox that is about to be removed, once.
func (m *Manager) sealEnded(ctx context.Context, sandboxID string) {
	m.mu.Lock()
	rec, ok := m.unsealed[sandboxID]
	delete(m.unsealed, sandboxID)
	m.mu.Unlock()
	if ok {
		m.attest(ctx, rec)
	}
}

// attest records what the session's PicoD says of the record that it keeps, of the
// requests that nobody else could read.
func (m *Manager) attest(ctx context.Context, rec session.Session) {
	if rec.Certificate == "" {
		return
	}
	statement, err := m.statement(ctx, rec)
	e := audit.Of(ctx, record.SessionSealed)
	e.Owner, e.Session, e.Seal = rec.Owner, rec.ID, &record.Seal{Statement: statement}
	if err != nil {
		// What the sandbox has answered is not repeated: it is not ours to believe.
		e.Seal = &record.Seal{Missing: "its sandbox gave no valid statement"}
		m.log.Warn("session not sealed", "session", rec.ID, "error", err)
	}
	m.cfg.Audit.Append(e)
}

func (m *Manager) statement(ctx context.Context, rec session.Session) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, sealTimeout)
	defer cancel()
	sb, err := m.cfg.Driver.Get(ctx, rec.SandboxID)
	if err != nil {
		return "", err
	}
	token, err := auth.SignSeal(m.cfg.BootstrapKey, rec.ID, cmp.Or(sb.AgentID, sb.ID), time.Now())
	if err != nil {
		return "", err
	}
	status, answer, err := m.postAgent(ctx, rec.SandboxID, "/seal", token, nil)
	if err != nil {
		return "", fmt.Errorf("ask for a statement: %w", err)
	}
	var closing record.Closing
	if status != http.StatusOK || json.Unmarshal(answer, &closing) != nil {
		return "", fmt.Errorf("ask for a statement: answered with status %d", status)
	}
	if _, err := record.ParseStatement(closing.Statement, rec.Certificate, rec.ID); err != nil {
		return "", err
	}
	return closing.Statement, nil
}

// auditRefused records a request that failed, of a caller who is known.
func (m *Manager) auditRefused(r *http.Request, err error) {
	if errors.Is(err, audit.ErrUnavailable) {
		return // there would be one for each attempt, and no room
	}
	e := audit.Of(r.Context(), record.Refused)
	known := httpserve.AsError(err)
	e.Method, e.Path, e.Status, e.Code = r.Method, r.URL.Path, known.Status, string(known.Code)
	m.cfg.Audit.Append(e)
}

// auditStranger records a request of somebody who could not say who they are.
func (m *Manager) auditStranger(r *http.Request, err error) {
	n := m.strangers.Take(time.Now())
	if n == 0 {
		return
	}
	known := httpserve.AsError(err)
	m.cfg.Audit.Append(record.Event{
		Action: record.Refused, RequestID: httpserve.RequestID(r.Context()), From: r.RemoteAddr,
		Method: r.Method, Path: r.URL.Path, Status: known.Status, Code: string(known.Code), Count: n,
	})
}
