package picod

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func (b *box) exists(name string) bool {
	b.t.Helper()
	_, err := os.Lstat(filepath.Join(b.dir, name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		b.t.Fatal(err)
	}
	return err == nil
}

func (b *box) write(name string) {
	b.t.Helper()
	if got := b.post("/api/files", map[string]any{"path": name, "content": ""}); got.StatusCode != http.StatusOK {
		b.t.Fatalf("write %s: %d %s", name, got.StatusCode, got.body)
	}
}

func TestExecuteRemovesFiles(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		command string
		remove  []string
		removed bool
		left    []string
	}{
		"script":           {"cat script", []string{"script"}, true, []string{"other", "dir"}},
		"of a failure":     {"exit 3", []string{"script"}, true, []string{"other"}},
		"absolute":         {"true", []string{"/script"}, true, []string{"other"}},
		"is gone already":  {"rm script", []string{"script"}, true, nil},
		"several":          {"true", []string{"script", "./other"}, true, nil},
		"none":             {"true", nil, false, []string{"script"}},
		"a full folder":    {"true", []string{"dir"}, false, []string{"dir/file"}},
		"link is swapped":  {"ln -sf '" + outside + "' script", []string{"script"}, true, nil},
		"folder swapped":   {"rm -r dir; ln -s '" + filepath.Dir(outside) + "' dir", []string{"dir/outside"}, false, []string{"dir/outside"}},
		"cannot be begun":  {"", []string{"script"}, true, nil},
		"after a time-out": {"sleep 1000", []string{"script"}, true, nil},
	} {
		t.Run(name, func(t *testing.T) {
			b := start(t, nil)
			for _, file := range []string{"script", "other", "dir/file"} {
				b.write(file)
			}
			command := []string{"sh", "-c", tt.command}
			if tt.command == "" {
				command = []string{"no-such-program"}
			}
			got := b.post("/api/execute", map[string]any{"command": command, "remove": tt.remove, "timeout": "2s"})
			if removed, _ := got.json(t)["removed"].(bool); got.StatusCode != 200 || removed != tt.removed {
				t.Errorf("answer %d %s, want removed %t", got.StatusCode, got.body, tt.removed)
			}
			if tt.removed {
				for _, file := range tt.remove {
					if b.exists(file) {
						t.Errorf("%s is still there", file)
					}
				}
			}
			for _, file := range tt.left {
				if !b.exists(file) {
					t.Errorf("%s is gone", file)
				}
			}
			if _, err := os.Stat(outside); err != nil {
				t.Errorf("a file outside the workspace: %v", err)
			}
		})
	}
}

func TestExecuteRefusesToRemove(t *testing.T) {
	b := start(t, nil)
	for name, remove := range map[string][]string{
		"above":    {"../x"},
		"NUL":      {"a\x00b"},
		"too many": strings.Split(strings.Repeat("x,", maxRemovals), ","),
	} {
		got := b.post("/api/execute", map[string]any{"command": []string{"touch", "ran"}, "remove": remove})
		if got.StatusCode != http.StatusBadRequest || b.exists("ran") {
			t.Errorf("%s: %d %s", name, got.StatusCode, got.body)
		}
	}
}

// TestClientGoneLeavesNoScript: who uploaded a script and died cannot clean up.
func TestClientGoneLeavesNoScript(t *testing.T) {
	b := start(t, nil)
	b.write("script")
	ctx, cancel := context.WithCancel(t.Context())
	text, _ := json.Marshal(map[string]any{"command": []string{"sh", "-c", "echo $$ > pid; sleep 1000"}, "remove": []string{"script"}})
	req, err := http.NewRequestWithContext(ctx, "POST", b.url+"/api/execute", bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", b.bearer(nil)["Authorization"])
	done := make(chan struct{})
	go func() {
		defer close(done)
		if resp, err := b.http.Do(req); err == nil {
			resp.Body.Close()
		}
	}()
	b.pid("pid")
	cancel()
	<-done
	for end := time.Now().Add(guard); b.exists("script"); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the script is still there")
		}
	}
}
