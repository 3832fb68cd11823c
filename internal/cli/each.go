package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// each does something with everything that was named, and goes on after an error, but
// not after an interruption. It prints the names of what was done: one a line, or as the
// member done of an object.
func (a *app) each(ctx context.Context, label, done string, names []string, do func(context.Context, string) error) error {
	bar := a.progressSteps(label, int64(len(names)))
	finished := []string{}
	var errs []error
	for _, name := range names {
		if err := do(ctx, name); err != nil {
			errs = append(errs, err)
		} else {
			finished = append(finished, name)
		}
		bar.add(1)
		if ctx.Err() != nil {
			break
		}
	}
	bar.finish()
	err := a.print(map[string][]string{done: finished}, func(w io.Writer) {
		for _, name := range finished {
			fmt.Fprintln(w, printable(name))
		}
	})
	return errors.Join(append(errs, err)...)
}
