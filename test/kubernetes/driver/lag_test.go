package driver

import (
	"io"
	"net/http"
	"sync"
	"testing"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// lag holds back what watches bring, until it is told to go on.
type lag struct {
	mu   sync.Mutex
	wait chan struct{} // closed while all goes on
}

// lagging makes a client whose watches can be held back.
func lagging(t *testing.T) (*lag, kubernetes.Interface) {
	t.Helper()
	l := &lag{wait: make(chan struct{})}
	close(l.wait)
	config := rest.CopyConfig(node.config)
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return lagTransport{l, next} })
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.goOn)
	return l, client
}

func (l *lag) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wait = make(chan struct{})
}

func (l *lag) goOn() {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.wait:
	default:
		close(l.wait)
	}
}

func (l *lag) pass() {
	l.mu.Lock()
	wait := l.wait
	l.mu.Unlock()
	<-wait
}

type lagTransport struct {
	*lag
	next http.RoundTripper
}

func (t lagTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := t.next.RoundTrip(req)
	if err == nil && req.URL.Query().Get("watch") != "" {
		resp.Body = lagBody{t.lag, resp.Body}
	}
	return resp, err
}

type lagBody struct {
	*lag
	io.ReadCloser
}

func (b lagBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.pass()
	return n, err
}
