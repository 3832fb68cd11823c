package picod

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/api/audit"
)

const (
	traceID     = "0af7651916cd43dd8448eb211c80319c"
	traceparent = "00-" + traceID + "-b7ad6b7169203331-01"
)

// TestTraceVariable: commands find the step of a trace that their request is part of,
// if that is well formed and nobody has given them another.
func TestTraceVariable(t *testing.T) {
	b := start(t, nil)
	for _, test := range []struct {
		sent []string
		env  map[string]string
		want string
	}{
		{[]string{traceparent}, nil, traceparent},
		{nil, nil, "none"},
		{[]string{traceparent + "-more"}, nil, "none"},
		{[]string{"$(id)"}, nil, "none"},
		{[]string{traceparent, traceparent}, nil, "none"},
		{[]string{"cc-" + traceID + "-b7ad6b7169203331-fe"}, nil, "00-" + traceID + "-b7ad6b7169203331-00"},
		{[]string{traceparent}, map[string]string{"TRACEPARENT": "mine"}, "mine"},
	} {
		body, err := json.Marshal(map[string]any{"command": []string{"sh", "-c", "echo ${TRACEPARENT-none}; env | grep -c ^TRACEPARENT="}, "env": test.env})
		if err != nil {
			t.Fatal(err)
		}
		req, err := http.NewRequestWithContext(t.Context(), "POST", b.url+"/api/execute", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", b.bearer(jwt.MapClaims{"body_sha256": hashOf(body)})["Authorization"])
		req.Header["Traceparent"] = test.sent
		resp, err := b.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		var got executeResponse
		err = json.NewDecoder(resp.Body).Decode(&got)
		resp.Body.Close()
		count := "1"
		if test.want == "none" {
			count = "0"
		}
		if err != nil || got.Stdout != test.want+"\n"+count+"\n" {
			t.Errorf("with %q and %v the command has %q, %v", test.sent, test.env, got.Stdout, err)
		}
	}
}

// TestTraceIsRecorded: the session's own record names the trace of a request.
func TestTraceIsRecorded(t *testing.T) {
	addr, certificate, b := serveSecurely(t, nil)
	c := secureClient(t, addr, certificate, b.key, false)
	const target = "/api/files?path=."
	for _, parent := range []string{traceparent, "odd"} {
		req, err := http.NewRequestWithContext(context.Background(), "GET", "https://"+api.SecureName("s1")+target, strings.NewReader(""))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Traceparent", parent)
		req.Header.Set("Authorization", "Bearer "+sign(t, jwt.SigningMethodRS256, b.key, jwt.MapClaims{
			"sid": "s1", "jti": parent, "htm": "GET", "htu": target, "iat": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix(),
		}))
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
	_, text, _ := sent(t, c, b, "GET", "/api/audit", "")
	rec, err := audit.ParseRecord([]byte(text), certificate, "s1")
	if err != nil || len(rec.Entries) != 2 || rec.Entries[0].Trace != traceID || rec.Entries[1].Trace != "" {
		t.Errorf("recorded is %s, %v", text, err)
	}
}
