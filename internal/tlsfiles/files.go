package tlsfiles

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"
)

const (
	// lookEvery is how often the files are looked at, while there are handshakes.
	lookEvery = time.Second
	// firstLook is between two looks while they are waited for.
	firstLook = 100 * time.Millisecond
	// defaultWait is how long they are waited for.
	defaultWait = 30 * time.Second
	// maxFile bounds each file, in bytes.
	maxFile = 1 << 20
)

// Config says which files, and who is at the other end.
type Config struct {
	// CertFile and KeyFile hold the certificate, with the chain behind it, and its key,
	// in PEM. A server needs them.
	CertFile, KeyFile string
	// CAFile holds the authorities, in PEM, of the certificates of the other end.
	// Without, a server wants none, and a client trusts the machine's authorities.
	CAFile string
	// Peers are those of whom one has to be at the other end. A server that wants
	// certificates needs some: an authority vouches for many more. Without, a client
	// wants the host that it connects to, by a name.
	Peers []Peer
	// Wait is how long Open waits for files that are not there yet, or do not fit
	// together; 0 means 30 s.
	Wait time.Duration
	// Logger hears when files were exchanged; nil means slog.Default().
	Logger *slog.Logger
}

// Files are certificates as they are now. They are safe for concurrent use.
type Files struct {
	cfg Config
	log *slog.Logger

	mu      sync.Mutex
	looked  time.Time
	current material
	refused [sha256.Size]byte // what was there that did not fit
	told    bool              // that it did not
}

// material is what one look at the files has found.
type material struct {
	sum   [sha256.Size]byte
	cert  *tls.Certificate // nil: none
	roots *x509.CertPool   // nil: the machine's
}

// New makes Files. It does no I/O. The error says that the Config is incomplete.
func New(cfg Config) (*Files, error) {
	if (cfg.CertFile == "") != (cfg.KeyFile == "") {
		return nil, errors.New("use TLS files: a certificate and its key go together")
	}
	if cfg.Wait == 0 {
		cfg.Wait = defaultWait
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	return &Files{cfg: cfg, log: cfg.Logger}, nil
}

// Open reads the files, and waits for a while until they are there.
func (f *Files) Open(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, f.cfg.Wait)
	defer cancel()
	for {
		m, err := f.read()
		if err == nil {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.current, f.looked = m, time.Now()
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("open TLS files: %w (%w)", err, ctx.Err())
		case <-time.After(firstLook):
		}
	}
}

// now is what is used for a handshake.
func (f *Files) now() material {
	f.mu.Lock()
	defer f.mu.Unlock()
	if time.Since(f.looked) < lookEvery {
		return f.current
	}
	f.looked = time.Now()
	m, err := f.read()
	switch {
	case m.sum == f.current.sum:
		f.refused = m.sum
	case err == nil:
		f.current = m
		f.log.Info("TLS files exchanged", "certificate", f.cfg.CertFile, "authorities", f.cfg.CAFile)
	case m.sum != f.refused: // they may be half written
		f.refused, f.told = m.sum, false
	case !f.told:
		f.told = true
		f.log.Error("TLS files cannot be used; those from before go on", "error", err)
	}
	return f.current
}

// read reads all files. With an error it returns the sum of what was there.
func (f *Files) read() (material, error) {
	sum := sha256.New()
	var texts [3][]byte
	var errs []error
	for i, path := range []string{f.cfg.CertFile, f.cfg.KeyFile, f.cfg.CAFile} {
		if path != "" {
			text, err := readBounded(path)
			texts[i], errs = text, append(errs, err)
		}
		fmt.Fprintf(sum, "%d %x\n", i, sha256.Sum256(texts[i]))
	}
	m := material{sum: [sha256.Size]byte(sum.Sum(nil))}
	if err := errors.Join(errs...); err != nil {
		return m, fmt.Errorf("read TLS files: %w", err)
	}
	if f.cfg.CertFile != "" {
		cert, err := tls.X509KeyPair(texts[0], texts[1])
		if err != nil {
			return m, fmt.Errorf("read %s and %s: %w", f.cfg.CertFile, f.cfg.KeyFile, err)
		}
		m.cert = &cert
	}
	if f.cfg.CAFile != "" {
		m.roots = x509.NewCertPool()
		if !m.roots.AppendCertsFromPEM(texts[2]) {
			return m, fmt.Errorf("read %s: it holds no certificate in PEM", f.cfg.CAFile)
		}
	}
	return m, nil
}

func readBounded(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err == nil && len(text) > maxFile {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, maxFile)
	}
	return text, err
}
