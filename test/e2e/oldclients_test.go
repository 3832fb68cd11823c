package e2e

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// oldClient does what a Python SDK from before AgentCube's own does on the
// wire, by the wire contract's section 1 and without any code of ours.
type oldClient struct {
	t       *testing.T
	at      *installation
	key     *rsa.PrivateKey // nil: the SDK that holds no key (0.1.0)
	session string
	base    string // of the data plane
}

// TestOldClients goes the whole way of both SDKs.
func TestOldClients(t *testing.T) {
	t.Parallel()
	t.Run("0.0.7, holds a key", func(t *testing.T) {
		t.Parallel()
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			t.Fatal(err)
		}
		c := &oldClient{t: t, at: at(t), key: key}
		der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
		if err != nil {
			t.Fatal(err)
		}
		text := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
		public := strings.TrimRight(base64.StdEncoding.EncodeToString(text), "=")
		c.create("simple-codeinterpreter", fmt.Sprintf(
			`{"name": "simple-codeinterpreter", "namespace": "default", "metadata": {}, "publicKey": "%s"}`, public))
		c.tour(`"30s"`, `"0.5s"`, `"1e-05s"`)
	})
	t.Run("0.1.0, the Router signs", func(t *testing.T) {
		t.Parallel()
		c := &oldClient{t: t, at: at(t)}
		c.create("my-interpreter", `{"name": "my-interpreter", "namespace": "default", "ttl": 3600, "metadata": {}}`)
		c.tour(`"120s"`, `"0.5s"`, `"1800.0s"`)
	})
}

func (c *oldClient) create(name, body string) {
	c.t.Helper()
	status, raw, _ := c.do("POST", c.at.Manager+"/v1/code-interpreter", "application/json", []byte(body), "Bearer "+c.at.Token)
	var answer struct {
		SessionID   string `json:"sessionId"`
		EntryPoints []any  `json:"entryPoints"`
	}
	if err := json.Unmarshal(raw, &answer); err != nil || status != 200 || answer.SessionID == "" || len(answer.EntryPoints) == 0 {
		c.t.Fatalf("create = %d %s (%v)", status, raw, err)
	}
	c.session = answer.SessionID
	c.base = c.at.Router + "/v1/namespaces/default/code-interpreters/" + name + "/invocations/"
}

// tour makes every call of the SDK. Time-outs are JSON strings.
func (c *oldClient) tour(usual, short, odd string) {
	t := c.t
	t.Helper()
	defer c.remove()

	if out := c.execute(`["whoami"]`, usual); out.ExitCode != 0 || out.Stdout != "agent\n" || out.Stderr != "" {
		t.Errorf("whoami: %+v", out)
	}
	if out := c.execute(`["ls", "/no/such"]`, usual); out.ExitCode == 0 || out.Stderr == "" {
		t.Errorf("a command that fails: %+v", out)
	}
	if out := c.execute(`["sleep", "60"]`, short); out.ExitCode != 124 || !strings.Contains(out.Stderr, "Command timed out") {
		t.Errorf("a command that is too slow: %+v", out)
	}
	c.execute(`["true"]`, odd)

	// run_code: a file at a relative path, then the interpreter on it.
	code := base64.StdEncoding.EncodeToString([]byte("import math\nprint(f'Pi is approximately {math.pi:.4f}')\n"))
	c.want(200, "POST", "api/files", "application/json", []byte(`{"path": "script_1700000000000.py", "content": "`+code+`", "mode": "0644"}`))
	if out := c.execute(`["python3", "script_1700000000000.py"]`, usual); out.Stdout != "Pi is approximately 3.1416\n" {
		t.Errorf("run_code: %+v", out)
	}

	// upload_file, as requests puts the form together.
	const boundary = "d41d8cd98f00b204e9800998ecf8427e"
	form := "--" + boundary + "\r\nContent-Disposition: form-data; name=\"path\"\r\n\r\n/workspace/data.csv\r\n" +
		"--" + boundary + "\r\nContent-Disposition: form-data; name=\"mode\"\r\n\r\n0644\r\n" +
		"--" + boundary + "\r\nContent-Disposition: form-data; name=\"file\"; filename=\"data.csv\"\r\n\r\na,b\n1,2\n\r\n" +
		"--" + boundary + "--\r\n"
	c.want(200, "POST", "api/files", "multipart/form-data; boundary="+boundary, []byte(form))
	if got := c.want(200, "GET", "api/files/workspace/data.csv", "", nil); string(got) != "a,b\n1,2\n" {
		t.Errorf("download: %q", got)
	}

	var list struct {
		Files []struct {
			Name  string `json:"name"`
			Size  int64  `json:"size"`
			IsDir *bool  `json:"is_dir"`
		} `json:"files"`
	}
	raw := c.want(200, "GET", "api/files?path=.", "", nil)
	if err := json.Unmarshal(raw, &list); err != nil || len(list.Files) != 2 ||
		list.Files[0].Name != "data.csv" || list.Files[0].Size != 8 || list.Files[0].IsDir == nil || *list.Files[0].IsDir {
		t.Errorf("list: %s (%v)", raw, err)
	}
	c.execute(`["mkdir", "empty"]`, usual)
	if raw := c.want(200, "GET", "api/files?path=empty", "", nil); strings.TrimSpace(string(raw)) != `{"files":[]}` {
		t.Errorf("list of an empty folder: %s", raw)
	}
	c.want(404, "GET", "api/files/no-such-file", "", nil)
	c.want(400, "POST", "api/files", "application/json", []byte(`{"path": "../../etc/passwd", "content": "eA==", "mode": "0644"}`))
}

// remove is stop(): 404 counts as success there, so the second is asked, too.
func (c *oldClient) remove() {
	for _, want := range []int{200, 404} {
		status, raw, _ := c.do("DELETE", c.at.Manager+"/v1/code-interpreter/sessions/"+c.session, "application/json", nil, "Bearer "+c.at.Token)
		if status != want {
			c.t.Errorf("delete = %d %s, want %d", status, raw, want)
		}
	}
}

type oldResult struct {
	ExitCode int    `json:"exit_code"`
	Stdout   string `json:"stdout"`
	Stderr   string `json:"stderr"`
}

func (c *oldClient) execute(command, timeout string) oldResult {
	c.t.Helper()
	raw := c.want(200, "POST", "api/execute", "application/json", []byte(`{"command": `+command+`, "timeout": `+timeout+`}`))
	out := oldResult{ExitCode: -99}
	if err := json.Unmarshal(raw, &out); err != nil || out.ExitCode == -99 {
		c.t.Errorf("execute answered %s (%v)", raw, err)
	}
	return out
}

// want makes a data-plane call.
func (c *oldClient) want(status int, method, path, ctype string, body []byte) []byte {
	c.t.Helper()
	authorization := "Bearer " + c.at.Token
	if c.key != nil {
		authorization = "Bearer " + c.sign(ctype, body)
	}
	got, raw, header := c.do(method, c.base+path, ctype, body, authorization)
	if got != status {
		c.t.Errorf("%s %s = %d %s, want %d", method, path, got, raw, status)
	}
	if header.Get("x-agentcube-session-id") != c.session {
		c.t.Errorf("%s %s: the answer does not name the session", method, path)
	}
	return raw
}

// sign makes the SDK's JWT: JSON bodies are bound by their hash.
func (c *oldClient) sign(ctype string, body []byte) string {
	now := time.Now().Unix()
	claims := fmt.Sprintf(`"iss":"sdk-client","iat":%d,"exp":%d`, now, now+300)
	if ctype == "application/json" {
		sum := sha256.Sum256(body)
		claims += `,"body_sha256":"` + hex.EncodeToString(sum[:]) + `"`
	}
	encode := base64.RawURLEncoding.EncodeToString
	text := encode([]byte(`{"alg":"RS256","typ":"JWT"}`)) + "." + encode([]byte("{"+claims+"}"))
	digest := sha256.Sum256([]byte(text))
	signature, err := rsa.SignPKCS1v15(nil, c.key, crypto.SHA256, digest[:])
	if err != nil {
		c.t.Fatal(err)
	}
	return text + "." + encode(signature)
}

func (c *oldClient) do(method, url, ctype string, body []byte, authorization string) (int, []byte, http.Header) {
	c.t.Helper()
	req, err := http.NewRequest(method, url, bytes.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	req.Header.Set("User-Agent", "python-requests/2.32.3")
	req.Header.Set("Accept", "*/*")
	req.Header.Set("Authorization", authorization)
	if ctype != "" {
		req.Header.Set("Content-Type", ctype)
	}
	if c.base != "" && strings.HasPrefix(url, c.base) {
		req.Header.Set("x-agentcube-session-id", c.session)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return resp.StatusCode, raw, resp.Header
}
