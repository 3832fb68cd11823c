package image

import (
	"context"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// nobody has no credentials: tests do not depend on who runs them.
type nobody struct{}

func (nobody) Resolve(authn.Resource) (authn.Authenticator, error) { return authn.Anonymous, nil }

// someone has one user's credentials for every registry.
type someone struct{}

func (someone) Resolve(authn.Resource) (authn.Authenticator, error) {
	return &authn.Basic{Username: "user", Password: "word"}, nil
}

// testRegistry serves a registry on loopback; wrap stands before it.
func testRegistry(t testing.TB, wrap func(http.Handler) http.Handler) (host string) {
	t.Helper()
	h := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	if wrap != nil {
		h = wrap(h)
	}
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://")
}

func push(t testing.TB, ref string, img v1.Image, opts ...remote.Option) {
	t.Helper()
	parsed, err := name.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(parsed, img, opts...); err != nil {
		t.Fatal(err)
	}
}

func TestPull(t *testing.T) {
	host := testRegistry(t, nil)
	ref := host + "/team/image:v1"
	parsed, err := name.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	ix := mutate.AppendManifests(empty.Index,
		platformed(libraryImage(t, "mips", "theirs"), "mips", ""),
		platformed(libraryImage(t, runtime.GOARCH, "ours"), runtime.GOARCH, ""))
	if err := remote.WriteIndex(parsed, ix); err != nil {
		t.Fatal(err)
	}
	s := openStore(t, Options{})
	var last Progress
	img, err := s.Pull(t.Context(), ref, PullOptions{Keychain: nobody{}}, func(p Progress) { last = p })
	if err != nil {
		t.Fatal(err)
	}
	wantBody(t, img, "ours")
	if img.References[0] != ref || last.Stage != "build" {
		t.Errorf("reference is %v, last progress %+v", img.References, last)
	}
	wantContents(t, s, 3, 1)
	digest, err := ix.Digest()
	if err != nil {
		t.Fatal(err)
	}
	pinned := host + "/team/image@" + digest.String()
	if _, err := s.Pull(t.Context(), pinned, PullOptions{Keychain: nobody{}}, nil); err != nil {
		t.Errorf("pull by digest: %v", err)
	}
	if got, err := s.Get(t.Context(), pinned); err != nil || got.Digest != img.Digest {
		t.Errorf("Get by digest gives %+v, %v", got, err)
	}
	_, err = s.Pull(t.Context(), host+"/team/image@sha256:"+strings.Repeat("0", 64), PullOptions{Keychain: nobody{}}, nil)
	wantCode(t, err, CodeNotFound)
	_, err = s.Pull(t.Context(), img.Digest, PullOptions{}, nil)
	wantCode(t, err, CodeReferenceInvalid)
	_, err = s.Pull(t.Context(), host+"/team/other", PullOptions{Keychain: nobody{}}, nil)
	wantCode(t, err, CodeNotFound)
	_, err = s.Pull(t.Context(), "Bad Ref", PullOptions{}, nil)
	wantCode(t, err, CodeReferenceInvalid)
}

func TestPullForAnotherPlatform(t *testing.T) {
	host := testRegistry(t, nil)
	push(t, host+"/x:1", libraryImage(t, "mips", "theirs"))
	s := openStore(t, Options{})
	_, err := s.Pull(t.Context(), host+"/x:1", PullOptions{Keychain: nobody{}}, nil)
	wantCode(t, err, CodePlatformMissing)
	parsed, err := name.ParseReference(host + "/x:2")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteIndex(parsed, mutate.AppendManifests(empty.Index, platformed(libraryImage(t, "mips", "theirs"), "mips", ""))); err != nil {
		t.Fatal(err)
	}
	_, err = s.Pull(t.Context(), host+"/x:2", PullOptions{Keychain: nobody{}}, nil)
	wantCode(t, err, CodePlatformMissing)
	wantContents(t, s, 0, 0)
}

func TestPullWithCredentials(t *testing.T) {
	host := testRegistry(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if user, word, ok := r.BasicAuth(); !ok || user != "user" || word != "word" {
				w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
				http.Error(w, "no", http.StatusUnauthorized)
				return
			}
			next.ServeHTTP(w, r)
		})
	})
	push(t, host+"/x:1", libraryImage(t, runtime.GOARCH, "secret"), remote.WithAuth(&authn.Basic{Username: "user", Password: "word"}))
	s := openStore(t, Options{})
	_, err := s.Pull(t.Context(), host+"/x:1", PullOptions{Keychain: nobody{}}, nil)
	wantCode(t, err, CodePullFailed)
	if _, err := s.Pull(t.Context(), host+"/x:1", PullOptions{Keychain: someone{}}, nil); err != nil {
		t.Errorf("with credentials: %v", err)
	}
}

// badBlobs is a registry that answers for the layer in its own way.
func badBlobs(t testing.TB, answer http.HandlerFunc) (ref string) {
	t.Helper()
	img := libraryImage(t, runtime.GOARCH, "x")
	m, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	var on atomic.Bool
	host := testRegistry(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if on.Load() && r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, m.Layers[0].Digest.String()) {
				answer(w, r)
				return
			}
			next.ServeHTTP(w, r)
		})
	})
	push(t, host+"/x:1", img)
	on.Store(true)
	return host + "/x:1"
}

func TestPullFromBadRegistry(t *testing.T) {
	for _, tt := range []struct {
		name   string
		code   Code
		answer http.HandlerFunc
	}{
		{"layer is another", CodePullFailed, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, strings.Repeat("x", 2048)) }},
		{"layer never ends", CodePullFailed, func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 64<<10)); err != nil {
					return
				}
			}
		}},
		{"layer is cut", CodePullFailed, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "2048")
			io.WriteString(w, "short")
		}},
		{"layer stands still", CodePullFailed, func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusOK)
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}},
		{"layer is gone", CodePullFailed, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusGone) }},
		{"redirect to plain HTTP elsewhere", CodePullFailed, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://192.0.2.1/blob", http.StatusTemporaryRedirect)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := openStore(t, Options{})
			_, err := s.Pull(t.Context(), badBlobs(t, tt.answer), PullOptions{Keychain: nobody{}, Stall: 200 * time.Millisecond}, nil)
			wantCode(t, err, tt.code)
			wantContents(t, s, 0, 0)
		})
	}
}

func TestPullIsCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	ref := badBlobs(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush()
		cancel()
		<-r.Context().Done()
	})
	s := openStore(t, Options{})
	_, err := s.Pull(ctx, ref, PullOptions{Keychain: nobody{}}, nil)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
	wantContents(t, s, 0, 0)
}

func TestNoPlainHTTPOffThisMachine(t *testing.T) {
	s := openStore(t, Options{})
	var asked atomic.Int32
	refuse := roundTrip(func(req *http.Request) (*http.Response, error) {
		asked.Add(1)
		if req.URL.Scheme == "http" {
			t.Errorf("plain HTTP went to %s", req.URL.Host)
		}
		return nil, errors.New("no network in this test")
	})
	for _, host := range []string{"192.168.7.7:5000", "10.0.0.1", "registry.local"} {
		_, err := s.Pull(t.Context(), host+"/x", PullOptions{Keychain: nobody{}, Transport: refuse}, nil)
		wantCode(t, err, CodePullFailed)
	}
	if asked.Load() == 0 {
		t.Error("the transport was never asked")
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
