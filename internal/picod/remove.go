package picod

import (
	"errors"
	"io/fs"
	"net/http"
)

// maxRemovals bounds the files that a command may leave to be removed.
const maxRemovals = 16

// removals resolves the files that an execute request wants removed.
func (q *request) removals(names []string) ([]string, *problem) {
	if len(names) > maxRemovals {
		return nil, fault(http.StatusBadRequest, "INVALID_REQUEST", "Invalid request body: too many files to remove")
	}
	out := make([]string, 0, len(names))
	for _, name := range names {
		rel, err := q.ws.Rel(name)
		if err != nil {
			return nil, badPath(err, "File")
		}
		out = append(out, rel)
	}
	return out, nil
}

// remove removes what removals has resolved, and reports whether all of it is
// gone. A request that asks for it need not be followed by another one that
// cleans up, which the client might not live to send.
func (q *request) remove(files []string) bool {
	gone := len(files) > 0
	for _, rel := range files {
		if err := q.ws.Remove(rel); err != nil && !errors.Is(err, fs.ErrNotExist) {
			gone = false
		}
	}
	return gone
}
