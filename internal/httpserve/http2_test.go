package httpserve_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/volcano-sh/agentcube/internal/httpguard"
	"github.com/volcano-sh/agentcube/internal/httpserve"
)

// h2 is an HTTP/2 client that does as it likes.
type h2 struct {
	t    *testing.T
	conn net.Conn
	*http2.Framer
	next uint32
	says map[http2.SettingID]uint32 // the server
}

func newH2(t *testing.T, addr string, settings ...http2.Setting) *h2 {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(guard)); err != nil {
		t.Fatal(err)
	}
	c := &h2{t: t, conn: conn, Framer: http2.NewFramer(conn, conn), next: 1}
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	if err := c.WriteSettings(settings...); err != nil {
		t.Fatal(err)
	}
	c.says = map[http2.SettingID]uint32{}
	err = c.await(func(f http2.Frame) bool {
		s, ok := f.(*http2.SettingsFrame)
		if !ok || s.IsAck() {
			return false
		}
		return s.ForeachSetting(func(s http2.Setting) error { c.says[s.ID] = s.Val; return nil }) == nil
	})
	if err == nil {
		err = c.WriteSettingsAck()
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// open begins a request and returns its stream.
func (c *h2) open(method string, endStream bool) (uint32, error) {
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, f := range []hpack.HeaderField{
		{Name: ":method", Value: method}, {Name: ":scheme", Value: "http"}, {Name: ":authority", Value: "localhost"}, {Name: ":path", Value: "/"},
	} {
		if err := enc.WriteField(f); err != nil {
			c.t.Fatal(err)
		}
	}
	id := c.next
	c.next += 2
	return id, c.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block.Bytes(), EndStream: endStream, EndHeaders: true})
}

// await reads frames until one is what is looked for, or the connection ends.
func (c *h2) await(found func(http2.Frame) bool) error {
	for {
		f, err := c.ReadFrame()
		if err != nil {
			return err
		}
		if found(f) {
			return nil
		}
	}
}

// TestHTTP2Resets: a client that opens streams and resets them at once, many
// thousands of them, has no more handlers than streams at a time, is told to stop,
// and others are served.
func TestHTTP2Resets(t *testing.T) {
	t.Parallel()
	var running, most, begun atomic.Int64
	release := make(chan struct{})
	addr := serveHostile(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor == 1 {
			return
		}
		begun.Add(1)
		n := running.Add(1)
		defer running.Add(-1)
		for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
		}
		<-release
	}), httpguard.Pace{}, func(s *httpserve.Server) { s.MaxConnections = 1000 })
	c := newH2(t, addr)
	ended := make(chan error, 1)
	go func() {
		ended <- c.await(func(f http2.Frame) bool {
			away, ok := f.(*http2.GoAwayFrame)
			return ok && away.ErrCode == http2.ErrCodeEnhanceYourCalm
		})
	}()
	for range 20_000 {
		id, err := c.open("GET", true)
		if err == nil {
			err = c.WriteRSTStream(id, http2.ErrCodeCancel)
		}
		if err != nil {
			break // it has hung up
		}
	}
	// The end may have come before its reason could be read.
	if ne, ok := errors.AsType[net.Error](<-ended); ok && ne.Timeout() {
		t.Errorf("the client was not told to stop: %v", ne)
	}
	if n := most.Load(); n > 100 {
		t.Errorf("%d handlers at a time", n)
	}
	if status, _, err := get(t, client(), "http://"+addr); err != nil || status != 200 {
		t.Errorf("others got %d, %v", status, err)
	}
	close(release)
	if n := begun.Load(); n == 0 || n > 100 {
		t.Errorf("%d requests were begun", n)
	}
}

// TestHTTP2SlowBody: in HTTP/2 a body has to get on too.
func TestHTTP2SlowBody(t *testing.T) {
	t.Parallel()
	read := make(chan error, 1)
	addr := serveHostile(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, err := io.ReadAll(r.Body)
		read <- err
	}), hasty, nil)
	c := newH2(t, addr)
	id, err := c.open("POST", false)
	if err == nil {
		err = c.WriteData(id, false, []byte("begun"))
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := <-read; !errors.Is(err, httpguard.ErrStalled) {
		t.Errorf("reading ended with %v", err)
	}
}

// TestHTTP2SlowReader: a client that lets no answer through holds no handler.
func TestHTTP2SlowReader(t *testing.T) {
	t.Parallel()
	sent := make(chan error, 1)
	addr := serveHostile(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, err := w.Write(make([]byte, 64<<10))
		sent <- err
	}), hasty, nil)
	c := newH2(t, addr, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	id, err := c.open("GET", true)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.await(func(f http2.Frame) bool { _, ok := f.(*http2.RSTStreamFrame); return ok && f.Header().StreamID == id }); err != nil {
		t.Errorf("the stream was not reset: %v", err)
	}
	if err := <-sent; err == nil {
		t.Error("a window of no bytes let an answer through")
	}
}

// TestHTTP2LongAnswer: an answer that comes little by little outlives every window.
func TestHTTP2LongAnswer(t *testing.T) {
	t.Parallel()
	pace := httpguard.Pace{Window: time.Second, Bytes: 1 << 10}
	addr := serveHostile(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		for range 3 {
			time.Sleep(pace.Window + pace.Window/4)
			_, _ = io.WriteString(w, "x")
			_ = http.NewResponseController(w).Flush()
		}
	}), pace, nil)
	var p http.Protocols
	p.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: &p}
	defer transport.CloseIdleConnections()
	status, body, err := get(t, &http.Client{Transport: transport, Timeout: guard}, "http://"+addr)
	if err != nil || status != 200 || body != "xxx" {
		t.Errorf("got %d %q, %v", status, body, err)
	}
}

// TestHTTP2Bounds: the server says how much it takes of one connection.
func TestHTTP2Bounds(t *testing.T) {
	t.Parallel()
	addr := serveHostile(t, http.HandlerFunc(httpserve.NotFound), httpguard.Pace{}, nil)
	got := newH2(t, addr).says
	for id, want := range map[http2.SettingID]uint32{
		http2.SettingMaxConcurrentStreams: 100, http2.SettingMaxFrameSize: 64 << 10, http2.SettingInitialWindowSize: 128 << 10, http2.SettingHeaderTableSize: 4 << 10,
	} {
		if v, ok := got[id]; ok && v > want || !ok && id != http2.SettingHeaderTableSize {
			t.Errorf("%v is %d, want at most %d", id, v, want)
		}
	}
	if n := got[http2.SettingMaxHeaderListSize]; n == 0 || n > 128<<10 {
		t.Errorf("headers may have %d bytes", n)
	}
}
