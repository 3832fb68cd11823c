package picod

import (
	"encoding/json"
	"net/http"
	"strings"

	"github.com/volcano-sh/agentcube/internal/picod/token"
)

// maxInitBody bounds the body of /init in bytes.
const maxInitBody = 1 << 20

// initialize locks PicoD to a session key.
func (q *request) initialize() *problem {
	offer, err := q.gate.Offer(q.r.Header.Get("Authorization"))
	if err != nil {
		return refused(err)
	}
	body, p := q.readBody(maxInitBody)
	if p != nil {
		return p
	}
	if err := offer.Claims.CheckBody(hashOf(body)); err != nil {
		return refused(err)
	}
	// Only a body that was signed together with the token is believed; older
	// control planes send one that is not, and it means nothing.
	var extra struct {
		SessionID string            `json:"sessionId"`
		Metadata  map[string]any    `json:"metadata"`
		Env       map[string]string `json:"env"`
	}
	if offer.Claims.HasBody && len(body) > 0 {
		if err := json.Unmarshal(body, &extra); err != nil {
			return fault(http.StatusBadRequest, "INVALID_REQUEST", "Invalid request body: "+err.Error())
		}
		if extra.SessionID != "" && extra.SessionID != offer.SessionID() {
			return fault(http.StatusBadRequest, "INVALID_REQUEST", "Invalid request body: sessionId differs from the token's")
		}
		if p := checkEnv(extra.Env); p != nil {
			return p
		}
	}
	if err := q.gate.Accept(offer, extra.Env, extra.Metadata); err != nil {
		return refused(err)
	}
	q.log.Info("session initialized", "requestId", q.id)
	q.reply(http.StatusOK, false, map[string]string{"message": "Server initialized successfully"})
	return nil
}

// authorize verifies the token of a request to the API.
func (q *request) authorize() (token.Claims, *problem) {
	claims, err := q.gate.Authorize(q.r.Header.Get("Authorization"))
	if err != nil {
		return claims, refused(err)
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
