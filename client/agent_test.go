package client

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/volcano-sh/agentcube/api"
)

// TestAgent: the first request makes the session, all others go there.
func TestAgent(t *testing.T) {
	var made atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := r.Header.Get(api.HeaderSessionID)
		if id == "" {
			id = fmt.Sprintf("s-%d", made.Add(1))
		}
		w.Header().Set(api.HeaderSessionID, id)
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %s %s %s", r.Method, r.RequestURI, r.Header.Get("Authorization"), r.Header.Get("X-Key"), body)
	}))
	t.Cleanup(srv.Close)
	c := connect(t, Config{BaseURL: srv.URL + "/base", Token: "secret"})
	agent := c.Agent("", "my-agent", "")
	hc := &http.Client{Transport: agent}
	var callers sync.WaitGroup
	for range 5 {
		callers.Go(func() {
			req, err := http.NewRequestWithContext(t.Context(), "PUT", "http://agent/a%2Fb?c=%20d", strings.NewReader("body"))
			if err != nil {
				t.Error(err)
				return
			}
			req.Header.Set("X-Key", "mine")
			req.Header.Set("Authorization", "Bearer other")
			req.Header.Set(api.HeaderSessionID, "another")
			resp, err := hc.Do(req)
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			text, _ := io.ReadAll(resp.Body)
			want := "PUT /base/v1/namespaces/default/agent-runtimes/my-agent/invocations/a%2Fb?c=%20d Bearer secret mine body"
			if string(text) != want {
				t.Errorf("sent %q, want %q", text, want)
			}
			if req.Header.Get("Authorization") != "Bearer other" {
				t.Error("the caller's request was changed")
			}
		})
	}
	callers.Wait()
	if made.Load() != 1 || agent.SessionID() != "s-1" {
		t.Errorf("%d sessions were made, the agent has %q", made.Load(), agent.SessionID())
	}
	if resp, err := c.Agent("n", "a", "given").RoundTrip(&http.Request{Method: "GET", URL: c.router}); err != nil {
		t.Error(err)
	} else if resp.Body.Close(); resp.Header.Get(api.HeaderSessionID) != "given" {
		t.Errorf("session = %q", resp.Header.Get(api.HeaderSessionID))
	}
}

// TestAgentStreams: an answer is there as far as it has been sent.
func TestAgentStreams(t *testing.T) {
	next := make(chan struct{})
	srv := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		for n := range 3 {
			fmt.Fprintln(w, n)
			_ = http.NewResponseController(w).Flush()
			<-next
		}
	})
	c := connect(t, Config{BaseURL: srv.URL})
	resp, err := (&http.Client{Transport: c.Agent("", "a", "s")}).Get("http://agent/events")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for n := range 3 {
		if !lines.Scan() || lines.Text() != fmt.Sprint(n) {
			t.Fatalf("line %d = %q, %v", n, lines.Text(), lines.Err())
		}
		next <- struct{}{}
	}
}

func TestAgentErrors(t *testing.T) {
	ours := `{"error":"gone","code":"SESSION_ENDED","requestId":"r","fate":"idle"}`
	srv := serve(t, reply(410, ours), reply(410, `{"error":"my own"}`))
	c := connect(t, Config{BaseURL: srv.URL})
	for _, want := range []string{"", `{"error":"my own"}`} {
		resp, err := (&http.Client{Transport: c.Agent("", "a", "s")}).Get("http://agent/")
		if err != nil {
			t.Fatal(err)
		}
		body, err := ReadError(resp)
		resp.Body.Close()
		if string(body) != want || errors.Is(err, ErrSessionEnded) != (want == "") {
			t.Errorf("body %q, error %v, want body %q", body, err, want)
		}
	}
	srv.Close()
	if _, err := c.Agent("", "a", "").RoundTrip(&http.Request{Method: "GET", URL: c.router}); !errors.Is(err, ErrUnreachable) {
		t.Errorf("error %v, want ErrUnreachable", err)
	}
}

// TestTokenSource: it is asked for each request, and stays behind other tokens.
func TestTokenSource(t *testing.T) {
	srv := serve(t, reply(200, `{"checkpoints":[]}`), reply(200, `{"checkpoints":[]}`))
	asked := 0
	source := func() (string, error) {
		if asked++; asked == 3 {
			return "", errors.New("the file is broken")
		}
		return fmt.Sprintf("token-%d", asked), nil
	}
	c := connect(t, Config{BaseURL: srv.URL, TokenSource: source})
	for n := range 2 {
		if _, err := c.Checkpoints(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got, want := srv.request(n).header.Get("Authorization"), fmt.Sprintf("Bearer token-%d", n+1); got != want {
			t.Errorf("sent %q, want %q", got, want)
		}
	}
	if _, err := c.Checkpoints(t.Context()); err == nil || !strings.Contains(err.Error(), "the file is broken") {
		t.Errorf("error %v, want that of the source", err)
	}
	for want, cfg := range map[string]Config{
		"t": {Token: "t", LocalToken: "l", TokenSource: source}, "l": {LocalToken: "l", TokenSource: source},
		"token-4": {BaseURL: "http://192.0.2.1", LocalToken: "l", TokenSource: source},
	} {
		c := connect(t, cfg)
		if got, err := c.bearer(c.manager); err != nil || got != want {
			t.Errorf("token %q, %v, want %q", got, err, want)
		}
	}
}
