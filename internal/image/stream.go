package image

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"math"

	"github.com/klauspost/compress/zstd"
)

// decompress returns the plain bytes of r, whatever it is packed with, and
// whether it was packed at all. Closing the result does not close r.
func decompress(r io.Reader) (io.ReadCloser, bool, error) {
	br := bufio.NewReaderSize(r, 64<<10)
	magic, err := br.Peek(4)
	if err != nil && err != io.EOF {
		return nil, false, err
	}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		gz, err := gzip.NewReader(br)
		return gz, true, err
	case bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		// One goroutine, and no window that a frame could use to take all memory.
		dec, err := zstd.NewReader(br, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(128<<20))
		if err != nil {
			return nil, true, err
		}
		return dec.IOReadCloser(), true, nil
	default:
		return io.NopCloser(br), false, nil
	}
}

// ratioLimit is how much a blob of so many bytes may unpack to.
func (l Limits) ratioLimit(stored, most int64) int64 {
	const free = 64 << 20
	if stored > (math.MaxInt64-free)/l.Ratio {
		return most
	}
	return min(most, free+stored*l.Ratio)
}

// limitReader fails, where io.LimitReader ends, when there is more.
type limitReader struct {
	r    io.Reader
	left int64
}

func (l *limitReader) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	if l.left -= int64(n); l.left < 0 {
		return 0, tooLarge("data unpacks to far more than an image of its size should")
	}
	return n, err
}

// meter passes progress on, at most about a hundred times a stage. The nil
// meter is silent.
type meter struct {
	tell        ProgressFunc
	now         Progress
	told, every int64
}

func newMeter(tell ProgressFunc) *meter {
	if tell == nil {
		return nil
	}
	return &meter{tell: tell}
}

func (m *meter) begin(stage string, total int64) {
	if m == nil {
		return
	}
	m.now, m.told, m.every = Progress{Stage: stage, Total: total}, 0, max(total/100, 1<<20)
	m.tell(m.now)
}

func (m *meter) add(n int64) {
	if m == nil {
		return
	}
	m.now.Done += n
	if m.now.Done-m.told >= m.every || m.now.Done == m.now.Total {
		m.told = m.now.Done
		m.tell(m.now)
	}
}

// reader counts what is read from r and ends with ctx.
func (m *meter) reader(ctx context.Context, r io.Reader) io.Reader {
	return meterReader{ctx, m, r}
}

type meterReader struct {
	ctx context.Context
	m   *meter
	r   io.Reader
}

func (r meterReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := r.r.Read(p)
	r.m.add(int64(n))
	return n, err
}
