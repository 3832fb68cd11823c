package router_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/volcano-sh/agentcube/api"
	record "github.com/volcano-sh/agentcube/api/audit"
	"github.com/volcano-sh/agentcube/internal/audit"
	"github.com/volcano-sh/agentcube/internal/router"
)

// recorded keeps events in memory.
type recorded struct {
	mu     sync.Mutex
	events []record.Event
	failed error
}

func (r *recorded) Append(e record.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
}

func (r *recorded) Ready() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed
}

// take returns the only event there is, and forgets it.
func (r *recorded) take(t *testing.T) record.Event {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.events) != 1 {
		t.Fatalf("%d events: %+v", len(r.events), r.events)
	}
	e := r.events[0]
	r.events = nil
	return e
}

func sum(text string) string {
	s := sha256.Sum256([]byte(text))
	return hex.EncodeToString(s[:])
}

func newRecordedWorld(t *testing.T, app http.HandlerFunc, content bool) (*world, *recorded) {
	log := &recorded{}
	return newWorld(t, app, func(_ *world, cfg *router.Config) { cfg.Audit, cfg.AuditContent = log, content }), log
}

func TestRequestsAreRecorded(t *testing.T) {
	w, log := newRecordedWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		rw.WriteHeader(http.StatusAccepted)
		fmt.Fprintf(rw, "got %d", len(body))
	}, false)
	managed, bound := w.add(nil), w.add(keyBound(t))

	w.do("POST", base+"/api/execute?a=b", "some code", api.HeaderSessionID, managed.ID, "Authorization", "alice")
	e := log.take(t)
	switch {
	case e.Action != record.Request, e.Actor != "alice", e.Owner != "alice", e.Session != managed.ID, e.RequestID != "test-1",
		e.Method != "POST", e.Path != "/api/execute?a=b", e.Status != 202, e.Aborted, e.Signature != "", !strings.HasPrefix(e.From, "127.0.0.1:"):
		t.Errorf("recorded %+v", e)
	case !reflect.DeepEqual(*e.Input, record.Body{Bytes: 9, SHA256: sum("some code")}):
		t.Errorf("recorded the input %+v", *e.Input)
	case !reflect.DeepEqual(*e.Output, record.Body{Bytes: 5, SHA256: sum("got 9")}):
		t.Errorf("recorded the output %+v", *e.Output)
	}

	// Of tokens only those are recorded that are of no more use.
	w.do("GET", base+"/api/files", "", api.HeaderSessionID, bound.ID, "Authorization", sdkToken(t, keys().client))
	if e := log.take(t); e.Actor != record.ActorKey || e.Owner != "alice" || e.Signature != "" || e.Input != nil {
		t.Errorf("recorded %+v", e)
	}
	once, err := jwt.NewWithClaims(jwt.SigningMethodRS256, jwt.MapClaims{
		"htm": "GET", "htu": "/api/files", "jti": "1", "sid": bound.ID, "iat": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix(),
	}).SignedString(keys().client)
	if err != nil {
		t.Fatal(err)
	}
	w.do("GET", base+"/api/files", "", api.HeaderSessionID, bound.ID, "Authorization", once)
	if e := log.take(t); e.Signature != once {
		t.Errorf("recorded the signature %q", e.Signature)
	}
}

// Who has the whole answer has been recorded, whatever becomes of the Router then.
func TestRecordedBeforeTheEnd(t *testing.T) {
	more := make(chan struct{})
	w, log := newRecordedWorld(t, func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Length", "8")
		_, _ = io.WriteString(rw, "half")
		_ = http.NewResponseController(rw).Flush()
		<-more
		_, _ = io.WriteString(rw, "done")
	}, false)
	rec := w.add(nil)
	resp, err := w.send(t.Context(), "GET", base+"/", nil, api.HeaderSessionID, rec.ID, "Authorization", "alice")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text := make([]byte, 8)
	if _, err := io.ReadFull(resp.Body, text[:4]); err != nil {
		t.Fatal(err)
	}
	log.mu.Lock()
	early := len(log.events)
	log.mu.Unlock()
	close(more)
	if _, err := io.ReadFull(resp.Body, text[4:]); err != nil {
		t.Fatal(err)
	}
	if e := log.take(t); early != 0 || e.Output.SHA256 != sum("halfdone") {
		t.Errorf("%d events before the end; recorded %+v", early, e)
	}
}

func TestBrokenOffIsRecorded(t *testing.T) {
	w, log := newRecordedWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(rw, "the beginning")
		_ = http.NewResponseController(rw).Flush()
		<-r.Context().Done()
	}, false)
	rec := w.add(nil)
	ctx, cancel := context.WithCancel(t.Context())
	resp, err := w.send(ctx, "GET", base+"/", nil, api.HeaderSessionID, rec.ID, "Authorization", "alice")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.ReadFull(resp.Body, make([]byte, 13)); err != nil {
		t.Fatal(err)
	}
	cancel()
	w.eventually("the request is recorded", func() bool {
		log.mu.Lock()
		defer log.mu.Unlock()
		return len(log.events) > 0
	})
	if e := log.take(t); !e.Aborted || e.Output.Bytes != 13 || e.Output.SHA256 != "" {
		t.Errorf("recorded %+v, %+v", e, e.Output)
	}
}

func TestContentIsRecordedOnDemand(t *testing.T) {
	w, log := newRecordedWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_, _ = rw.Write(body)
	}, true)
	rec := w.add(nil)
	long := strings.Repeat("x", 100<<10)
	w.do("POST", base+"/", long, api.HeaderSessionID, rec.ID, "Authorization", "alice")
	e := log.take(t)
	if string(e.Input.Content) != long[:64<<10] || string(e.Output.Content) != long[:64<<10] || e.Output.SHA256 != sum(long) {
		t.Errorf("recorded %d and %d bytes of content", len(e.Input.Content), len(e.Output.Content))
	}
}

func TestRefusedAreRecorded(t *testing.T) {
	w, log := newRecordedWorld(t, func(http.ResponseWriter, *http.Request) {}, false)
	rec := w.add(nil)
	// As many as they like: one line a second, with their number.
	for range 50 {
		w.do("GET", base+"/", "", api.HeaderSessionID, rec.ID, "Authorization", "mallory")
	}
	log.mu.Lock()
	first, n := log.events[0], len(log.events)
	log.events = nil
	log.mu.Unlock()
	if n > 10 || first.Action != record.Refused || first.Count != 1 || first.Status != 401 || first.Actor != "" {
		t.Errorf("%d events, the first %+v", n, first)
	}
}

func TestNothingIsDoneUnrecorded(t *testing.T) {
	asked := false
	w, log := newRecordedWorld(t, func(http.ResponseWriter, *http.Request) { asked = true }, false)
	rec := w.add(nil)
	log.failed = fmt.Errorf("%w: no space", audit.ErrUnavailable)
	got := w.do("GET", base+"/", "", api.HeaderSessionID, rec.ID, "Authorization", "alice")
	if got.status != http.StatusServiceUnavailable || !strings.Contains(got.body, "AUDIT_UNAVAILABLE") || asked {
		t.Errorf("answered %d %s, asked %v", got.status, got.body, asked)
	}
}
