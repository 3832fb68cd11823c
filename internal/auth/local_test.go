package auth_test

import (
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/auth"
)

func TestLocal(t *testing.T) {
	const token = "ac_0123456789abcdefghijklmnopqrstuvwxyzABCDEFG"
	const (
		missing = "Missing authorization header"
		format  = "Invalid authorization header format"
		invalid = "Invalid or expired token"
	)
	tests := []struct {
		name   string
		header []string
		want   string
	}{
		{"right", []string{"Bearer " + token}, ""},
		{"no header", nil, missing},
		{"empty header", []string{""}, missing},
		{"token alone", []string{token}, format},
		{"scheme alone", []string{"Bearer"}, format},
		{"other scheme", []string{"Basic " + token}, format},
		{"scheme in lower case", []string{"bearer " + token}, format},
		{"scheme in upper case", []string{"BEARER " + token}, format},
		{"two spaces", []string{"Bearer  " + token}, format},
		{"space before", []string{" Bearer " + token}, format},
		{"two tokens", []string{"Bearer " + token + " " + token}, format},
		{"two headers", []string{"Bearer " + token, "Bearer " + token}, format},
		{"scheme and a space", []string{"Bearer "}, invalid},
		{"wrong token", []string{"Bearer " + strings.ToUpper(token)}, invalid},
		{"beginning of the token", []string{"Bearer " + token[:len(token)-1]}, invalid},
		{"more than the token", []string{"Bearer " + token + "x"}, invalid},
		{"tab after the token", []string{"Bearer " + token + "\t"}, invalid},
	}
	local := auth.NewLocal(token)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := &http.Request{Header: http.Header{"Authorization": test.header}}
			p, err := local.Authenticate(r)
			if test.want == "" {
				if err != nil || p != (auth.Principal{Name: "local", Scopes: auth.AllScopes}) {
					t.Fatalf("got %+v, %v, want the principal local, who may do everything", p, err)
				}
				return
			}
			var apiErr *api.Error
			if !errors.As(err, &apiErr) {
				t.Fatalf("got %v, want an *api.Error", err)
			}
			if apiErr.Status != 401 || apiErr.Code != api.CodeUnauthorized || apiErr.Text != test.want {
				t.Errorf("got %d %s %q, want 401 UNAUTHORIZED %q", apiErr.Status, apiErr.Code, apiErr.Text, test.want)
			}
			if strings.Contains(apiErr.Error()+apiErr.Hint, token) || p != (auth.Principal{}) {
				t.Error("the error holds the token, or a principal was returned")
			}
		})
	}
}

func TestOwns(t *testing.T) {
	tests := []struct {
		p          auth.Principal
		owner      string
		owns, sees bool
	}{
		{auth.Principal{Name: "ann", Scopes: auth.ScopeUse}, "ann", true, true},
		{auth.Principal{Name: "ann", Scopes: auth.ScopeUse | auth.ScopeCreate}, "bob", false, false},
		{auth.Principal{Name: "ann"}, "", false, false},
		{auth.Principal{}, "", false, false},
		{auth.Principal{Name: "root", Scopes: auth.AllScopes}, "root", true, true},
		{auth.Principal{Name: "root", Scopes: auth.AllScopes}, "bob", false, true},
		{auth.Principal{Name: "root", Scopes: auth.AllScopes}, "", false, true},
	}
	for _, test := range tests {
		if owns, sees := test.p.Owns(test.owner), test.p.Sees(test.owner); owns != test.owns || sees != test.sees {
			t.Errorf("%+v owns and sees what belongs to %q: %v, %v, want %v, %v", test.p, test.owner, owns, sees, test.owns, test.sees)
		}
	}
}

func TestContext(t *testing.T) {
	if _, ok := auth.FromContext(t.Context()); ok {
		t.Error("a principal out of nowhere")
	}
	want := auth.Principal{Name: "ann", Scopes: auth.ScopeUse}
	if got, ok := auth.FromContext(auth.WithPrincipal(t.Context(), want)); !ok || got != want {
		t.Errorf("got %+v, %v, want %+v", got, ok, want)
	}
}

func TestEnsureTokenFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config", "agentcube", "token")
	token, created, err := auth.EnsureTokenFile(path)
	if err != nil || !created {
		t.Fatalf("first: created %v, %v", created, err)
	}
	if !regexp.MustCompile(`^ac_[A-Za-z0-9_-]{43}$`).MatchString(token) {
		t.Errorf("token has an unexpected form, %d characters", len(token))
	}
	for p, want := range map[string]fs.FileMode{path: 0o600, filepath.Dir(path): 0o700 | fs.ModeDir} {
		if info, err := os.Stat(p); err != nil || info.Mode() != want {
			t.Errorf("%s: mode %v, %v, want %v", p, info.Mode(), err, want)
		}
	}
	again, created, err := auth.EnsureTokenFile(path)
	if err != nil || created || again != token {
		t.Errorf("second: created %v, %v, same token: %v", created, err, again == token)
	}
	if read, err := auth.ReadTokenFile(path); err != nil || read != token {
		t.Errorf("ReadTokenFile: %v, same token: %v", err, read == token)
	}
	onlyFile(t, path)
}

// Two servers that start at once must agree on the token, and so must a client
// that looks while it is made.
func TestEnsureTokenFileAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	const starts = 16
	tokens := make([]string, starts)
	made := make([]bool, starts)
	var wg sync.WaitGroup
	for i := range starts {
		wg.Go(func() {
			var err error
			if tokens[i], made[i], err = auth.EnsureTokenFile(path); err != nil {
				t.Errorf("EnsureTokenFile: %v", err)
			}
		})
	}
	wg.Wait()
	count := 0
	for i := range tokens {
		if tokens[i] != tokens[0] {
			t.Error("two starts have different tokens")
		}
		if made[i] {
			count++
		}
	}
	if count != 1 {
		t.Errorf("%d starts made the file, want 1", count)
	}
	onlyFile(t, path)
}

// onlyFile checks that no temporary file is left beside path.
func onlyFile(t *testing.T, path string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("the folder holds %v, %v, want one file", entries, err)
	}
}

func TestReadTokenFileRefuses(t *testing.T) {
	const good = "ac_0123456789abcdefghijklmnopqrstuvwxyzABCDEFG\n"
	tests := []struct {
		name    string
		content string
		mode    fs.FileMode
		problem string
		hint    string
	}{
		{"readable by the group", good, 0o640, "mode 0640", "chmod 600"},
		{"readable by all", good, 0o604, "mode 0604", "chmod 600"},
		{"writable by the group", good, 0o620, "mode 0620", "chmod 600"},
		{"empty", "", 0o600, "does not hold a token", "remove the file"},
		{"too short", "ac_123\n", 0o600, "does not hold a token", "remove the file"},
		{"two lines", good + good, 0o600, "does not hold a token", "remove the file"},
		{"control character", strings.Replace(good, "5", "\x00", 1), 0o600, "does not hold a token", "remove the file"},
		{"too long", strings.Repeat("a", 1000), 0o600, "does not hold a token", "remove the file"},
		{"far too long", strings.Repeat("a", 1<<20), 0o600, "is larger than", "path"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "token")
			if err := os.WriteFile(path, []byte(test.content), test.mode); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, test.mode); err != nil {
				t.Fatal(err)
			}
			_, readErr := auth.ReadTokenFile(path)
			_, _, ensureErr := auth.EnsureTokenFile(path)
			for _, err := range []error{readErr, ensureErr} {
				var refused *auth.FileError
				if !errors.As(err, &refused) {
					t.Fatalf("got %v, want a *FileError", err)
				}
				if !strings.Contains(err.Error(), test.problem) || !strings.Contains(refused.Hint(), test.hint) {
					t.Errorf("error %q, hint %q: want %q and %q", err, refused.Hint(), test.problem, test.hint)
				}
				if strings.Contains(err.Error()+refused.Hint(), "ac_0123") {
					t.Error("the error holds the token")
				}
			}
			if after, err := os.ReadFile(path); err != nil || string(after) != test.content {
				t.Errorf("the file was changed: %v", err)
			}
		})
	}
	if _, err := auth.ReadTokenFile(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v, want fs.ErrNotExist", err)
	}
	var refused *auth.FileError
	if _, err := auth.ReadTokenFile(t.TempDir()); !errors.As(err, &refused) {
		t.Errorf("a folder: %v, want a *FileError", err)
	}
}
