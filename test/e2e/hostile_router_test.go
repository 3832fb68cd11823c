package e2e

import (
	"bytes"
	"crypto/rsa"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/client"
)

// thief is a Router, or somebody on the way to it, who keeps every request.
type thief struct {
	manager, to *url.URL // the planes behind it
	server      *httptest.Server

	mu    sync.Mutex
	taken []stolen
}

// stolen is a request as it was sent.
type stolen struct {
	method, uri string
	header      http.Header
	body        []byte
}

func newThief(t *testing.T, manager, router string) *thief {
	t.Helper()
	th := &thief{}
	var err1, err2 error
	th.manager, err1 = url.Parse(manager)
	th.to, err2 = url.Parse(router)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		if strings.HasPrefix(r.In.URL.Path, "/v1/namespaces/") {
			r.SetURL(th.to)
		} else {
			r.SetURL(th.manager)
		}
	}}
	th.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		th.mu.Lock()
		th.taken = append(th.taken, stolen{r.Method, r.RequestURI, r.Header.Clone(), body})
		th.mu.Unlock()
		r.Body = io.NopCloser(bytes.NewReader(body))
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(th.server.Close)
	return th
}

// last is the newest request whose URI has the text in it.
func (th *thief) last(t *testing.T, text string) stolen {
	t.Helper()
	th.mu.Lock()
	defer th.mu.Unlock()
	for i := len(th.taken) - 1; i >= 0; i-- {
		if strings.Contains(th.taken[i].uri, text) {
			s := th.taken[i]
			s.header = s.header.Clone()
			return s
		}
	}
	t.Fatalf("nothing was taken of %s", text)
	return stolen{}
}

// send sends a request that was taken, or what was made of it.
func (th *thief) send(t *testing.T, s stolen) (status int, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), s.method, th.to.String()+s.uri, bytes.NewReader(s.body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = s.header
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// TestHostileRouter, of sessions in plain text: whoever carries the requests of a session can do nothing with
// them but carry them. Each attack uses a request that the creator really made, so
// that its token was good once; the mark shows whether anything was executed.
func TestHostileRouter(t *testing.T) {
	t.Parallel()
	at := at(t)
	for _, name := range []string{client.DefaultTemplate, "strict"} {
		t.Run(name, func(t *testing.T) {
			th := newThief(t, at.Manager, at.Router)
			c, err := client.New(client.Config{BaseURL: th.server.URL, Token: at.Token, PlainText: true})
			if err != nil {
				t.Fatal(err)
			}
			key, err := client.NewKey()
			if err != nil {
				t.Fatal(err)
			}
			s, other := create(t, c, client.CreateOptions{Template: name, Key: key}), create(t, c, client.CreateOptions{Template: name})
			if s.Info.Strict != (name == "strict") {
				t.Errorf("session is strict: %v", s.Info.Strict)
			}
			attackRequests(t, th, s, other)
			attackOnTheWay(t, th, s, key)
			for _, session := range []*client.Session{s, other} {
				got := output(t, session, "cat mark 2>/dev/null; ls | grep -c evil; cat data.csv 2>/dev/null | tail -1")
				if strings.Contains(got, "stolen") || strings.Contains(got, "6,6") || session == s && !strings.HasPrefix(got, "x\n0\n1,2") {
					t.Errorf("session was used: %q", got)
				}
			}
			discard(t, s)
			discard(t, other)
		})
	}
}

func attackRequests(t *testing.T, th *thief, s, other *client.Session) {
	t.Helper()
	output(t, s, "echo x >> mark")
	command := th.last(t, "api/execute")
	if err := s.WriteFile(t.Context(), "data.csv", []byte("a,b\n1,2\n")); err != nil {
		t.Fatal(err)
	}
	upload := th.last(t, "api/files")
	if _, err := s.ListFiles(t.Context(), "."); err != nil {
		t.Fatal(err)
	}
	listing := th.last(t, "api/files?path")
	run := func(s stolen, of string) stolen {
		s.body, s.header = []byte(`{"command":["sh","-c","echo stolen >> mark"]}`), s.header.Clone()
		s.header.Set("Content-Type", "application/json")
		s.method, s.uri = http.MethodPost, strings.Split(s.uri, "/api/")[0]+"/api/execute"
		if of != "" {
			s.header.Set(api.HeaderSessionID, of)
		}
		return s
	}
	change := func(s stolen, edit func(*stolen)) stolen {
		s.header = s.header.Clone()
		edit(&s)
		return s
	}
	for name, attack := range map[string]stolen{
		"replay a command":             command,
		"replay an upload":             upload,
		"replay a listing":             listing,
		"another command":              run(command, ""),
		"a command for a listing":      run(listing, ""),
		"a command for an upload":      run(upload, ""),
		"a command in another session": run(command, other.ID),
		"the same in another session":  change(command, func(s *stolen) { s.header.Set(api.HeaderSessionID, other.ID) }),
		"another folder":               change(listing, func(s *stolen) { s.uri = strings.Replace(s.uri, "path=.", "path=..", 1) }),
		"a download for a listing":     change(listing, func(s *stolen) { s.uri = strings.Replace(s.uri, "files?path=.", "files/mark", 1) }),
		"another content":              change(upload, func(s *stolen) { s.body = bytes.Replace(s.body, []byte("1,2"), []byte("6,6"), 1) }),
		"another file":                 change(upload, func(s *stolen) { s.body = bytes.Replace(s.body, []byte("data.csv"), []byte("evil.csv"), 1) }),
		"no token":                     change(command, func(s *stolen) { s.header.Del("Authorization") }),
		"a form's signature": change(run(listing, ""), func(s *stolen) {
			_, rest, _ := bytes.Cut(upload.body, []byte("name=\"signature\"\r\n\r\n"))
			signature, _, _ := bytes.Cut(rest, []byte("\r\n"))
			s.header.Set("Authorization", "Bearer "+string(signature))
		}),
		"the owner's local token": change(run(command, ""), func(s *stolen) { s.header.Set("Authorization", "Bearer "+th.local(t)) }),
	} {
		if status, body := th.send(t, attack); status != http.StatusUnauthorized {
			t.Errorf("%s: status %d, want 401: %.300s", name, status, body)
		}
	}
}

// local is the token with which the creator speaks to the control plane.
func (th *thief) local(t *testing.T) string {
	return strings.TrimPrefix(th.last(t, "/v1/code-interpreter").header.Get("Authorization"), "Bearer ")
}

// attackOnTheWay changes requests that have not arrived yet: what is not forwarded
// is still good, and it must be good for itself alone.
func attackOnTheWay(t *testing.T, th *thief, s *client.Session, key *rsa.PrivateKey) {
	t.Helper()
	for name, edit := range map[string]func(*stolen){
		"another command": func(s *stolen) {
			s.body = bytes.Replace(s.body, []byte("true"), []byte("echo stolen >> mark"), 1)
		},
		"an upload instead": func(s *stolen) {
			s.uri = strings.Replace(s.uri, "api/execute", "api/files", 1)
			s.body = []byte(`{"path":"evil","content":"eA=="}`)
		},
	} {
		held := &thief{to: th.to}
		held.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			held.mu.Lock()
			held.taken = append(held.taken, stolen{r.Method, r.RequestURI, r.Header.Clone(), body})
			held.mu.Unlock()
			w.WriteHeader(http.StatusBadGateway) // it is kept back
		}))
		direct, err := client.New(client.Config{WorkloadManagerURL: th.manager.String(), RouterURL: held.server.URL, Token: th.local(t), PlainText: true})
		if err != nil {
			t.Fatal(err)
		}
		mine, err := direct.Attach(t.Context(), s.ID, key)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := mine.Execute(t.Context(), client.ExecRequest{Command: []string{"sh", "-c", "true"}}); err == nil {
			t.Fatal("a request that was kept back was answered")
		}
		attack := held.last(t, "api/execute")
		edit(&attack)
		if status, body := th.send(t, attack); status != http.StatusUnauthorized {
			t.Errorf("on the way, %s: status %d, want 401: %.300s", name, status, body)
		}
		direct.Close()
		held.server.Close()
	}
}
