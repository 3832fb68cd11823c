package template

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// settle is how long a folder must be quiet before it is read: editors
	// and kubelets change several things in a row.
	settle = 100 * time.Millisecond
	// reread is how often the folder is read without a notification, for
	// what is not notified: links to elsewhere, network file systems, and a
	// machine out of watches.
	reread = 5 * time.Second
)

// Run follows the changes of the folder until ctx ends, and then returns nil.
func (d *Directory) Run(ctx context.Context) error {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch template folder: %w", err)
	}
	defer watcher.Close()
	settled := time.NewTimer(0)
	defer settled.Stop()
	again := time.NewTicker(reread)
	defer again.Stop()
	watched := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case event := <-watcher.Events:
			// The folder itself is gone: watch the next one of its name.
			if event.Name == d.opts.Dir && (event.Has(fsnotify.Remove) || event.Has(fsnotify.Rename)) {
				watched = false
			}
			settled.Reset(settle)
			continue
		case err := <-watcher.Errors:
			d.opts.Log.WarnContext(ctx, "watching the template folder failed", "error", err)
			settled.Reset(settle)
			continue
		case <-settled.C:
		case <-again.C:
		}
		// Watched before it is read: no change falls in between.
		watched = d.watch(ctx, watcher, watched)
		if err := d.Load(ctx); err != nil && ctx.Err() == nil {
			d.opts.Log.ErrorContext(ctx, "template folder cannot be read", "error", err)
		}
	}
}

// watch adds the folder. While it does not exist, or cannot be watched, it is
// found by reading again; the folder around it is not watched, as that may be
// the data directory, where every request writes.
func (d *Directory) watch(ctx context.Context, watcher *fsnotify.Watcher, watched bool) bool {
	if watched {
		return true
	}
	err := watcher.Add(d.opts.Dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		d.opts.Log.WarnContext(ctx, "template folder is not watched, only read from time to time", "dir", d.opts.Dir, "error", err)
		return true
	}
	return err == nil
}
