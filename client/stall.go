package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"time"
)

// DefaultStallTimeout is how long a transfer may stand still when Config says
// nothing.
const DefaultStallTimeout = time.Minute

// errStalled is the cause with which a transfer that stands still is cancelled.
var errStalled = errors.New("nothing moved")

// stall cancels a transfer that stands still. The time between go and stop
// counts, all other time does not.
type stall struct {
	after  time.Duration
	timer  *time.Timer
	cancel context.CancelCauseFunc
}

// newStall returns a context for a transfer, and its watch, which is running.
func newStall(ctx context.Context, after time.Duration) (context.Context, *stall) {
	ctx, cancel := context.WithCancelCause(ctx)
	s := &stall{after: after, cancel: cancel}
	s.timer = time.AfterFunc(after, func() { cancel(errStalled) })
	return ctx, s
}

func (s *stall) start() { s.timer.Reset(s.after) }

func (s *stall) stop() { s.timer.Stop() }

// end releases the context; the transfer is over.
func (s *stall) end() {
	s.timer.Stop()
	s.cancel(context.Canceled)
}

// explain gives the error of a transfer that was cancelled for standing still
// its meaning.
func (s *stall) explain(ctx context.Context, base *url.URL, err error) error {
	if err != nil && !errors.Is(err, io.EOF) && errors.Is(context.Cause(ctx), errStalled) {
		return &ConnectError{URL: base.String(), Err: fmt.Errorf("%w for %s", errStalled, s.after)}
	}
	return err
}

// download is the body of a download, which ends when it stands still.
type download struct {
	io.ReadCloser
	ctx  context.Context
	base *url.URL
	*stall
}

// Read implements io.Reader. How long the caller takes between two reads does
// not matter.
func (d *download) Read(p []byte) (int, error) {
	d.start()
	n, err := d.ReadCloser.Read(p)
	d.stop()
	return n, d.explain(d.ctx, d.base, err)
}

// Close implements io.Closer.
func (d *download) Close() error {
	d.end()
	return d.ReadCloser.Close()
}
