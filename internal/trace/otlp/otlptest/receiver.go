// Package otlptest is an OpenTelemetry collector for tests: it takes traces by OTLP
// over HTTP, as a real one does, and keeps them.
package otlptest

import (
	"encoding/hex"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	wire "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// guard is how long Await waits for what must come at all.
const guard = 30 * time.Second

// Span is one that has arrived, its ids in hexadecimal.
type Span struct {
	Name              string
	Trace, ID, Parent string
	Kind              string
	Notes             map[string]string
	Failure           string
}

// Receiver is a collector that runs.
type Receiver struct {
	// URL is its endpoint.
	URL string

	t  testing.TB
	mu sync.Mutex
	// spans, and everything that has arrived as it was sent.
	spans []Span
	raw   []byte
	came  chan struct{}
}

// New starts a collector on loopback, which ends with the test.
func New(t testing.TB) *Receiver { return NewAt(t, "127.0.0.1:0") }

// NewAt starts a collector on an address that others may reach.
func NewAt(t testing.TB, address string) *Receiver {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	r := &Receiver{t: t, came: make(chan struct{}, 1)}
	srv := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(r.take), ReadHeaderTimeout: guard}}
	srv.Start()
	t.Cleanup(srv.Close)
	r.URL = srv.URL
	return r
}

func (r *Receiver) take(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	var in collector.ExportTraceServiceRequest
	if err == nil {
		err = proto.Unmarshal(body, &in)
	}
	if err != nil || req.Method != http.MethodPost || req.URL.Path != "/v1/traces" || req.Header.Get("Content-Type") != "application/x-protobuf" {
		r.t.Errorf("collector: %s %s: %v", req.Method, req.URL.Path, err)
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	r.mu.Lock()
	for _, resource := range in.GetResourceSpans() {
		for _, scope := range resource.GetScopeSpans() {
			for _, s := range scope.GetSpans() {
				r.spans = append(r.spans, spanOf(s))
			}
		}
	}
	r.raw = append(r.raw, body...)
	r.mu.Unlock()
	select {
	case r.came <- struct{}{}:
	default:
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
	w.WriteHeader(http.StatusOK)
}

func spanOf(s *wire.Span) Span {
	out := Span{
		Name: s.GetName(), Trace: hex.EncodeToString(s.GetTraceId()), ID: hex.EncodeToString(s.GetSpanId()),
		Parent: hex.EncodeToString(s.GetParentSpanId()), Kind: s.GetKind().String(), Notes: map[string]string{},
	}
	for _, note := range s.GetAttributes() {
		out.Notes[note.GetKey()] = note.GetValue().GetStringValue()
	}
	if s.GetStatus().GetCode() == wire.Status_STATUS_CODE_ERROR {
		out.Failure = s.GetStatus().GetMessage()
	}
	return out
}

// Spans are those that have arrived so far.
func (r *Receiver) Spans() []Span {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.spans)
}

// Raw is all that has arrived, as it was sent.
func (r *Receiver) Raw() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.raw)
}

// Await waits until what has arrived is enough, and returns it.
func (r *Receiver) Await(enough func([]Span) bool) []Span {
	r.t.Helper()
	deadline := time.NewTimer(guard)
	defer deadline.Stop()
	for {
		if all := r.Spans(); enough(all) {
			return all
		}
		select {
		case <-r.came:
		case <-deadline.C:
			r.t.Fatalf("collector: what was to come has not; there are %+v", r.Spans())
		}
	}
}
