package tlsfiles_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/volcano-sh/agentcube/internal/tlsfiles"
)

// TestExchanged: new files are used, however they have come, and connections work all
// the while.
func TestExchanged(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	for name, exchange := range map[string]func(dir string, p pair){
		"written in place": func(dir string, p pair) {
			write(t, filepath.Join(dir, "cert"), p.cert)
			write(t, filepath.Join(dir, "key"), p.key)
		},
		"renamed": func(dir string, p pair) {
			write(t, filepath.Join(dir, "cert.new"), p.cert)
			write(t, filepath.Join(dir, "key.new"), p.key)
			rename(t, filepath.Join(dir, "cert.new"), filepath.Join(dir, "cert"))
			rename(t, filepath.Join(dir, "key.new"), filepath.Join(dir, "key"))
		},
		"as Kubernetes does it": func(dir string, p pair) { mount(t, dir, "..2", p) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, said := t.TempDir(), &log{}
			mount(t, dir, "..1", ca.issue(nil, "localhost"))
			server := &files{dir: dir, log: said}
			server.Files = open(t, tlsfiles.Config{CertFile: filepath.Join(dir, "cert"), KeyFile: filepath.Join(dir, "key"), Logger: said.logger()})
			address, client := server.serve(t), newFiles(t, pair{}, ca.pem()).Client()
			serial := func() string {
				state, err := connect(t.Context(), address, client)
				if err != nil {
					t.Fatal(err)
				}
				return state.PeerCertificates[0].SerialNumber.String()
			}
			first := serial()
			exchange(dir, ca.issue(nil, "localhost"))
			eventually(t, "the new certificate is shown", func() bool { return serial() != first })
			if said.count("TLS files exchanged") != 1 || said.count("ERROR") != 0 {
				t.Errorf("it is logged:\n%s", said.text.String())
			}
		})
	}
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

// mount lays out a folder as Kubernetes mounts a Secret, or exchanges what is there:
// each file is a link into a folder, which is a link that is swapped.
func mount(t *testing.T, dir, version string, p pair) {
	t.Helper()
	if err := os.Mkdir(filepath.Join(dir, version), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, version, "cert"), p.cert)
	write(t, filepath.Join(dir, version, "key"), p.key)
	link := func(to, name string) {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrExist) {
			t.Fatal(err)
		}
	}
	link(version, "..data_tmp")
	rename(t, filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data"))
	link("..data/cert", "cert")
	link("..data/key", "key")
}

// TestAuthorityExchanged: clients of the old authority are refused, those of the new
// one are let in.
func TestAuthorityExchanged(t *testing.T) {
	t.Parallel()
	before, after := newAuthority(t), newAuthority(t)
	server := newFiles(t, before.issue(nil, "localhost"), before.pem(), router)
	address := server.serve(t)
	old, fresh := newFiles(t, before.issue(nil, router), before.pem()), newFiles(t, after.issue(nil, router), before.pem())
	try := func(f *files) error {
		_, err := connect(t.Context(), address, f.Client())
		return err
	}
	if err := try(old); err != nil {
		t.Fatal(err)
	}
	if try(fresh) == nil {
		t.Error("a client of an authority that is not there yet is let in")
	}
	write(t, filepath.Join(server.dir, "ca"), after.pem())
	eventually(t, "a client of the new authority is let in", func() bool { return try(fresh) == nil })
	if try(old) == nil {
		t.Error("a client of the old authority is let in")
	}
	// And a client's own: it takes the server for nobody any more.
	write(t, filepath.Join(fresh.dir, "ca"), after.pem())
	eventually(t, "the server is not known", func() bool { return try(fresh) != nil })
}

// TestBroken: what does not fit together changes nothing, is said once, and is forgotten
// when it fits.
func TestBroken(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	server := newFiles(t, ca.issue(nil, "localhost"), ca.pem(), router)
	address, client := server.serve(t), newFiles(t, ca.issue(nil, router), ca.pem()).Client()
	const complaint = "TLS files cannot be used"
	next := ca.issue(nil, "localhost")
	said := 0
	for name, change := range map[string]func(){
		"a certificate of another key": func() { write(t, filepath.Join(server.dir, "cert"), next.cert) },
		"half a certificate":           func() { write(t, filepath.Join(server.dir, "cert"), next.cert[:100]) },
		"no authorities":               func() { write(t, filepath.Join(server.dir, "ca"), []byte("none\n")) },
		"too much":                     func() { write(t, filepath.Join(server.dir, "ca"), bytes.Repeat(ca.pem(), 4000)) },
		"nothing": func() {
			if err := os.Remove(filepath.Join(server.dir, "key")); err != nil {
				t.Fatal(err)
			}
		},
	} {
		change()
		said++
		eventually(t, name+": it is said", func() bool {
			if _, err := connect(t.Context(), address, client); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			return server.log.count(complaint) == said
		})
		was := server.log.count("TLS files exchanged")
		next = ca.issue(nil, "localhost")
		write(t, filepath.Join(server.dir, "cert"), next.cert)
		write(t, filepath.Join(server.dir, "key"), next.key)
		write(t, filepath.Join(server.dir, "ca"), ca.pem())
		eventually(t, name+": what fits is used", func() bool {
			_, err := connect(t.Context(), address, client)
			return err == nil && server.log.count("TLS files exchanged") > was
		})
		next = ca.issue(nil, "localhost")
	}
	if n := server.log.count(complaint); n != said {
		t.Errorf("it is said %d times, want %d", n, said)
	}
}

// TestWait: files that are not there yet are waited for, and not for ever.
func TestWait(t *testing.T) {
	t.Parallel()
	ca, dir := newAuthority(t), t.TempDir()
	cfg := tlsfiles.Config{CertFile: filepath.Join(dir, "cert"), KeyFile: filepath.Join(dir, "key"), Wait: time.Millisecond}
	f, err := tlsfiles.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Open(t.Context()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without files: %v", err)
	}
	cfg.Wait = guard
	if f, err = tlsfiles.New(cfg); err != nil {
		t.Fatal(err)
	}
	opened := make(chan error)
	go func() { opened <- f.Open(t.Context()) }()
	p := ca.issue(nil, "localhost")
	write(t, cfg.CertFile, p.cert)
	select {
	case err := <-opened:
		t.Errorf("with half of them: %v", err)
	case <-time.After(10 * time.Millisecond):
	}
	write(t, cfg.KeyFile, p.key)
	if err := <-opened; err != nil {
		t.Errorf("with both: %v", err)
	}
}
