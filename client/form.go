package client

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"mime/multipart"
	"time"
)

// uploadForm is the multipart form around a file that is streamed. Where the
// session has a key, the form ends with a signature of the file: it is known only
// when the file has been read.
type uploadForm struct {
	before, after []byte
	key           *rsa.PrivateKey // nil: it is not signed
	sign          func(sum [sha256.Size]byte) (string, error)
	signature     int // where in after the signature goes
	content       hash.Hash
}

// newUploadForm makes the form of the call in, whose token it ties to it.
func newUploadForm(in *call, path, mode string) (*uploadForm, error) {
	f := &uploadForm{key: in.key, content: sha256.New()}
	var frame bytes.Buffer
	form := multipart.NewWriter(&frame)
	err := form.WriteField("path", path)
	if err == nil {
		err = form.WriteField("mode", mode)
	}
	if err == nil {
		_, err = form.CreateFormFile("file", formName(path))
	}
	head := frame.Len()
	if err == nil && f.key != nil {
		in.jti = rand.Text()
		jti := in.jti
		f.sign = func(sum [sha256.Size]byte) (string, error) {
			// When it is made, however long the file took; the length stays the same.
			return signForm(f.key, jti, path, mode, sum, time.Now())
		}
		err = f.reserve(form, &frame, head)
	}
	if err == nil {
		err = form.Close()
	}
	if err != nil {
		return nil, err
	}
	in.ctype = form.FormDataContentType()
	f.before, f.after = frame.Bytes()[:head], frame.Bytes()[head:]
	return f, nil
}

// reserve makes room for the signature, which has the length of any other.
func (f *uploadForm) reserve(form *multipart.Writer, frame *bytes.Buffer, head int) error {
	room, err := f.sign([sha256.Size]byte{})
	if err != nil {
		return err
	}
	field, err := form.CreateFormField("signature")
	if err != nil {
		return err
	}
	f.signature = frame.Len() - head
	_, err = io.WriteString(field, room)
	return err
}

// length is that of the form without the file, in bytes.
func (f *uploadForm) length() int64 { return int64(len(f.before) + len(f.after)) }

// around is the form with the file in it.
func (f *uploadForm) around(file io.Reader) io.Reader {
	if f.key == nil {
		return io.MultiReader(bytes.NewReader(f.before), file, bytes.NewReader(f.after))
	}
	return io.MultiReader(bytes.NewReader(f.before), io.TeeReader(file, f.content), &lazyReader{open: f.end})
}

// end is what comes after the file, signed.
func (f *uploadForm) end() (io.Reader, error) {
	signature, err := f.sign([sha256.Size]byte(f.content.Sum(nil)))
	if err != nil {
		return nil, fmt.Errorf("sign form: %w", err)
	}
	copy(f.after[f.signature:], signature)
	return bytes.NewReader(f.after), nil
}

// lazyReader reads from what is made at the first read.
type lazyReader struct {
	open func() (io.Reader, error)
	from io.Reader
}

func (l *lazyReader) Read(p []byte) (int, error) {
	if l.from == nil {
		var err error
		if l.from, err = l.open(); err != nil {
			return 0, err
		}
	}
	return l.from.Read(p)
}
