package bench

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/volcano-sh/agentcube/client"
)

// transferBytes is the size of the file that is moved.
const transferBytes = 64 << 20

// transfers measures moving a file into a session and out of it.
func (r *runner) transfers(ctx context.Context) (_ []Result, err error) {
	if err := r.prepare(ctx, r.Plain); err != nil {
		return nil, err
	}
	s, remove, err := r.session(ctx, r.Plain)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, remove()) }()
	plain, stop, err := startPlainServer(ctx, r.dir)
	if err != nil {
		return nil, err
	}
	defer stop()
	content := make([]byte, transferBytes)
	if _, err := rand.Read(content); err != nil {
		return nil, fmt.Errorf("make content: %w", err)
	}
	const name = "bench.bin"
	err = r.take(ctx, min(r.N, heavyRuns), 1, nil,
		r.timed(Upload, func(ctx context.Context) error {
			_, err := s.Upload(ctx, name, bytes.NewReader(content), client.UploadOptions{Size: transferBytes})
			return err
		}),
		r.timed("put", func(ctx context.Context) error { return plain.put(ctx, content) }),
		r.timed(Download, func(ctx context.Context) error {
			body, _, err := s.Download(ctx, name)
			if err != nil {
				return err
			}
			return drain(body)
		}),
		r.timed("get", plain.get),
	)
	if err != nil {
		return nil, err
	}
	up := newResult(Upload, "ms", 1, r.samples[Upload], refLocalHTTP, r.samples["put"])
	down := newResult(Download, "ms", 1, r.samples[Download], refLocalHTTP, r.samples["get"])
	return []Result{up, down}, nil
}

// drain reads a body to its end and checks that it is all there.
func drain(body io.ReadCloser) error {
	defer body.Close()
	n, err := io.Copy(io.Discard, body)
	if err != nil {
		return fmt.Errorf("read download: %w", err)
	}
	if n != transferBytes {
		return fmt.Errorf("read download: %d bytes of %d", n, transferBytes)
	}
	return nil
}

// plainServer is the reference: net/http on loopback in front of one file.
type plainServer struct {
	url    string
	file   string
	client *http.Client
}

func startPlainServer(ctx context.Context, dir string) (*plainServer, func(), error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, fmt.Errorf("start reference server: %w", err)
	}
	p := &plainServer{
		url: "http://" + l.Addr().String() + "/", file: filepath.Join(dir, "reference.bin"),
		client: &http.Client{Transport: &http.Transport{}},
	}
	srv := &http.Server{Handler: p, ReadHeaderTimeout: 10 * time.Second}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(l)
	}()
	return p, func() {
		p.client.CloseIdleConnections()
		_ = srv.Close()
		<-done
	}, nil
}

// ServeHTTP stores or serves the file.
func (p *plainServer) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if req.Method == http.MethodGet {
		http.ServeFile(w, req, p.file)
		return
	}
	f, err := os.Create(p.file)
	if err == nil {
		_, err = io.Copy(f, io.LimitReader(req.Body, transferBytes))
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

func (p *plainServer) put(ctx context.Context, content []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, p.url, bytes.NewReader(content))
	if err != nil {
		return fmt.Errorf("upload to reference server: %w", err)
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return fmt.Errorf("upload to reference server: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("upload to reference server: %s", resp.Status)
	}
	return nil
}

func (p *plainServer) get(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url, nil)
	if err != nil {
		return fmt.Errorf("download from reference server: %w", err)
	}
	resp, err := p.client.Do(req) //nolint:bodyclose // drain closes it
	if err != nil {
		return fmt.Errorf("download from reference server: %w", err)
	}
	return drain(resp.Body)
}
