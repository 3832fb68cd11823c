package picod

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/volcano-sh/agentcube/internal/httpguard"
)

const (
	// smallBody is the size in bytes up to which bodies are not counted.
	smallBody = 1 << 20
	// maxLargeBodies bounds how many larger ones are in memory at a time, and
	// bodyWait how long another one waits.
	maxLargeBodies = 4
	bodyWait       = 30 * time.Second
)

// freeBody gives the place of a large body to the next request.
func (q *request) freeBody() {
	if q.large {
		q.large = false
		<-q.bodies
	}
}

// readJSON authorizes the request, reads its body, checks that it is the one
// that was signed, and decodes it.
func (q *request) readJSON(into any) *problem {
	claims, p := q.authorize()
	if p != nil {
		return p
	}
	body, p := q.readBody(MaxBody)
	if p != nil {
		return p
	}
	sum := hashOf(body)
	q.note.input(int64(len(body)), sum)
	if err := claims.CheckBody(sum); err != nil {
		return refused(err)
	}
	// Like the original: the first value counts, what follows it does not.
	if err := json.NewDecoder(bytes.NewReader(body)).Decode(into); err != nil {
		return fault(http.StatusBadRequest, "INVALID_REQUEST", "Invalid request body: "+err.Error())
	}
	return nil
}

// readBody reads at most limit bytes; more is a problem.
func (q *request) readBody(limit int64) ([]byte, *problem) {
	if n := q.r.ContentLength; (n < 0 || n > smallBody) && !q.large {
		select {
		case q.bodies <- struct{}{}:
			q.large = true
		case <-time.After(bodyWait):
			return nil, fault(http.StatusTooManyRequests, "TOO_MANY_UPLOADS", "too many large requests at a time, try again later")
		}
	}
	body, err := io.ReadAll(io.LimitReader(q.r.Body, limit+1))
	if int64(len(body)) > limit {
		return nil, q.tooLarge()
	}
	if errors.Is(err, httpguard.ErrStalled) {
		return nil, stalled()
	}
	if err != nil {
		return nil, fault(http.StatusBadRequest, "INVALID_REQUEST", "Invalid request body: it could not be read")
	}
	return body, nil
}

// stalled is the answer to a client that sends too slowly.
func stalled() *problem {
	return fault(http.StatusRequestTimeout, "BODY_TOO_SLOW", "the request body did not arrive in time")
}

func hashOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
