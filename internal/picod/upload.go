package picod

import (
	"bufio"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"mime/multipart"
	"net/http"
	"strconv"
	"time"

	"github.com/volcano-sh/agentcube/internal/httpguard"
	"github.com/volcano-sh/agentcube/internal/picod/jail"
	"github.com/volcano-sh/agentcube/internal/picod/token"
)

const (
	maxFields     = 32   // parts of a multipart body
	maxFieldBytes = 8192 // of a part that is not the file
	// maxSignature bounds the field "signature": a path that is as long as may be is
	// six times longer in JSON, and a third more in base64.
	maxSignature = 80 << 10
	copySize     = 256 << 10
)

type uploadResponse struct {
	Path     string `json:"path"`
	Size     int64  `json:"size"`
	Mode     string `json:"mode"`
	Modified string `json:"modified"`
}

// upload writes one file.
func (q *request) upload() *problem {
	if q.isMultipart() {
		return q.uploadMultipart()
	}
	return q.uploadJSON()
}

func (q *request) uploadJSON() *problem {
	var in struct {
		Path    string  `json:"path"`
		Content *string `json:"content"`
		Mode    string  `json:"mode"`
	}
	if p := q.readJSON(&in); p != nil {
		return p
	}
	if in.Path == "" {
		return fault(http.StatusBadRequest, "MISSING_PATH", "Invalid request body: path is required")
	}
	if in.Content == nil {
		return fault(http.StatusBadRequest, "MISSING_CONTENT", "Invalid request body: content is required")
	}
	content, err := base64.StdEncoding.DecodeString(*in.Content)
	if err != nil {
		return fault(http.StatusBadRequest, "INVALID_CONTENT", "Failed to decode content: "+err.Error())
	}
	rel, err := q.ws.Rel(in.Path)
	if err != nil {
		return badPath(err, "File")
	}
	file, err := q.ws.Create(rel)
	if err != nil {
		return badTarget(err)
	}
	defer file.Discard()
	if _, err := file.Write(content); err != nil {
		return badTarget(err)
	}
	return q.commit(file, rel, in.Mode)
}

// commit puts a complete file in its place and answers.
func (q *request) commit(file *jail.Pending, rel, mode string) *problem {
	info, err := file.Commit(rel, parseMode(mode))
	if err != nil {
		return badTarget(err)
	}
	q.reply(http.StatusOK, false, uploadResponse{
		Path: rel, Size: info.Size(), Mode: info.Mode().String(), Modified: info.ModTime().UTC().Format(time.RFC3339),
	})
	return nil
}

// parseMode reads an octal mode. Like in the original, one that cannot be used
// means 0644; nil means that none was given.
func parseMode(text string) *fs.FileMode {
	if text == "" {
		return nil
	}
	mode := fs.FileMode(0o644)
	if n, err := strconv.ParseUint(text, 8, 32); err == nil && n <= 0o777 {
		mode = fs.FileMode(n)
	}
	return &mode
}

// badTarget is badPath for something that is written.
func badTarget(err error) *problem {
	if errors.Is(err, jail.ErrIsDir) {
		return fault(http.StatusInternalServerError, "PATH_IS_DIRECTORY", "Failed to write file: the path is a directory")
	}
	return badPath(err, "File")
}

// form is a multipart upload while it arrives.
type form struct {
	q          *request
	body       *boundedBody
	path, mode string
	signature  string // of the form, by the session's key
	signed     bool   // there has to be one
	rel        string
	file       *jail.Pending
	content    hash.Hash // of the file, if it is signed
}

// uploadMultipart streams the file part to a temporary file, and puts it in its
// place when the whole body has come and is the one that was signed.
func (q *request) uploadMultipart() *problem {
	claims, p := q.authorize()
	if p != nil {
		return p
	}
	f := &form{q: q, signed: claims.SignedForm(), content: sha256.New(), body: &boundedBody{from: q.r.Body, left: q.limit(), sum: sha256.New(), hashed: claims.HasBody}}
	defer func() {
		if f.file != nil {
			f.file.Discard()
		}
	}()
	q.r.Body = bufferedBody{bufio.NewReaderSize(f.body, copySize), f.body}
	parts, err := q.r.MultipartReader()
	if err != nil {
		return fault(http.StatusBadRequest, "INVALID_REQUEST", "Failed to get file: "+err.Error())
	}
	if p := f.receive(parts); p != nil {
		return p
	}
	q.note.form(f)
	if p := f.verify(claims); p != nil {
		return p
	}
	if f.path == "" {
		return fault(http.StatusBadRequest, "MISSING_PATH", "Missing 'path' field")
	}
	if f.file == nil {
		return fault(http.StatusBadRequest, "MISSING_FILE", "Failed to get file: no 'file' field in the form")
	}
	return q.commit(f.file, f.rel, f.mode)
}

// verify checks that the form is the one that was signed.
func (f *form) verify(claims token.Claims) *problem {
	var err error
	switch {
	case !f.signed:
		err = claims.CheckBody(hex.EncodeToString(f.body.sum.Sum(nil)))
	case f.signature == "":
		return refused(fmt.Errorf("%w: JWT verification failed: the form has no field %q", token.ErrInvalidToken, "signature"))
	default:
		err = f.q.gate.VerifyForm(claims, f.signature, token.Content{
			Path: f.path, Mode: f.mode, SHA256: hex.EncodeToString(f.content.Sum(nil)),
		})
	}
	if err != nil {
		return refused(err)
	}
	return nil
}

// receive takes all parts, and the rest of the body, so that its hash is known.
func (f *form) receive(parts *multipart.Reader) *problem {
	for n := 0; ; n++ {
		part, err := parts.NextPart()
		if err == io.EOF {
			if _, err := io.Copy(io.Discard, f.q.r.Body); err != nil {
				return f.broken(err)
			}
			return nil
		}
		if err != nil {
			return f.broken(err)
		}
		if n == maxFields {
			return fault(http.StatusBadRequest, "INVALID_REQUEST", "Failed to get file: too many fields in the form")
		}
		if p := f.take(part); p != nil {
			return p
		}
	}
}

func (f *form) take(part *multipart.Part) *problem {
	var err error
	switch name := part.FormName(); {
	case name == "file" && f.file == nil:
		return f.takeFile(part)
	case name == "path" && f.path == "":
		if f.path, err = f.field(part, maxFieldBytes); err == nil && f.path != "" {
			if f.rel, err = f.q.ws.Rel(f.path); err != nil {
				return badPath(err, "File")
			}
		}
	case name == "mode" && f.mode == "":
		f.mode, err = f.field(part, maxFieldBytes)
	case name == "signature" && f.signature == "":
		f.signature, err = f.field(part, maxSignature)
	default:
		_, err = io.Copy(io.Discard, part)
	}
	if err != nil {
		return f.broken(err)
	}
	return nil
}

// field reads a short part.
func (f *form) field(part io.Reader, longest int64) (string, error) {
	text, err := io.ReadAll(io.LimitReader(part, longest+1))
	if err == nil && int64(len(text)) > longest {
		err = errors.New("field is too long")
	}
	return string(text), err
}

// takeFile streams the file to the directory it will be in or, when the form
// does not say yet which that is, to the workspace.
func (f *form) takeFile(part io.Reader) *problem {
	if f.path != "" && f.rel == "." {
		return badTarget(jail.ErrIsDir)
	}
	var err error
	if f.file, err = f.q.ws.Create(f.rel); err != nil {
		return badTarget(err)
	}
	// The parts of a form come in pieces of 4 KiB at most, and each write is a
	// system call.
	var into io.Writer = fileWriter{f.file}
	if f.signed {
		into = io.MultiWriter(into, f.content)
	}
	to := bufio.NewWriterSize(into, copySize)
	_, err = io.Copy(struct{ io.Writer }{to}, part)
	if err == nil {
		err = to.Flush()
	}
	if err != nil {
		if write, ok := errors.AsType[*writeError](err); ok {
			return badTarget(write.error)
		}
		return f.broken(err)
	}
	return nil
}

// broken says why a body could not be read.
func (f *form) broken(err error) *problem {
	if f.body.over {
		return f.q.tooLarge()
	}
	if errors.Is(err, httpguard.ErrStalled) {
		return stalled()
	}
	return fault(http.StatusBadRequest, "INVALID_REQUEST", fmt.Sprintf("Failed to get file: %v", err))
}

// writeError tells a failed write from a failed read of the same copy.
type writeError struct{ error }

type fileWriter struct{ to io.Writer }

func (w fileWriter) Write(b []byte) (int, error) {
	n, err := w.to.Write(b)
	if err != nil {
		return n, &writeError{err}
	}
	return n, nil
}

// bufferedBody reads a body in large pieces; the parts of a form are read in pieces
// of 4 KiB, each of which would set a deadline.
type bufferedBody struct {
	*bufio.Reader
	io.Closer
}

// boundedBody hashes what is read, if somebody is to compare the hash, and ends a
// body that is too long.
type boundedBody struct {
	from   io.ReadCloser
	left   int64
	sum    hash.Hash
	hashed bool
	over   bool
}

func (b *boundedBody) Read(p []byte) (int, error) {
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.from.Read(p)
	if int64(n) > b.left {
		b.over = true
		return 0, errors.New("body is too large")
	}
	b.left -= int64(n)
	if b.hashed {
		b.sum.Write(p[:n])
	}
	return n, err
}

func (b *boundedBody) Close() error { return b.from.Close() }
