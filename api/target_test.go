package api_test

import (
	"net/url"
	"testing"

	"github.com/volcano-sh/agentcube/api"
)

func TestRequestTarget(t *testing.T) {
	for _, tt := range []struct{ path, query, want string }{
		{"/api/execute", "", "/api/execute"},
		{"/api/files", "path=a%2Fb", "/api/files?path=a%2Fb"},
		{"/api/files/a b/ü#?%.txt", "", "/api/files/a%20b/%C3%BC%23%3F%25.txt"},
		{"/api/files/a?b", "", "/api/files/a%3Fb"},
		{"/api/files/a", "b", "/api/files/a?b"},
		{"/-._~!$&'()*+,;=:@", "", "/-._~%21%24%26%27%28%29%2A%2B%2C%3B%3D%3A%40"},
		{"\x00\xff", "", "%00%FF"},
	} {
		if got := api.RequestTarget(tt.path, tt.query); got != tt.want {
			t.Errorf("RequestTarget(%q, %q) = %q, want %q", tt.path, tt.query, got, tt.want)
		}
	}
}

// FuzzRequestTarget: two requests with the same target are the same request.
func FuzzRequestTarget(f *testing.F) {
	f.Add("/api/files/a b", "path=x")
	f.Add("/a?b", "")
	f.Add("/\x80%25", "?&#")
	f.Fuzz(func(t *testing.T, path, query string) {
		got, err := url.Parse("http://sandbox" + api.RequestTarget("/"+path, ""))
		if err != nil || got.Path != "/"+path || got.RawQuery != "" {
			t.Errorf("target of %q reads as %q, %q, %v", path, got.Path, got.RawQuery, err)
		}
		if query != "" && api.RequestTarget(path, query) != api.RequestTarget(path, "")+"?"+query {
			t.Errorf("query %q of %q was changed", query, path)
		}
	})
}
