package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"strings"
	"sync/atomic"
	"time"
)

// SizeUnknown is UploadOptions.Size when the length is not known ahead.
const SizeUnknown = -1

// File describes a file or directory in a session.
type File struct {
	// Name is the last element of the path, in a listing; of an upload, Path
	// is the path relative to the workspace.
	Name string `json:"name"`
	Path string `json:"path,omitempty"`
	// Size is in bytes.
	Size int64 `json:"size"`
	// Mode is as ls prints it, such as "-rw-r--r--".
	Mode     string    `json:"mode"`
	Modified time.Time `json:"modified"`
	IsDir    bool      `json:"is_dir"`
}

// UploadOptions say how to write a file. The zero value has mode 0644 and
// an empty file; say the size, or SizeUnknown.
type UploadOptions struct {
	// Mode is the permissions of the file; 0 means 0644. Only permission bits.
	Mode fs.FileMode
	// Size is how many bytes the reader gives. Another number of bytes fails
	// the upload. SizeUnknown sends the body in chunks.
	Size int64
}

// Upload streams what r gives to a file of the session, making the directories
// above it. An existing file is replaced. remotePath is relative to the
// workspace, or absolute.
func (s *Session) Upload(ctx context.Context, remotePath string, r io.Reader, opts UploadOptions) (File, error) {
	mode := opts.Mode
	if mode == 0 {
		mode = 0o644
	}
	if mode&^fs.ModePerm != 0 {
		return File{}, fmt.Errorf("upload %s: mode %v has more than permission bits", remotePath, mode)
	}
	if opts.Size < SizeUnknown {
		return File{}, fmt.Errorf("upload %s: size %d is negative", remotePath, opts.Size)
	}
	in := s.invocation(http.MethodPost, "api/files")
	form, err := newUploadForm(&in, remotePath, fmt.Sprintf("%04o", mode))
	if err != nil {
		return File{}, fmt.Errorf("upload %s: %w", remotePath, err)
	}
	in.length = SizeUnknown
	if opts.Size != SizeUnknown {
		in.length = form.length() + opts.Size
	}
	ctx, watch := newStall(ctx, s.c.stall)
	defer watch.end()
	src := &source{r: r, left: opts.Size, exact: opts.Size != SizeUnknown, watch: watch}
	in.body = form.around(src)
	var out File
	if err := s.c.sendJSON(ctx, in, &out); err != nil {
		// Not being able to read the file is no fault of the connection.
		if own := src.err.Load(); own != nil && ctx.Err() == nil {
			err = *own
		}
		return File{}, fmt.Errorf("upload %s: %w", remotePath, watch.explain(ctx, in.base, err))
	}
	return out, nil
}

// formName is the file name in the form. The server goes by the path; what may
// not stand in a header, such as control characters, is left out.
func formName(remotePath string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '_'
		}
		return r
	}, path.Base(remotePath))
}

// errOtherSize: the file changed, or the caller named a wrong size.
var errOtherSize = errors.New("the file has another size than announced")

// source is the file of an upload. It remembers its own failure, and fails
// unless the file has exactly the announced size: without that the end of the
// form would be cut off, and a server might accept that.
type source struct {
	r     io.Reader
	left  int64
	exact bool
	err   atomic.Pointer[error]
	watch *stall
}

func (s *source) Read(p []byte) (int, error) {
	// Waiting for the caller's file is not standing still.
	s.watch.stop()
	defer s.watch.start()
	n, err := s.r.Read(p)
	s.left -= int64(n)
	if s.exact && (s.left < 0 || err == io.EOF && s.left != 0) {
		n, err = 0, errOtherSize
	}
	if err != nil && err != io.EOF {
		s.err.Store(&err)
	}
	return n, err
}

// WriteFile writes content to a file of the session with mode 0644.
func (s *Session) WriteFile(ctx context.Context, remotePath string, content []byte) error {
	_, err := s.Upload(ctx, remotePath, bytes.NewReader(content), UploadOptions{Size: int64(len(content))})
	return err
}

// Download streams a file of the session. The caller closes the reader; an
// error of reading means that the file is not complete. File.Size is
// SizeUnknown when the server does not say.
func (s *Session) Download(ctx context.Context, remotePath string) (io.ReadCloser, File, error) {
	// Cleaned, as whoever carries the request may do it, and a signature is of one path.
	in := s.invocation(http.MethodGet, "api/files/"+strings.TrimLeft(path.Clean(remotePath), "/"))
	// Compression on the way would hide the size.
	in.header = http.Header{"Accept-Encoding": {"identity"}}
	ctx, watch := newStall(ctx, s.c.stall)
	resp, err := s.c.send(ctx, in) //nolint:bodyclose // the caller closes what is returned
	if err != nil {
		watch.end()
		return nil, File{}, fmt.Errorf("download %s: %w", remotePath, watch.explain(ctx, in.base, err))
	}
	watch.stop()
	info := File{Name: path.Base(remotePath), Path: remotePath, Size: resp.ContentLength}
	if at, err := http.ParseTime(resp.Header.Get("Last-Modified")); err == nil {
		info.Modified = at
	}
	return &download{ReadCloser: resp.Body, ctx: ctx, base: in.base, stall: watch}, info, nil
}

// ListFiles lists a directory of the session, sorted by name; "" is the
// workspace.
func (s *Session) ListFiles(ctx context.Context, dir string) ([]File, error) {
	if dir == "" {
		dir = "."
	}
	ctx, cancel := control(ctx)
	defer cancel()
	in := s.invocation(http.MethodGet, "api/files")
	in.query = url.Values{"path": {dir}}
	var out struct {
		Files []File `json:"files"`
	}
	if err := s.c.sendJSON(ctx, in, &out); err != nil {
		return nil, fmt.Errorf("list files of %s: %w", dir, err)
	}
	return out.Files, nil
}

// escapePath escapes the elements of a path and keeps the slashes between
// them. Dots are escaped by hand where they alone make an element, as "..",
// left as it is, would be resolved on the way; PicoD decides about it.
func escapePath(p string) string {
	elems := strings.Split(p, "/")
	for i, e := range elems {
		switch e {
		case ".", "..":
			elems[i] = strings.ReplaceAll(e, ".", "%2E")
		default:
			elems[i] = url.PathEscape(e)
		}
	}
	return strings.Join(elems, "/")
}
