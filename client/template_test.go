package client

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"testing"

	"github.com/volcano-sh/agentcube/api"
)

func TestPrepareTemplate(t *testing.T) {
	const steps = `{"step":"boot","done":false}` + "\n" + `{"step":"import numpy","done":false}` + "\n"
	both := []string{"boot", "import numpy"}
	for _, tt := range []struct {
		name, body string
		status     int
		steps      []string
		is         error // nil: no error
		code       api.Code
	}{
		{"made", steps + `{"done":true}`, 200, both, nil, ""},
		{"there", `{"done":true}`, 200, nil, nil, ""},
		{"fails late", steps + `{"done":true,"error":{"error":"full","code":"DISK_FULL","requestId":"r"}}`, 200, both, ErrDiskFull, api.CodeDiskFull},
		{"breaks off", steps, 200, both, ErrUnreachable, ""},
		{"breaks off within a line", steps + `{"do`, 200, both, ErrUnreachable, ""},
		{"refused", `{"error":"cannot","code":"NOT_SUPPORTED"}`, 501, nil, ErrUnsupported, api.CodeUnsupported},
	} {
		t.Run(tt.name, func(t *testing.T) {
			srv := serve(t, reply(tt.status, tt.body))
			var got []string
			err := connect(t, Config{BaseURL: srv.URL, Token: "tok"}).PrepareTemplate(t.Context(), "te am", "big",
				func(step string) { got = append(got, step) })
			if !errors.Is(err, tt.is) {
				t.Errorf("error %v, want %v", err, tt.is)
			}
			var refused *APIError
			if errors.As(err, &refused) != (tt.code != "") || refused != nil && refused.Code != tt.code {
				t.Errorf("error %#v, want code %q", err, tt.code)
			}
			if !slices.Equal(got, tt.steps) {
				t.Errorf("steps %q, want %q", got, tt.steps)
			}
			if r := srv.request(0); r.method != "POST" || r.uri != "/v1/templates/te%20am/big/prepare" {
				t.Errorf("%s %s", r.method, r.uri)
			}
		})
	}
}

func TestPrepareTemplateEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, `{"step":"boot","done":false}`+"\n")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	err := connect(t, Config{BaseURL: srv.URL}).PrepareTemplate(ctx, "default", "big", func(string) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want context.Canceled", err)
	}
	for _, name := range []string{"", ".."} {
		if err := connect(t, Config{BaseURL: srv.URL}).PrepareTemplate(t.Context(), "default", name, nil); err == nil {
			t.Errorf("accepted the name %q", name)
		}
	}
}
