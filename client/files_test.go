package client

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestUploadFormIsInTheOrderOfOlderClients(t *testing.T) {
	srv := serve(t, reply(200, created), func(w http.ResponseWriter, r *http.Request) {}, reply(200, `{}`))
	c := connect(t, Config{BaseURL: srv.URL})
	s, err := c.CreateSession(t.Context(), CreateOptions{Managed: true})
	if err != nil {
		t.Fatal(err)
	}
	// Body without a known size: sent in chunks, so the same form.
	_, _ = s.Upload(t.Context(), "dir/n\"ame.txt", strings.NewReader("content"), UploadOptions{Size: SizeUnknown})
	got := srv.request(1)
	if got.length != -1 {
		t.Errorf("content length %d, want unknown", got.length)
	}
	var names []string
	for _, part := range strings.Split(string(got.body), "Content-Disposition: ")[1:] {
		names = append(names, strings.SplitN(part, "\r\n", 2)[0])
	}
	want := []string{`form-data; name="path"`, `form-data; name="mode"`, `form-data; name="file"; filename="n\"ame.txt"`}
	if fmt.Sprint(names) != fmt.Sprint(want) {
		t.Errorf("parts %q, want %q", names, want)
	}
}

func TestUploadOfAnotherSizeFails(t *testing.T) {
	for _, size := range []int64{3, 9} {
		srv := serve(t, reply(200, created), reply(200, `{}`))
		c := connect(t, Config{BaseURL: srv.URL})
		s, err := c.CreateSession(t.Context(), CreateOptions{Managed: true})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Upload(t.Context(), "x", strings.NewReader("1234"), UploadOptions{Size: size}); !errors.Is(err, errOtherSize) {
			t.Errorf("upload of 4 bytes as %d: %v", size, err)
		}
	}
}

func TestDownload(t *testing.T) {
	srv := serve(t, reply(200, created), func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "5")
		w.Header().Set("Last-Modified", "Mon, 02 Jan 2006 15:04:05 GMT")
		_, _ = io.WriteString(w, "12345")
	}, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "5")
		_, _ = io.WriteString(w, "123")
	})
	c := connect(t, Config{BaseURL: srv.URL})
	s, err := c.CreateSession(t.Context(), CreateOptions{Managed: true})
	if err != nil {
		t.Fatal(err)
	}
	r, info, err := s.Download(t.Context(), "/workspace/a b#?%/x/.././é")
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(r)
	_ = r.Close()
	if string(body) != "12345" || err != nil || info.Size != 5 || info.Modified.Year() != 2006 {
		t.Errorf("got %q, %v, %+v", body, err, info)
	}
	want := "/invocations/api/files/workspace/a%20b%23%3F%25/%C3%A9"
	if got := srv.request(1).uri; !strings.HasSuffix(got, want) {
		t.Errorf("uri %s, want …%s", got, want)
	}
	r, _, err = s.Download(t.Context(), "cut")
	if err != nil {
		t.Fatal(err)
	}
	if _, err = io.ReadAll(r); err == nil {
		t.Error("a download that was cut short read as complete")
	}
	_ = r.Close()
}

func TestTransfersThatStandStillEnd(t *testing.T) {
	release := make(chan struct{})
	hang := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "10")
		_, _ = io.WriteString(w, "12345")
		_ = http.NewResponseController(w).Flush()
		<-release
	}
	srv := serve(t, reply(200, created), hang, func(http.ResponseWriter, *http.Request) { <-release })
	t.Cleanup(func() { close(release) })
	c := connect(t, Config{BaseURL: srv.URL, StallTimeout: time.Second})
	s, err := c.CreateSession(t.Context(), CreateOptions{Managed: true})
	if err != nil {
		t.Fatal(err)
	}
	r, _, err := s.Download(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.ReadAll(r)
	_ = r.Close()
	if !errors.Is(err, errStalled) || !errors.Is(err, ErrUnreachable) {
		t.Errorf("download: %v", err)
	}
	if err := s.WriteFile(t.Context(), "x", []byte("y")); !errors.Is(err, errStalled) {
		t.Errorf("upload: %v", err)
	}
}

// slowReader takes longer for each byte than a transfer may stand still.
type slowReader struct{ left int }

func (s *slowReader) Read(p []byte) (int, error) {
	if s.left == 0 {
		return 0, io.EOF
	}
	time.Sleep(3300 * time.Millisecond)
	s.left--
	p[0] = 'x'
	return 1, nil
}

func TestSlowSourceIsNotStandingStill(t *testing.T) {
	t.Parallel()
	srv := serve(t, reply(200, created), reply(200, `{}`))
	c := connect(t, Config{BaseURL: srv.URL, StallTimeout: 3 * time.Second})
	s, err := c.CreateSession(t.Context(), CreateOptions{Managed: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Upload(t.Context(), "x", &slowReader{left: 1}, UploadOptions{Size: 1}); err != nil {
		t.Error(err)
	}
}
