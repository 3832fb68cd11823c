package cli

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
)

// plainEvery is how often long work says where it is when there is no
// terminal; work that is shorter says nothing.
const plainEvery = 5 * time.Second

// progress shows how far long work is, on stderr. It is safe for concurrent
// use. The zero progress shows nothing.
type progress struct {
	bar   *progressbar.ProgressBar
	out   io.Writer
	label string

	mu    sync.Mutex
	bytes bool
	total int64
	done  int64
	next  time.Time
}

// progressBytes begins to show the progress of moving bytes; total below zero
// means unknown.
func (a *app) progressBytes(label string, total int64) *progress {
	return a.newProgress(label, total, true)
}

// progressSteps begins to show the progress of a number of like steps.
func (a *app) progressSteps(label string, total int64) *progress {
	return a.newProgress(label, total, false)
}

func (a *app) newProgress(label string, total int64, bytes bool) *progress {
	if a.noProgress {
		return &progress{}
	}
	p := &progress{out: a.Stderr, label: label, bytes: bytes, total: total, next: time.Now().Add(plainEvery)}
	if isTerminal(a.Stderr) {
		p.bar = progressbar.NewOptions64(total,
			progressbar.OptionSetWriter(a.Stderr),
			progressbar.OptionSetDescription(label),
			progressbar.OptionShowBytes(bytes),
			progressbar.OptionShowCount(),
			progressbar.OptionThrottle(100*time.Millisecond),
			progressbar.OptionClearOnFinish(),
			progressbar.OptionSetWidth(24),
		)
	}
	return p
}

// Write counts bytes, for io.TeeReader and io.MultiWriter.
func (p *progress) Write(b []byte) (int, error) {
	p.add(int64(len(b)))
	return len(b), nil
}

// set says how much is done by now.
func (p *progress) set(done int64) {
	p.mu.Lock()
	delta := done - p.done
	p.mu.Unlock()
	p.add(delta)
}

// of says how much of how much is done by now.
func (p *progress) of(done, total int64) {
	p.mu.Lock()
	if p.total != total {
		p.total = total
		if p.bar != nil {
			p.bar.ChangeMax64(total)
		}
	}
	p.mu.Unlock()
	p.set(done)
}

func (p *progress) add(n int64) {
	if p.out == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done += n
	if p.bar != nil {
		_ = p.bar.Add64(n)
		return
	}
	if now := time.Now(); now.After(p.next) {
		p.next = now.Add(plainEvery)
		fmt.Fprintf(p.out, "%s: %s\n", p.label, p.state())
	}
}

func (p *progress) state() string {
	format := func(n int64) string {
		if p.bytes {
			return size(n)
		}
		return fmt.Sprint(n)
	}
	if p.total > 0 {
		return format(p.done) + " of " + format(p.total)
	}
	return format(p.done)
}

// finish takes the bar off the terminal.
func (p *progress) finish() {
	if p.bar != nil {
		_ = p.bar.Finish()
	}
}
