package template

import (
	"cmp"
	"slices"
	"strings"
)

// maxNear bounds how many names an error suggests, and maxNearLen the length of
// a name that is compared at all: the name comes from the caller.
const (
	maxNear    = 5
	maxNearLen = 253
)

// near returns the templates of a kind that may have been meant, best first: a
// small slip in the name, a name that begins or ends alike, or the same name in
// another namespace. When there are only a few templates, it returns all.
func (s *Set) near(kind, namespace, name string) []string {
	type candidate struct {
		ref      string
		distance int
		close    bool
	}
	var all []candidate
	for k := range s.byKey {
		if k.kind != kind {
			continue
		}
		c := candidate{ref: k.namespace + "/" + k.name, distance: maxNearLen}
		if len(name) <= maxNearLen {
			c.distance = editDistance(name, k.name)
			c.close = c.distance <= max(2, len(k.name)/3) ||
				len(name) >= 3 && (strings.Contains(k.name, name) || strings.Contains(name, k.name))
		}
		if k.namespace != namespace {
			c.distance++
		}
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b candidate) int {
		if a.close != b.close {
			if a.close {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(a.distance, b.distance), strings.Compare(a.ref, b.ref))
	})
	var refs []string
	for _, c := range all {
		if len(refs) < maxNear && (c.close || len(all) <= maxNear) {
			refs = append(refs, c.ref)
		}
	}
	return refs
}

// editDistance is the number of bytes to insert, delete, change, or swap with
// their neighbour that turns a into b.
func editDistance(a, b string) int {
	before, row := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		next := make([]int, len(b)+1)
		next[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			next[j] = min(row[j]+1, next[j-1]+1, row[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				next[j] = min(next[j], before[j-2]+1)
			}
		}
		before, row = row, next
	}
	return row[len(b)]
}
