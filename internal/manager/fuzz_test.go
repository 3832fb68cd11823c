package manager

import (
	"bytes"
	"encoding/json"
	"net/http/httptest"
	"path"
	"regexp"
	"strings"
	"testing"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/httpserve"
)

// FuzzCreate: what is taken of a create request keeps every bound, and what is
// refused is refused in words for the caller, without a value that may be a secret.
func FuzzCreate(f *testing.F) {
	for _, body := range []string{
		`{}`, `{"name":"a","namespace":"b"}`, `{"name":"a","namespace":"b","ttl":-1}`, `{"name":"a","namespace":"b","ttl":1e400}`, `{"name":"a","namespace":"b","metadata":{"k":null}}`,
		`{"name":"a","namespace":"b","env":{"A":"hunter2","B=C":"x"}}`, `{"name":"a","namespace":"b","env":{"A":["hunter2"]}}`, `{"name":"a","namespace":"b","env":{"PWD":"x"}}`,
		`{"name":"a","namespace":"b","files":[{"path":"a","content":"YQ=="},{"path":"./a","content":""}]}`, `{"name":"a","namespace":"b","files":[{"path":"../a","content":"YQ"}]}`,
		`{"name":"a","namespace":"b","files":[{"path":"a/","content":"YQ==","mode":"4755"}]}`, `{"checkpoint":"c/../d"}`, `{"name":"a","name":"b","NAMESPACE":"c"}`, `[`, `{"publicKey":"LS0t"}`,
	} {
		f.Add([]byte(body), "")
	}
	f.Add([]byte(`{"name":"a","namespace":"b"}`), "key-1")
	f.Add([]byte(`{"name":"a","namespace":"b"}`), "two words")
	f.Add([]byte(`{"name":"a","namespace":"b"}`), strings.Repeat("k", 256))
	printable := regexp.MustCompile(`\A[!-~]{0,255}\z`)
	variable := regexp.MustCompile(`\A[A-Za-z_][A-Za-z0-9_]*\z`)
	f.Fuzz(func(t *testing.T, body []byte, key string) {
		req := Request{Kind: api.KindCodeInterpreter, IdempotencyKey: key}
		err := readCreate(httptest.NewRecorder(), httptest.NewRequest("POST", "/v1/code-interpreter", bytes.NewReader(body)), &req.CreateRequest)
		if err == nil {
			err = check(req)
		}
		if err != nil {
			e := httpserve.AsError(err)
			if e.Status < 400 || e.Status > 499 || e.Text == "" || strings.Contains(e.Text+e.Hint, "hunter2") && !named(body) {
				t.Errorf("%q is refused with %d %q (%v)", body, e.Status, e.Text, err)
			}
			return
		}
		if !printable.MatchString(key) || req.TTL < 0 || req.TTL > maxTTL || len(req.Metadata) > maxMetadata || (req.Name == "" || req.Namespace == "") && req.Checkpoint == "" {
			t.Errorf("took %q with key %q", body, key)
		}
		for name, value := range req.Env {
			if !variable.MatchString(name) || strings.Contains(value, "\x00") || len(value) > maxEnvBytes {
				t.Errorf("took the variable %q", name)
			}
		}
		seen := map[string]bool{}
		for _, file := range req.Files {
			clean := path.Clean(file.Path)
			if clean == "." || clean == ".." || strings.HasPrefix(clean, "../") || seen[clean] || strings.Contains(clean, "\x00") || permissions(file) > 0o777 {
				t.Errorf("took the file %+v", file)
			}
			seen[clean] = true
		}
	})
}

// named reports whether the secret is a name too, which may be repeated.
func named(body []byte) bool {
	var in struct {
		Checkpoint string         `json:"checkpoint"`
		Env        map[string]any `json:"env"`
	}
	_ = json.NewDecoder(bytes.NewReader(body)).Decode(&in)
	for name := range in.Env {
		if strings.Contains(name, "hunter2") {
			return true
		}
	}
	return strings.Contains(in.Checkpoint, "hunter2")
}
