package client

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/volcano-sh/agentcube/api"
)

// given is the answer to a create request with so much.
func given(counts string) string {
	return strings.TrimSuffix(created, "}") + `,` + counts + `}`
}

func TestCreateGives(t *testing.T) {
	srv := serve(t, reply(200, given(`"variables":2,"files":2`)))
	c := connect(t, Config{BaseURL: srv.URL})
	opts := CreateOptions{
		Managed: true, Env: map[string]string{"A": "1", "EMPTY": ""},
		Files: []api.File{{Path: "a", Content: []byte("\xff"), Mode: "0600"}, {Path: "empty"}},
	}
	if _, err := c.CreateSession(t.Context(), opts); err != nil {
		t.Fatal(err)
	}
	if opts.Files[1].Content != nil {
		t.Error("the caller's files were changed")
	}
	var got map[string]any
	if err := json.Unmarshal(srv.request(0).body, &got); err != nil {
		t.Fatal(err)
	}
	fields, err := json.Marshal([]any{got["env"], got["files"]})
	if want := `[{"A":"1","EMPTY":""},[{"content":"/w==","mode":"0600","path":"a"},{"content":"","path":"empty"}]]`; err != nil || string(fields) != want {
		t.Errorf("sent %s, want %s", fields, want)
	}
}

// TestCreateAtOldServer: one that ignores what it does not know must not leave a
// session behind that has less than was asked for.
func TestCreateAtOldServer(t *testing.T) {
	for name, opts := range map[string]CreateOptions{
		"variables": {Managed: true, Env: map[string]string{"A": "1"}},
		"files":     {Managed: true, Files: []api.File{{Path: "a"}}},
	} {
		srv := serve(t, reply(200, created), reply(200, `{"sessionId":"abc"}`))
		c := connect(t, Config{BaseURL: srv.URL})
		if _, err := c.CreateSession(t.Context(), opts); !errors.Is(err, ErrUnsupported) {
			t.Errorf("%s: CreateSession = %v, want ErrUnsupported", name, err)
		}
		if got := srv.request(1); got.method != "DELETE" || got.uri != "/v1/sessions/abc" {
			t.Errorf("%s: then %s %s, want the session deleted", name, got.method, got.uri)
		}
	}
}

func TestCreateGivesText(t *testing.T) {
	c := connect(t, Config{BaseURL: serve(t).URL})
	for name, opts := range map[string]CreateOptions{
		"value": {Managed: true, Env: map[string]string{"A": "\xff"}},
		"name":  {Managed: true, Env: map[string]string{"\xff": ""}},
		"path":  {Managed: true, Files: []api.File{{Path: "\xff"}}},
	} {
		_, err := c.CreateSession(t.Context(), opts)
		if err == nil || !strings.Contains(err.Error(), "not UTF-8") {
			t.Errorf("%s that is not UTF-8: %v", name, err)
		}
	}
}
