package tlsfiles_test

import (
	"crypto/tls"
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"github.com/volcano-sh/agentcube/internal/tlsfiles"
)

const (
	router  = "spiffe://cluster.local/ns/agentcube/sa/router"
	manager = "spiffe://cluster.local/ns/agentcube/sa/manager"
)

func only(usage x509.ExtKeyUsage) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{usage} }
}

func expired(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }

func makesOthers(c *x509.Certificate) { c.IsCA, c.KeyUsage = true, c.KeyUsage|x509.KeyUsageCertSign }

// TestServer: whom a server lets in that is told which clients there are.
func TestServer(t *testing.T) {
	t.Parallel()
	ca, other := newAuthority(t), newAuthority(t)
	server := newFiles(t, ca.issue(nil, "localhost"), ca.pem(), router, "cli.example")
	address := server.serve(t)
	for _, test := range []struct {
		name   string
		client pair
		ok     bool
	}{
		{"the Router", ca.issue(nil, router), true},
		{"by the name of a host", ca.issue(nil, "cli.example"), true},
		{"one that is a client alone", ca.issue(only(x509.ExtKeyUsageClientAuth), router), true},
		{"another workload", ca.issue(nil, manager), false},
		{"another domain", ca.issue(nil, "spiffe://cluster.other/ns/agentcube/sa/router"), false},
		{"one below", ca.issue(nil, router+"/x"), false},
		{"one of two names", ca.issue(nil, router, manager), false},
		{"another host", ca.issue(nil, "cli.example.org"), false},
		{"no name", ca.issue(nil), false},
		{"the name as common name", ca.issue(func(c *x509.Certificate) { c.Subject.CommonName = "cli.example" }), false},
		{"the name as that of a host", ca.issue(func(c *x509.Certificate) { c.DNSNames = []string{router} }), false},
		{"one that makes others", ca.issue(makesOthers, router), false},
		{"a server", ca.issue(only(x509.ExtKeyUsageServerAuth), router), false},
		{"one that has expired", ca.issue(expired, router), false},
		{"of another authority", other.issue(nil, router), false},
		{"nobody", pair{}, false},
	} {
		client := newFiles(t, test.client, ca.pem())
		if _, err := connect(t.Context(), address, client.Client()); (err == nil) != test.ok {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}

// TestClient: which servers a client talks to.
func TestClient(t *testing.T) {
	t.Parallel()
	ca, other := newAuthority(t), newAuthority(t)
	for _, test := range []struct {
		name   string
		server pair
		peers  []tlsfiles.Peer
		ok     bool
	}{
		{"the host that it connects to", ca.issue(nil, "localhost"), nil, true},
		{"another host", ca.issue(nil, "cube.example"), nil, false},
		{"the name as common name", ca.issue(nil), nil, false},
		{"the Workload Manager", ca.issue(nil, manager), []tlsfiles.Peer{manager}, true},
		{"the Router", ca.issue(nil, router), []tlsfiles.Peer{manager}, false},
		{"the host, which is not wanted", ca.issue(nil, "localhost"), []tlsfiles.Peer{manager}, false},
		{"another host, which is wanted", ca.issue(nil, "cube.example"), []tlsfiles.Peer{manager, "cube.example"}, true},
		{"one that makes others", ca.issue(makesOthers, manager), []tlsfiles.Peer{manager}, false},
		{"a client", ca.issue(only(x509.ExtKeyUsageClientAuth), "localhost"), nil, false},
		{"one that has expired", ca.issue(expired, "localhost"), nil, false},
		{"of another authority", other.issue(nil, "localhost"), nil, false},
	} {
		address := newFiles(t, test.server, nil).serve(t)
		client := newFiles(t, pair{}, ca.pem(), test.peers...)
		if _, err := connect(t.Context(), address, client.Client()); (err == nil) != test.ok {
			t.Errorf("%s: %v", test.name, err)
		}
	}
	address := newFiles(t, ca.issue(nil, "localhost"), nil).serve(t)
	if _, err := connect(t.Context(), address, newFiles(t, pair{}, nil).Client()); err == nil {
		t.Error("an authority is trusted that the machine does not know")
	}
}

// TestChain: a certificate of an authority in between is good if that comes along.
func TestChain(t *testing.T) {
	t.Parallel()
	root := newAuthority(t)
	between := root.under()
	server, client := between.issue(nil, "localhost"), between.issue(nil, router)
	chained := func(p pair) pair { return pair{append(p.cert, between.pem()...), p.key} }
	for _, test := range []struct {
		name           string
		server, client pair
		ok             bool
	}{
		{"with both", chained(server), chained(client), true},
		{"the server's alone", chained(server), client, false},
		{"the client's alone", server, chained(client), false},
	} {
		address := newFiles(t, test.server, root.pem(), router).serve(t)
		if _, err := connect(t.Context(), address, newFiles(t, test.client, root.pem()).Client()); (err == nil) != test.ok {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}

// TestVersions: nothing older than TLS 1.3 is spoken.
func TestVersions(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	address := newFiles(t, ca.issue(nil, "localhost"), nil).serve(t)
	client := newFiles(t, pair{}, ca.pem()).Client()
	old := client.Clone()
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	if _, err := connect(t.Context(), address, old); err == nil {
		t.Error("the server speaks TLS 1.2")
	}
	own := ca.issue(nil, "localhost")
	cert, err := tls.X509KeyPair(own.cert, own.key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := connect(t.Context(), serve(t, &tls.Config{Certificates: []tls.Certificate{cert}, MaxVersion: tls.VersionTLS12}), client); err == nil {
		t.Error("the client speaks TLS 1.2")
	}
}

// TestNotResumed: each connection shows its certificates, also where a client would
// resume one.
func TestNotResumed(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	address := newFiles(t, ca.issue(nil, "localhost"), ca.pem(), router).serve(t)
	client := newFiles(t, ca.issue(nil, router), ca.pem()).Client()
	client.ClientSessionCache = tls.NewLRUClientSessionCache(8)
	for range 3 {
		if state, err := connect(t.Context(), address, client); err != nil || state.DidResume {
			t.Errorf("resumed: %v, %v", state.DidResume, err)
		}
	}
}

func TestParsePeer(t *testing.T) {
	t.Parallel()
	for text, ok := range map[string]bool{
		router:                                         true,
		"spiffe://a.b-c_d/x":                           true,
		"cube.example":                                 true,
		"localhost":                                    true,
		"spiffe://cluster.local":                       false,
		"spiffe://cluster.local/":                      false,
		"spiffe://cluster.local/a/":                    false,
		"spiffe://cluster.local/a//b":                  false,
		"spiffe://cluster.local/../b":                  false,
		"spiffe://cluster.local/a?b":                   false,
		"spiffe://Cluster.local/a":                     false,
		"spiffe://cluster.local:80/a":                  false,
		"spiffe:///a":                                  false,
		"spiffe://" + strings.Repeat("a", 2048) + "/a": false,
		"https://cube.example":                         false,
		"*.example":                                    false,
		"cube.example.":                                false,
		"":                                             false,
	} {
		if got, err := tlsfiles.ParsePeer(text); (err == nil) != ok || ok && string(got) != text {
			t.Errorf("%q = %q, %v", text, got, err)
		}
	}
}

// TestConfig: a server that could let in anybody, or nobody, is none.
func TestConfig(t *testing.T) {
	t.Parallel()
	for i, cfg := range []tlsfiles.Config{
		{}, {CertFile: "a", KeyFile: "b", CAFile: "c"}, {CertFile: "a", KeyFile: "b", Peers: []tlsfiles.Peer{router}}, {CAFile: "c"},
	} {
		f, err := tlsfiles.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Server(); err == nil {
			t.Errorf("%d: it serves", i)
		}
	}
	for _, cfg := range []tlsfiles.Config{{CertFile: "a"}, {KeyFile: "b"}} {
		if _, err := tlsfiles.New(cfg); err == nil {
			t.Errorf("%+v is taken", cfg)
		}
	}
}
