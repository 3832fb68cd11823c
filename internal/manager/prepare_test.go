package manager_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/sandbox"
)

// preparing is a driver that takes steps to prepare a template.
type preparing struct {
	sandbox.Full
	steps int
	err   error
	spec  sandbox.Spec
	began chan struct{} // closed, when not nil, once waiting for the end of the context
}

func (p *preparing) Prepare(ctx context.Context, spec sandbox.Spec, progress func(string)) error {
	p.spec = spec
	for i := range p.steps {
		progress(fmt.Sprintf("step %d", i+1))
	}
	if p.began != nil {
		close(p.began)
		<-ctx.Done()
		return ctx.Err()
	}
	return p.err
}

const preparePath = "/v1/templates/default/simple-codeinterpreter/prepare"

func preparingNode(t *testing.T, p *preparing) *node {
	w := newWorld(t)
	w.wrap = func(d sandbox.Full) sandbox.Full {
		p.Full = d
		return p
	}
	return w.start()
}

func TestPrepareStreamsSteps(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		steps int
		err   error
		code  api.Code // of the last line
	}{
		{"made", 2, nil, ""},
		{"is there already", 0, nil, ""},
		{"fails late", 1, fmt.Errorf("write: %w", sandbox.ErrDiskFull), api.CodeDiskFull},
		{"fails for a reason of ours", 1, errors.New("secret"), api.CodeInternal},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := &preparing{steps: tt.steps, err: tt.err}
			a := preparingNode(t, p).do(t.Context(), "alice", "POST", preparePath, "")
			lines := strings.Split(strings.TrimSuffix(a.body, "\n"), "\n")
			if a.status != http.StatusOK || a.header.Get("Content-Type") != "application/x-ndjson" || len(lines) != tt.steps+1 {
				t.Fatalf("answer %d %v %q", a.status, a.header, a.body)
			}
			for i, line := range lines {
				var step api.PrepareStep
				if err := json.Unmarshal([]byte(line), &step); err != nil {
					t.Fatal(err)
				}
				last := i == len(lines)-1
				if step.Done != last || !last && step.Step != fmt.Sprintf("step %d", i+1) {
					t.Errorf("line %d: %s", i, line)
				}
				if last && (tt.code == "") != (step.Error == nil) || step.Error != nil &&
					(step.Error.Code != tt.code || step.Error.RequestID != "test-1" || step.Error.Message == "") {
					t.Errorf("last line %s, want code %q", line, tt.code)
				}
			}
			if strings.Contains(a.body, "secret") {
				t.Errorf("the answer tells the cause: %s", a.body)
			}
			if p.spec.Image != "python" || p.spec.BootstrapKey == "" {
				t.Errorf("prepared %+v", p.spec)
			}
		})
	}
}

func TestPrepareRefused(t *testing.T) {
	t.Parallel()
	n := preparingNode(t, &preparing{err: sandbox.ErrUnsupported})
	for _, tt := range []struct {
		who, path string
		status    int
		code      api.Code
	}{
		{"alice", preparePath, 501, api.CodeUnsupported},
		{"alice", "/v1/templates/default/nope/prepare", 404, api.CodeTemplateNotFound},
		{"", preparePath, 401, api.CodeUnauthorized},
	} {
		a := n.do(t.Context(), tt.who, "POST", tt.path, "")
		var body api.Error
		a.decode(t, &body)
		if a.status != tt.status || body.Code != tt.code {
			t.Errorf("%s %s = %d %s, want %d %s", tt.who, tt.path, a.status, a.body, tt.status, tt.code)
		}
	}
}

func TestPrepareEndsWithItsClient(t *testing.T) {
	t.Parallel()
	p := &preparing{began: make(chan struct{})}
	n := preparingNode(t, p)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-p.began
		cancel()
	}()
	if a := n.do(ctx, "alice", "POST", preparePath, ""); a.status != 499 {
		t.Errorf("answer %d %s", a.status, a.body)
	}
}

func TestPrepareEndsWithTheManager(t *testing.T) {
	t.Parallel()
	p := &preparing{began: make(chan struct{})}
	n := preparingNode(t, p)
	done := make(chan answer, 1)
	go func() { done <- n.do(context.WithoutCancel(t.Context()), "alice", "POST", preparePath, "") }()
	<-p.began
	n.stop()
	if err := n.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if a := <-done; a.status == http.StatusOK {
		t.Errorf("answer %d %s", a.status, a.body)
	}
}
