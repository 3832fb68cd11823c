package cli

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/volcano-sh/agentcube/client"
)

// maxDepth bounds how deep folders are copied out of a sandbox, whose contents
// are not to be trusted.
const maxDepth = 64

// copier moves files and folders between this machine and a session.
type copier struct {
	a *app
	s *client.Session
}

func newCopier(a *app, s *client.Session) *copier { return &copier{a: a, s: s} }

// splitPair takes "from:to" apart at the last colon; to may be missing.
func splitPair(spec string) (from, to string) {
	if i := strings.LastIndexByte(spec, ':'); i > 0 {
		return spec[:i], spec[i+1:]
	}
	return spec, ""
}

// in copies a local file or folder into the session. A remote that is empty or
// ends in a slash gets the local name; "-" as local is standard input.
func (c *copier) in(ctx context.Context, local, remote string) error {
	if local == "-" {
		if remote == "" || strings.HasSuffix(remote, "/") {
			return &cliError{code: exitUsage, err: errors.New("standard input needs the name of a remote file")}
		}
		return c.upload(ctx, c.a.Stdin, "stdin", remote, client.UploadOptions{Size: client.SizeUnknown})
	}
	info, err := os.Stat(local)
	if err != nil {
		return fmt.Errorf("read %s: %w", local, reason(err))
	}
	if remote == "" || strings.HasSuffix(remote, "/") {
		abs, err := filepath.Abs(local)
		if err != nil {
			return fmt.Errorf("read %s: %w", local, err)
		}
		remote += filepath.Base(abs)
	}
	if !info.IsDir() {
		return c.inFile(ctx, local, remote)
	}
	return filepath.WalkDir(local, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("read %s: %w", p, reason(err))
		}
		rel, err := filepath.Rel(local, p)
		if err != nil {
			return fmt.Errorf("read %s: %w", p, err)
		}
		switch {
		case d.IsDir():
			return nil
		case !d.Type().IsRegular():
			fmt.Fprintf(c.a.Stderr, "agentcube: warning: left out %s: not a regular file\n", printable(p))
			return nil
		}
		return c.inFile(ctx, p, path.Join(remote, filepath.ToSlash(rel)))
	})
}

func (c *copier) inFile(ctx context.Context, local, remote string) error {
	f, err := os.Open(local)
	if err != nil {
		return fmt.Errorf("read %s: %w", local, reason(err))
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("read %s: %w", local, reason(err))
	}
	opts := client.UploadOptions{Mode: info.Mode().Perm(), Size: info.Size()}
	if !info.Mode().IsRegular() {
		opts = client.UploadOptions{Size: client.SizeUnknown}
	}
	return c.upload(ctx, f, local, remote, opts)
}

func (c *copier) upload(ctx context.Context, r io.Reader, label, remote string, opts client.UploadOptions) error {
	bar := c.a.progressBytes("upload "+printable(label), opts.Size)
	defer bar.finish()
	_, err := c.s.Upload(ctx, remote, io.TeeReader(r, bar), opts)
	return err
}

// outAll copies what --out asks for, all of it even when one fails.
func (c *copier) outAll(ctx context.Context, specs []string) error {
	var errs []error
	for _, spec := range specs {
		remote, local := splitPair(spec)
		if err := c.out(ctx, remote, local); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// out copies a file or folder of the session to this machine. A local that is
// empty or a folder gets the remote name; "-" is standard output.
func (c *copier) out(ctx context.Context, remote, local string) error {
	if local == "-" {
		return c.download(ctx, remote, c.a.Stdout)
	}
	base := path.Base(path.Clean("/" + remote))
	if local == "" {
		local = "."
	}
	if info, err := os.Stat(local); strings.HasSuffix(local, "/") || err == nil && info.IsDir() {
		if base == "/" {
			base = ""
		}
		local = filepath.Join(local, base)
	}
	err := c.outFile(ctx, remote, local)
	var apiErr *client.APIError
	if errors.As(err, &apiErr) && apiErr.Status == http.StatusBadRequest {
		// A folder is refused as a file; see whether it is one.
		if entries, lerr := c.s.ListFiles(ctx, remote); lerr == nil {
			return c.outDir(ctx, remote, local, entries, 0)
		}
	}
	return err
}

func (c *copier) outDir(ctx context.Context, remote, local string, entries []client.File, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("copy %s: folders are nested more than %d deep", remote, maxDepth)
	}
	if err := os.MkdirAll(local, 0o777); err != nil {
		return fmt.Errorf("make folder %s: %w", local, reason(err))
	}
	for _, e := range entries {
		// Names come out of the sandbox: one that leads elsewhere is not followed.
		if e.Name == "." || !filepath.IsLocal(e.Name) || strings.ContainsAny(e.Name, `/\`) {
			return fmt.Errorf("copy %s: refused the name %q", remote, e.Name)
		}
		from, to := path.Join(remote, e.Name), filepath.Join(local, e.Name)
		var err error
		switch {
		case e.IsDir:
			var below []client.File
			if below, err = c.s.ListFiles(ctx, from); err == nil {
				err = c.outDir(ctx, from, to, below, depth+1)
			}
		case strings.HasPrefix(e.Mode, "-"):
			err = c.outFile(ctx, from, to)
		default:
			fmt.Fprintf(c.a.Stderr, "agentcube: warning: left out %s: not a regular file\n", printable(from))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// outFile downloads to a file that appears complete or not at all. What is
// there and not a regular file, such as a device, is written to as it is.
func (c *copier) outFile(ctx context.Context, remote, local string) (err error) {
	if target, terr := filepath.EvalSymlinks(local); terr == nil {
		local = target
	}
	if info, serr := os.Stat(local); serr == nil && !info.Mode().IsRegular() {
		f, err := os.OpenFile(local, os.O_WRONLY, 0)
		if err != nil {
			return fmt.Errorf("write %s: %w", local, reason(err))
		}
		return errors.Join(c.download(ctx, remote, f), f.Close())
	}
	tmp := filepath.Join(filepath.Dir(local), "."+rand.Text()+".agentcube-part")
	var f *os.File
	defer func() {
		if f != nil && err != nil {
			_ = f.Close()
			_ = os.Remove(tmp)
		}
	}()
	// Opened at the first byte, so that a missing remote file leaves no trace.
	err = c.downloadTo(ctx, remote, func() (io.Writer, error) {
		var oerr error
		if f, oerr = os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666); oerr != nil {
			return nil, fmt.Errorf("write %s: %w", local, reason(oerr))
		}
		return f, nil
	})
	if err != nil {
		return err
	}
	if err = f.Close(); err == nil {
		err = os.Rename(tmp, local)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", local, reason(err))
	}
	return nil
}

func (c *copier) download(ctx context.Context, remote string, w io.Writer) error {
	return c.downloadTo(ctx, remote, func() (io.Writer, error) { return w, nil })
}

func (c *copier) downloadTo(ctx context.Context, remote string, open func() (io.Writer, error)) error {
	r, info, err := c.s.Download(ctx, remote)
	if err != nil {
		return err
	}
	defer r.Close()
	w, err := open()
	if err != nil {
		return err
	}
	bar := c.a.progressBytes("download "+printable(info.Name), info.Size)
	defer bar.finish()
	if _, err := io.Copy(io.MultiWriter(w, bar), r); err != nil {
		return fmt.Errorf("download %s: %w", remote, err)
	}
	return nil
}
