package picod

import (
	"io"
	"net/http"
	"time"
)

// stall is how long a transfer may stand still before the connection is given
// up. There is no limit on how long one may take in all.
const stall = 60 * time.Second

// pieceSize is how much is sent at a time when a file is.
const pieceSize = 1 << 20

// progressReader gives up on a client that stops sending.
type progressReader struct {
	io.ReadCloser
	control *http.ResponseController
}

// Read implements io.Reader. At the end of the body the deadline is taken off,
// because the connection is then only watched for the client's leaving.
func (r *progressReader) Read(p []byte) (int, error) {
	_ = r.control.SetReadDeadline(time.Now().Add(stall)) // not every connection has one
	n, err := r.ReadCloser.Read(p)
	if err != nil {
		_ = r.control.SetReadDeadline(time.Time{})
	}
	return n, err
}

// progressWriter gives up on a client that stops receiving.
type progressWriter struct {
	http.ResponseWriter
	control *http.ResponseController
	file    bool // the connection is one that the kernel can send files on
}

// Write implements io.Writer.
func (w *progressWriter) Write(p []byte) (int, error) {
	_ = w.control.SetWriteDeadline(time.Now().Add(stall))
	return w.ResponseWriter.Write(p)
}

// ReadFrom keeps the kernel's own way of sending a file, in pieces, each of
// which has its deadline.
func (w *progressWriter) ReadFrom(from io.Reader) (int64, error) {
	to, ok := w.ResponseWriter.(io.ReaderFrom)
	if !ok || !w.file {
		return io.CopyBuffer(struct{ io.Writer }{w}, from, make([]byte, copySize))
	}
	piece := &io.LimitedReader{R: from}
	limited, isLimited := from.(*io.LimitedReader)
	if isLimited {
		piece.R = limited.R // sending from a file sees through one limit only
	}
	var total int64
	for {
		piece.N = pieceSize
		if isLimited {
			piece.N = min(piece.N, limited.N)
		}
		want := piece.N
		_ = w.control.SetWriteDeadline(time.Now().Add(stall))
		n, err := to.ReadFrom(piece)
		total += n
		if isLimited {
			limited.N -= n
		}
		if err != nil || n < want || want == 0 {
			return total, err
		}
	}
}
