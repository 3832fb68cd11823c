package gvisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/volcano-sh/agentcube/internal/sandbox"
	"github.com/volcano-sh/agentcube/internal/trunk"
)

// destroyTimeout bounds the removal of one sandbox.
const destroyTimeout = 30 * time.Second

// box is one sandbox, from the moment its id is taken until all of it is gone.
type box struct {
	dir  string
	gone chan struct{} // closed when the sentry has ended
	made chan struct{} // closed when Create is done with it

	// unwanted ends when Delete is called before Create is done.
	unwanted   context.Context
	giveUpMake context.CancelFunc

	lineMu sync.Mutex
	trunk  *trunk.Dialer // nil until it is needed

	// destroying is held by the one who removes the sandbox.
	destroying sync.Mutex

	mu      sync.Mutex
	rec     record
	proc    *process
	exit    *sandbox.Exit
	deleted bool // Delete was called: an exit is no news
}

func newBox(rec record, dir string) *box {
	b := &box{rec: rec, dir: dir, gone: make(chan struct{}), made: make(chan struct{})}
	b.unwanted, b.giveUpMake = context.WithCancel(context.Background())
	return b
}

// save changes the record and writes it.
func (b *box) save(change func(*record)) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if change != nil {
		change(&b.rec)
	}
	return b.rec.save(b.dir)
}

// describe reports false while the sandbox is being made.
func (b *box) describe() (sandbox.Sandbox, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := sandbox.Sandbox{ID: b.rec.ID, CreatedAt: b.rec.CreatedAt, Labels: b.rec.Labels, Isolation: Isolation}
	if b.exit != nil {
		exit := *b.exit
		s.Exit = &exit
	}
	return s, b.rec.Ready
}

// reachable returns an error when the sandbox is not there to be dialled.
func (b *box) reachable() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case !b.rec.Ready:
		return fmt.Errorf("%w: %s", sandbox.ErrNotFound, b.rec.ID)
	case b.exit != nil:
		return fmt.Errorf("%w: %s", sandbox.ErrNotRunning, b.rec.ID)
	}
	return nil
}

// letGo ends the watch on the sentry and the trunk; the sentry runs on.
func (b *box) letGo() {
	b.hangUp()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.proc != nil {
		b.proc.close()
	}
}

// watch records a sentry process and follows it to its end.
func (d *Driver) watch(b *box, s started) error {
	b.mu.Lock()
	b.proc = s.proc
	b.mu.Unlock()
	d.wg.Go(func() { d.follow(b, s.proc) })
	return b.save(func(r *record) {
		r.PID, r.StartTime, r.Socket = s.proc.pid, s.startTime, s.socket
	})
}

func (d *Driver) follow(b *box, p *process) {
	defer p.close()
	if err := p.wait(); err != nil {
		return // let go of: the driver closes
	}
	if trace := b.panicTrace(); trace != "" {
		d.cfg.Logger.Error("gVisor kernel failed", "sandbox", b.rec.ID, "trace", trace)
	}
	d.ended(b, d.why(b.rec.ID, sandbox.ExitStopped, "the sandbox ended by itself"))
}

// why explains the end of a sandbox by what its control group counted, and
// falls back on the reason given.
func (d *Driver) why(id string, reason sandbox.ExitReason, detail string) sandbox.Exit {
	exit := sandbox.Exit{ID: id, Reason: reason, Detail: detail, At: time.Now().UTC()}
	switch {
	case d.groups.oomKills(id) > 0:
		exit.Reason, exit.Detail = sandbox.ExitOutOfMemory, "the sandbox reached its memory limit and was ended"
	case d.groups.forksRefused(id) > 0:
		exit.Detail = "the sandbox reached its limit of processes and was ended"
	}
	return exit
}

// panicLog is the file in a sandbox's directory that its kernel writes when it
// fails.
const panicLog = "panic.log"

// panicTrace is the beginning of what a failed kernel wrote.
func (b *box) panicTrace() string {
	f, err := os.Open(filepath.Join(b.dir, panicLog))
	if err != nil {
		return ""
	}
	defer f.Close()
	const enough = 4 << 10
	text, err := io.ReadAll(io.LimitReader(f, enough))
	if err != nil {
		return ""
	}
	return string(text)
}

// ended notes an exit and delivers it, unless nobody is to be told.
func (d *Driver) ended(b *box, exit sandbox.Exit) {
	b.mu.Lock()
	news := b.rec.Ready && !b.deleted
	b.exit = &exit
	b.mu.Unlock()
	close(b.gone)
	b.hangUp()
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
	b.destroying.Lock()
	defer b.destroying.Unlock()
	b.mu.Lock()
	b.deleted = true
	proc := b.proc
	b.mu.Unlock()
	b.hangUp()
	if proc != nil {
		if err := d.end(ctx, b, proc); err != nil {
			return err
		}
	}
	// A create that failed early may have started a process that it could not record.
	if err := killAll(ctx, d.groups.members(b.rec.ID)); err != nil {
		return err
	}
	if err := d.groups.remove(ctx, b.rec.ID); err != nil {
		return err
	}
	if err := os.RemoveAll(b.dir); err != nil {
		return fmt.Errorf("remove sandbox directory: %w", err)
	}
	d.mu.Lock()
	if d.boxes[b.rec.ID] == b {
		delete(d.boxes, b.rec.ID)
	}
	d.mu.Unlock()
	return nil
}

func (d *Driver) end(ctx context.Context, b *box, proc *process) error {
	select {
	case <-b.gone:
		return nil
	default:
	}
	if err := proc.kill(); err != nil && !errors.Is(err, os.ErrClosed) {
		return err
	}
	select {
	case <-b.gone:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for sandbox %s to end: %w", b.rec.ID, ctx.Err())
	}
}
