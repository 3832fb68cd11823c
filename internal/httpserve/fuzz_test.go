package httpserve_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/httpserve"
)

// FuzzHosts: a host that is let in is one of the few that it may be, and a page of
// another origin is not.
func FuzzHosts(f *testing.F) {
	for _, host := range []string{"localhost", "LOCALHOST:80", "127.0.0.1:8080", "[::1]", "[::1]:80", "[::ffff:127.0.0.1]", "cube.example:1", "evil.example", "localhost.evil.example",
		"localhost@evil.example", "evil.example#localhost", "[::1].evil.example", "127.0.0.1.nip.io", "localhost:evil", "[localhost]", "0", "0x7f.1", "192.0.2.7:8080", "localhost\x00", "[::1%25lo]"} {
		f.Add(host, "")
		f.Add(host, "http://"+host)
	}
	f.Add("localhost", "null")
	f.Add("localhost:8080", "http://localhost:8081")
	f.Fuzz(func(t *testing.T, host, origin string) {
		r := httptest.NewRequest("GET", "/", nil)
		r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, &net.TCPAddr{IP: net.ParseIP("192.0.2.7"), Port: 8080}))
		r.Host = host
		if origin != "" {
			r.Header.Set("Origin", origin)
		}
		if (httpserve.Hosts{Names: []string{"cube.example"}}).Check(r) != nil {
			return
		}
		if origin != "" && !strings.Contains(strings.ToLower(origin), strings.ToLower(host)) && !strings.Contains(origin, "%") {
			t.Errorf("host %q with origin %q is let in", host, origin)
		}
		// The name is what is left when a port and brackets are taken away.
		name := strings.ToLower(host)
		if i := strings.LastIndexByte(name, ':'); i >= 0 && strings.Trim(name[i+1:], "0123456789") == "" && (strings.Count(name, ":") == 1 || strings.HasSuffix(name[:i], "]")) {
			name = name[:i]
		}
		name = strings.TrimSuffix(strings.TrimPrefix(name, "["), "]")
		if ip := net.ParseIP(name); name != "localhost" && name != "cube.example" && !ip.IsLoopback() && !ip.Equal(net.ParseIP("192.0.2.7")) {
			t.Errorf("host %q is let in", host)
		}
	})
}

// FuzzReadJSON: what is read is one JSON value, whole and within its bounds.
func FuzzReadJSON(f *testing.F) {
	for _, body := range []string{`{}`, `{"name":"a"}`, `{"name":1}`, `{}{}`, `[`, ``, `{"name":"` + strings.Repeat("x", 100) + `"}`, strings.Repeat("[", 90), "\xef\xbb\xbf{}", `{"name":"\ud800"}`} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		const limit = 100
		r := httptest.NewRequest("POST", "/", bytes.NewReader(body))
		var v struct{ Name string }
		err := httpserve.ReadJSON(httptest.NewRecorder(), r, limit, &v)
		if err != nil {
			if e, ok := errors.AsType[*api.Error](err); !ok || e.Status != 400 && e.Status != 413 {
				t.Errorf("refused with %v", err)
			}
			return
		}
		if len(body) > limit || !json.Valid(body) {
			t.Errorf("took %q", body)
		}
	})
}

// FuzzRequestID: what a client calls its request is harmless in answers and logs.
func FuzzRequestID(f *testing.F) {
	for _, id := range []string{"", "a", "a b", "a\r\nSet-Cookie: b", "é", strings.Repeat("x", 129), "../x", `"`} {
		f.Add(id)
	}
	f.Fuzz(func(t *testing.T, id string) {
		w, log := serve(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "x") }),
			func(r *http.Request) { r.Header["X-Request-Id"] = []string{id} })
		got := w.Header().Get("X-Request-Id")
		odd := func(r rune) bool {
			return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._", r)
		}
		if got == "" || len(got) > 128 || strings.ContainsFunc(got, odd) || strings.Count(log, "\n") != 1 {
			t.Errorf("%q becomes %q in %q", id, got, log)
		}
	})
}
