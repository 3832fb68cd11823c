package gvisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/volcano-sh/agentcube/internal/sandbox"
)

// destroyTimeout bounds the removal of one sandbox.
const destroyTimeout = 30 * time.Second

// box is one sandbox, from the moment its id is taken until all of it is gone.
type box struct {
	dir  string
	made chan struct{} // closed when Create is done with it
	// start is how Create came by it; it is Create's alone.
	start sandbox.Start

	// unwanted ends when Delete is called before Create is done.
	unwanted   context.Context
	giveUpMake context.CancelFunc

	// turn is held by the one who pauses, resumes, copies or removes the sandbox.
	turn chan struct{}

	mu      sync.Mutex
	rec     record
	ready   bool
	run     *run // nil while it is paused
	leaving bool // it is being paused
	exit    *sandbox.Exit
	deleted bool // Delete was called: an exit is no news
}

func newBox(rec record, dir string) *box {
	b := &box{rec: rec, dir: dir, made: make(chan struct{}), turn: make(chan struct{}, 1)}
	b.unwanted, b.giveUpMake = context.WithCancel(context.Background())
	return b
}

// takeTurn waits for the right to change what the sandbox is.
func (b *box) takeTurn(ctx context.Context) (done func(), err error) {
	select {
	case b.turn <- struct{}{}:
		return func() { <-b.turn }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for sandbox %s: %w", b.id(), ctx.Err())
	}
}

func (b *box) id() string { return filepath.Base(b.dir) }

// pausedDir holds the state of a paused sandbox.
func (b *box) pausedDir() string { return filepath.Join(b.dir, "paused") }

// save changes the record and writes it.
func (b *box) save(change func(*record)) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	rec := b.rec
	change(&rec)
	if err := rec.save(b.dir); err != nil {
		return err
	}
	b.rec = rec
	return nil
}

// describe reports false while the sandbox is being made.
func (b *box) describe() (sandbox.Sandbox, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := sandbox.Sandbox{
		ID: b.rec.ID, CreatedAt: b.rec.CreatedAt, Labels: b.rec.Labels, Isolation: Isolation,
		Paused: b.exit == nil && b.run == nil,
	}
	if b.exit != nil {
		exit := *b.exit
		s.Exit = &exit
	}
	return s, b.ready
}

// running is the run of a sandbox that is there to be used.
func (b *box) running() (*run, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case !b.ready:
		return nil, fmt.Errorf("%w: %s", sandbox.ErrNotFound, b.rec.ID)
	case b.exit != nil:
		return nil, fmt.Errorf("%w: %s", sandbox.ErrNotRunning, b.rec.ID)
	case b.leaving || b.run == nil:
		return nil, fmt.Errorf("%w: %s", sandbox.ErrPaused, b.rec.ID)
	}
	return b.run, nil
}

// serve gives a sandbox the run that it lives in from now on.
func (d *Driver) serve(b *box, r *run) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	select {
	case <-r.gone:
		return fmt.Errorf("%w: %s", sandbox.ErrNotRunning, b.id())
	default:
	}
	d.serving[r] = b
	b.mu.Lock()
	defer b.mu.Unlock()
	b.run = r
	return nil
}

// leave takes a sandbox's run away: its end is no news any more.
func (d *Driver) leave(b *box) *run {
	d.mu.Lock()
	defer d.mu.Unlock()
	b.mu.Lock()
	defer b.mu.Unlock()
	r := b.run
	b.run = nil
	delete(d.serving, r)
	return r
}

// runEnded is told of the end of every run.
func (d *Driver) runEnded(r *run, how string) {
	if trace := r.trace(); trace != "" && !r.unwanted() {
		d.cfg.Logger.Error("gVisor kernel failed", "run", r.id, "how", how, "trace", trace)
	}
	d.mu.Lock()
	b := d.serving[r]
	delete(d.serving, r)
	d.mu.Unlock()
	if b == nil {
		if !d.stock.lost(r) {
			d.pools.lost(r)
		}
		return
	}
	detail := "the sandbox ended by itself"
	if how != "" {
		detail += " (" + how + ")"
	}
	reason, detail := d.why(r.id, sandbox.ExitStopped, detail)
	d.ended(b, reason, detail)
}

// ended notes an exit and delivers it, unless nobody is to be told.
func (d *Driver) ended(b *box, reason sandbox.ExitReason, detail string) {
	exit := sandbox.Exit{ID: b.id(), Reason: reason, Detail: detail, At: time.Now().UTC()}
	b.mu.Lock()
	news := b.ready && !b.deleted
	b.exit = &exit
	b.mu.Unlock()
	if !news {
		return
	}
	select {
	case d.exits <- exit:
	case <-d.ctx.Done():
	}
}

// Delete implements sandbox.Driver.
func (d *Driver) Delete(ctx context.Context, id string) error {
	b, err := d.find(id)
	if errors.Is(err, sandbox.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	b.giveUpMake()
	select {
	case <-b.made:
	case <-ctx.Done():
		return fmt.Errorf("wait for sandbox %s to be made: %w", id, ctx.Err())
	}
	return d.destroy(ctx, b)
}

// destroy ends and removes a sandbox. The directory goes last, and the id is
// free after that.
func (d *Driver) destroy(ctx context.Context, b *box) error {
	done, err := b.takeTurn(ctx)
	if err != nil {
		return err
	}
	defer done()
	b.mu.Lock()
	b.deleted = true
	r := b.run
	b.mu.Unlock()
	if r != nil {
		if err := d.remove(ctx, r); err != nil {
			return err
		}
		d.leave(b)
	}
	if err := os.RemoveAll(b.dir); err != nil {
		return fmt.Errorf("remove sandbox directory: %w", err)
	}
	d.mu.Lock()
	if d.boxes[b.id()] == b {
		delete(d.boxes, b.id())
	}
	d.mu.Unlock()
	return nil
}
