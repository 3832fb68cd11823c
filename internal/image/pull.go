package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// PullOptions of Pull; the zero value will do.
type PullOptions struct {
	// Keychain finds credentials; nil means those of the docker configuration
	// of this user, and none where it has none.
	Keychain authn.Keychain
	// Transport carries the requests; nil means one with bounded waits.
	Transport http.RoundTripper
	// Stall is how long a download may stand still; 0 means a minute.
	Stall time.Duration
}

// Pull brings an image in from a registry, for this machine's platform, under
// the name ref, which may be name:tag or name@digest. Plain HTTP is spoken to loopback addresses only, redirects
// included. Further errors have CodePullFailed, and CodeNotFound when the
// registry has no such image; apart from them Pull is as Import.
func (s *Store) Pull(ctx context.Context, ref string, opts PullOptions, progress ProgressFunc) (Image, error) {
	norm, err := Normalize(ref)
	if err != nil {
		return Image{}, err
	}
	if validDigest(norm) {
		return Image{}, &Error{Code: CodeReferenceInvalid, Text: fmt.Sprintf("%q is a digest without a name", ref), Hint: "write it like name@" + ref}
	}
	remoteRef, err := name.ParseReference(ref)
	if err != nil {
		return Image{}, &Error{Code: CodeReferenceInvalid, Text: fmt.Sprintf("image reference %q is not valid", clip(ref)), Cause: err}
	}
	return s.bringIn(ctx, norm, newMeter(progress), func(*work, *meter) (*bundle, error) {
		return s.bundleOfRemote(ctx, remoteRef, opts)
	})
}

func (s *Store) bundleOfRemote(ctx context.Context, ref name.Reference, opts PullOptions) (*bundle, error) {
	keychain := opts.Keychain
	if keychain == nil {
		keychain = authn.DefaultKeychain
	}
	if opts.Stall == 0 {
		opts.Stall = time.Minute
	}
	base := opts.Transport
	closeIdle := func() error { return nil }
	if base == nil {
		t := newTransport()
		base, closeIdle = t, func() error { t.CloseIdleConnections(); return nil }
	}
	img, err := remoteImage(ref, remote.WithContext(ctx), remote.WithAuthFromKeychain(keychain),
		remote.WithTransport(loopbackPlain{base}))
	if err != nil {
		return nil, errors.Join(pullError(ref, err), closeIdle())
	}
	b, err := s.bundleOfImage(img, opts.Stall)
	if err != nil {
		return nil, errors.Join(pullError(ref, err), closeIdle())
	}
	b.close = closeIdle
	return b, nil
}

// remoteImage finds the image for this machine at ref.
func remoteImage(ref name.Reference, opts ...remote.Option) (v1.Image, error) {
	desc, err := remote.Get(ref, opts...)
	if err != nil {
		return nil, err
	}
	if !desc.MediaType.IsIndex() {
		return desc.Image()
	}
	ix, err := desc.ImageIndex()
	if err != nil {
		return nil, err
	}
	m, err := ix.IndexManifest()
	if err != nil {
		return nil, err
	}
	for _, d := range m.Manifests {
		if d.MediaType.IsImage() && platformFits(d.Platform) {
			return ix.Image(d.Digest)
		}
	}
	return nil, noPlatform()
}

func (s *Store) bundleOfImage(img v1.Image, stall time.Duration) (*bundle, error) {
	b := &bundle{}
	var err error
	if b.manifest, err = img.RawManifest(); err != nil {
		return nil, err
	}
	if err := b.parseManifest(); err != nil {
		return nil, err
	}
	if size := b.man.Config.Size; size > s.limits.Document {
		return nil, tooLarge("image configuration has %d bytes, at most %d are allowed", size, s.limits.Document)
	}
	if b.config, err = img.RawConfigFile(); err != nil {
		return nil, err
	}
	if err := checkDocument(b.config, b.man.Config); err != nil {
		return nil, err
	}
	b.open = func(_ context.Context, i int) (io.ReadCloser, error) {
		l, err := img.LayerByDigest(b.man.Layers[i].Digest)
		if err != nil {
			return nil, err
		}
		r, err := l.Compressed()
		if err != nil {
			return nil, &Error{Code: CodePullFailed, Text: "download layer", Cause: err, Hint: pullHint}
		}
		return &stallReader{r: r, limit: stall}, nil
	}
	return b, s.check(b)
}

const pullHint = "check the name, the network and, for a private image, docker login"

func pullError(ref name.Reference, err error) error {
	var te *transport.Error
	if errors.As(err, &te) && te.StatusCode == http.StatusNotFound {
		return &Error{Code: CodeNotFound, Text: fmt.Sprintf("registry has no image %q", ref.Name()), Cause: err}
	}
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		return classify(err, CodeSourceInvalid, "read image manifest")
	}
	e := &Error{}
	if errors.As(err, &e) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return &Error{Code: CodePullFailed, Text: fmt.Sprintf("pull %q", ref.Name()), Cause: err, Hint: pullHint}
}

func newTransport() *http.Transport {
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 15 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout:   15 * time.Second,
		ResponseHeaderTimeout: 60 * time.Second,
		IdleConnTimeout:       30 * time.Second,
		MaxIdleConns:          8,
		ForceAttemptHTTP2:     true,
	}
}

// loopbackPlain refuses to send anything unencrypted off this machine. The
// registry client would, to addresses of private networks.
type loopbackPlain struct{ next http.RoundTripper }

func (l loopbackPlain) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme != "https" && !isLoopback(req.URL.Hostname()) {
		return nil, fmt.Errorf("refuse plain HTTP to %s: only loopback addresses may be reached without TLS", req.URL.Host)
	}
	return l.next.RoundTrip(req)
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// stallReader fails a Read that takes longer than limit, by closing r.
type stallReader struct {
	r     io.ReadCloser
	limit time.Duration
	once  sync.Once
}

func (s *stallReader) Read(p []byte) (int, error) {
	stalled := make(chan struct{})
	timer := time.AfterFunc(s.limit, func() {
		close(stalled)
		_ = s.Close()
	})
	n, err := s.r.Read(p)
	if !timer.Stop() {
		<-stalled
		return n, &Error{Code: CodePullFailed, Text: fmt.Sprintf("download stood still for %s", s.limit), Hint: pullHint}
	}
	if err != nil && !errors.Is(err, io.EOF) {
		err = classify(err, CodePullFailed, "download layer")
	}
	return n, err
}

func (s *stallReader) Close() error {
	var err error
	s.once.Do(func() { err = s.r.Close() })
	return err
}
