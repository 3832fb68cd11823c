package gvisor

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/volcano-sh/agentcube/internal/sandbox"
)

// poolHostname is the host name of a sandbox that is nobody's yet.
const poolHostname = "sandbox"

// pools are restored sandboxes that wait for a Create. They have PicoD, but no
// identity, and no record: those that are left by a process that was killed
// are removed by the next Open.
type pools struct {
	d    *Driver
	poke chan struct{} // there may be something to do

	mu       sync.Mutex
	told     chan struct{} // closed when what Warm was told last is in byKey; nil before
	byKey    map[string]*pool
	starting int       // creations and resumes under way
	busy     time.Time // when the last of them ended
	closed   bool
}

// pool is the sandboxes of one frame.
type pool struct {
	name  string
	frame frame
	size  int
	ready []*run
	// after is when to try again after a failure.
	after time.Time
}

func newPools(d *Driver) *pools {
	return &pools{d: d, poke: make(chan struct{}, 1), byKey: map[string]*pool{}}
}

const (
	// fillPause is how long a pool waits after a failure.
	fillPause = 10 * time.Second
	// fillQuiet is for how long there must have been no creation and no resume for
	// filling to begin: who has a new sandbox uses it first.
	fillQuiet = 200 * time.Millisecond
	// fillPatience is how long filling stands back: who uses the machine all the
	// time must not keep the pools empty for ever.
	fillPatience = 2 * time.Second
	// fullPoll is how often a pool is looked at by those who wait for it.
	fullPoll = 5 * time.Millisecond
	// poolShare is how much of the memory for all sandboxes may be in use, in
	// percent, for a pool to grow.
	poolShare = 80
)

// claim takes a sandbox out of its pool, or returns nil.
func (p *pools) claim(key string) *run {
	p.mu.Lock()
	defer p.mu.Unlock()
	q := p.byKey[key]
	if q == nil || len(q.ready) == 0 {
		return nil
	}
	r := q.ready[0]
	q.ready = q.ready[1:]
	p.wake()
	return r
}

// lost is told of the end of a run that no sandbox has.
func (p *pools) lost(r *run) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, q := range p.byKey {
		for i, waiting := range q.ready {
			if waiting == r {
				q.ready = append(q.ready[:i:i], q.ready[i+1:]...)
				q.after = time.Now().Add(fillPause)
				p.d.discard(r)
				p.wake()
				return
			}
		}
	}
}

// startBegins and startEnds surround what users wait for.
func (p *pools) startBegins() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.starting++
}

func (p *pools) startEnds() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.starting--
	p.busy = time.Now()
	p.wake()
}

func (p *pools) wake() {
	select {
	case p.poke <- struct{}{}:
	default:
	}
}

// Warm implements sandbox.Warmer.
func (d *Driver) Warm(wanted []sandbox.Pool) {
	d.mu.Lock()
	usable := d.open && !d.closed
	if usable {
		d.wg.Add(1)
	}
	d.mu.Unlock()
	if !usable {
		return
	}
	before, told := d.pools.tell()
	go func() {
		defer d.wg.Done()
		defer close(told)
		next := d.resolve(wanted)
		if before != nil {
			<-before // the last word is the one that counts
		}
		d.pools.want(next)
	}()
}

// tell announces new pools; told is to be closed when they are there.
func (p *pools) tell() (before, told chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before, p.told = p.told, make(chan struct{})
	return before, p.told
}

// full waits until the pool of a frame, if there is one, and the stock hold all
// that they shall. It does not wait for what cannot be made now.
func (p *pools) full(ctx context.Context, key string) error {
	p.mu.Lock()
	told := p.told
	p.mu.Unlock()
	if told != nil {
		<-told // soon: only the image is looked up
	}
	tick := time.NewTicker(fullPoll)
	defer tick.Stop()
	p.wake()
	for (p.lacks(key) || p.d.stock.lacks(key)) && p.roomy() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("wait for pool: %w", ctx.Err())
		}
	}
	return nil
}

// lacks reports whether a pool is about to get another sandbox.
func (p *pools) lacks(key string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	q := p.byKey[key]
	return !p.closed && q != nil && len(q.ready) < q.size && !time.Now().Before(q.after)
}

// resolve finds the frames of pools; what cannot be made is logged and left out.
func (d *Driver) resolve(wanted []sandbox.Pool) map[string]*pool {
	out := map[string]*pool{}
	for _, w := range wanted {
		spec := w.Spec
		spec.ID, spec.Snapshot = "pool", ""
		spec, err := withDefaults(spec)
		var f frame
		if err == nil {
			f, err = d.frame(d.ctx, spec)
		}
		switch {
		case err != nil:
			d.cfg.Logger.Warn("warm pool left out", "pool", w.Name, "error", err)
		case !f.agent():
			d.cfg.Logger.Warn("warm pool left out: a sandbox with a command of its own cannot wait", "pool", w.Name)
		case w.Size > 0:
			key := f.key(d.engine)
			if same := out[key]; same != nil {
				same.size += w.Size
				continue
			}
			out[key] = &pool{name: w.Name, frame: f, size: w.Size}
		}
	}
	return out
}

// want replaces the pools. Sandboxes that are not wanted any more go.
func (p *pools) want(next map[string]*pool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	for key, old := range p.byKey {
		q := next[key]
		keep := 0
		if q != nil {
			keep = min(q.size, len(old.ready))
			q.ready = old.ready[:keep:keep]
		}
		for _, r := range old.ready[keep:] {
			p.d.discard(r)
		}
	}
	p.byKey = next
	p.wake()
}

// giveUp takes a sandbox out of the largest pool when memory has become short for
// those that are used, and reports whether it did.
func (p *pools) giveUp() bool {
	if p.roomy() {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var most *pool
	for _, q := range p.byKey {
		if len(q.ready) > 0 && (most == nil || len(q.ready) > len(most.ready)) {
			most = q
		}
	}
	if most == nil {
		return false
	}
	last := len(most.ready) - 1
	p.d.discard(most.ready[last])
	most.ready = most.ready[:last:last]
	return true
}

// fill keeps the pools full until the driver closes, one sandbox at a time, and
// makes them smaller, as slowly, when memory is short.
func (p *pools) fill() {
	tick := time.NewTicker(fillPause / 2)
	defer tick.Stop()
	for {
		select {
		case <-p.d.ctx.Done():
			return
		case <-p.poke:
		case <-tick.C:
			p.giveUp()
		}
		for p.fillOne() {
		}
	}
}

// fillOne adds a sandbox where one is missing, or then a blank one to the stock,
// and reports whether it did.
func (p *pools) fillOne() bool {
	q := p.next()
	if q == nil {
		h := p.d.stock.next()
		return h != nil && p.standBack() && p.roomy() && p.d.stock.fill(h)
	}
	if !p.standBack() || !p.roomy() {
		return false
	}
	r, err := p.make(q.frame)
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		q.after = time.Now().Add(fillPause)
		if p.d.ctx.Err() == nil {
			p.d.cfg.Logger.Error("warm pool not filled", "pool", q.name, "error", err)
		}
		return false
	}
	// What is wanted may have changed meanwhile.
	q = p.byKey[q.frame.key(p.d.engine)]
	if p.closed || q == nil || len(q.ready) >= q.size {
		p.d.discard(r)
		return !p.closed
	}
	select {
	case <-r.gone:
		p.d.discard(r)
		q.after = time.Now().Add(fillPause)
	default:
		q.ready = append(q.ready, r)
	}
	return true
}

// next is the pool that lacks the largest part of its size.
func (p *pools) next() (best *pool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	for _, q := range p.byKey {
		if len(q.ready) >= q.size || now.Before(q.after) {
			continue
		}
		if best == nil || len(q.ready)*best.size < len(best.ready)*q.size {
			best = q
		}
	}
	return best
}

// standBack waits until no user waits for a start or has just got one, though not
// for ever; false when the driver closes.
func (p *pools) standBack() bool {
	const step = 5 * time.Millisecond
	for waited := time.Duration(0); waited < fillPatience; waited += step {
		p.mu.Lock()
		busy := p.starting > 0 || time.Since(p.busy) < fillQuiet
		p.mu.Unlock()
		if !busy {
			break
		}
		select {
		case <-p.d.ctx.Done():
			return false
		case <-time.After(step):
		}
	}
	return p.d.ctx.Err() == nil
}

// roomy reports whether there is memory for sandboxes that nobody asked for.
func (p *pools) roomy() bool {
	budget := p.d.cfg.MemoryBudget
	return budget == 0 || p.d.groups.memoryUsed("") < budget/100*poolShare
}

func (p *pools) make(f frame) (*run, error) {
	ctx, cancel := context.WithTimeout(p.d.ctx, buildTimeout)
	defer cancel()
	s, err := p.d.templates.wait(ctx, f, nil)
	if err != nil {
		return nil, err
	}
	// The stock is for those who wait.
	b, err := p.d.newBlank(ctx, f, poolHostname)
	if err != nil {
		return nil, err
	}
	// Sandboxes that are used go before it.
	p.d.groups.standBack(b.id, true)
	r, err := p.d.begin(ctx, b, func(r *run) error { return r.restore(s.dir) }, "", nil)
	if err == nil {
		p.d.groups.standBack(r.id, false)
	}
	return r, err
}

// PoolSizes implements sandbox.PoolCounter.
func (d *Driver) PoolSizes() []sandbox.PoolSize {
	p := d.pools
	p.mu.Lock()
	defer p.mu.Unlock()
	sizes := make([]sandbox.PoolSize, 0, len(p.byKey))
	for _, q := range p.byKey {
		sizes = append(sizes, sandbox.PoolSize{Name: q.name, Wanted: q.size, Ready: len(q.ready)})
	}
	return sizes
}

// waiting are the sandboxes in all pools.
func (p *pools) waiting() (all []*run) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, q := range p.byKey {
		all = append(all, q.ready...)
	}
	return all
}

// close lets the pools go and returns the sandboxes that were in them.
func (p *pools) close() []*run {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	var all []*run
	for _, q := range p.byKey {
		all = append(all, q.ready...)
		q.ready = nil
	}
	return all
}
