package proc

import (
	"fmt"
	"sync/atomic"
	"unicode/utf8"
)

// budgetStep is how much of the shared budget a capture takes at a time.
const budgetStep = 64 << 10

// budget is the memory that all captures of a Runner share.
type budget struct{ left atomic.Int64 }

// take reserves n bytes, or nothing.
func (b *budget) take(n int) bool {
	if b.left.Add(-int64(n)) >= 0 {
		return true
	}
	b.left.Add(int64(n))
	return false
}

func (b *budget) give(n int) { b.left.Add(int64(n)) }

// Output is what was kept of one stream: all of it, or its beginning and its
// end with the middle left out.
type Output struct {
	head, tail []byte
	at         int // where in tail its oldest byte is
	total      int64
	headMax    int
	tailMax    int
	reserved   int
	budget     *budget
}

func newOutput(limit int, b *budget) *Output {
	return &Output{headMax: limit - limit/2, tailMax: limit / 2, budget: b}
}

// Total returns how many bytes the command wrote.
func (o *Output) Total() int64 { return o.total }

// Truncated reports whether bytes were left out.
func (o *Output) Truncated() bool { return o.total > int64(len(o.head)+len(o.tail)) }

// Bytes returns the kept bytes in the order in which they were written.
func (o *Output) Bytes() []byte {
	if len(o.tail) == 0 {
		return o.head
	}
	b := make([]byte, 0, len(o.head)+len(o.tail))
	b = append(b, o.head...)
	b = append(b, o.tail[o.at:]...)
	return append(b, o.tail[:o.at]...)
}

// Valid reports whether the kept bytes are UTF-8, leaving aside characters that
// were cut apart by the truncation.
func (o *Output) Valid() bool {
	if !o.Truncated() {
		return utf8.Valid(o.Bytes())
	}
	head, tail := o.parts()
	return utf8.Valid(head) && utf8.Valid(tail)
}

// Text returns the kept output as text. Truncated text has one line where the
// middle is missing and a last line that says how much was kept.
func (o *Output) Text() string {
	if !o.Truncated() {
		return string(o.Bytes())
	}
	head, tail := o.parts()
	kept := len(o.head) + len(o.tail)
	mark := fmt.Sprintf("\n[output truncated: %d of %d bytes kept]\n", kept, o.total)
	if len(tail) == 0 {
		return string(head) + mark
	}
	return fmt.Sprintf("%s\n[... %d bytes left out here ...]\n%s%s", head, o.total-int64(kept), tail, mark)
}

// parts returns head and tail without the halves of characters at the cut.
func (o *Output) parts() (head, tail []byte) {
	head = o.head
	for i := 1; i < utf8.UTFMax && i <= len(head); i++ {
		if c := head[len(head)-i]; utf8.RuneStart(c) {
			if !utf8.FullRune(head[len(head)-i:]) {
				head = head[:len(head)-i]
			}
			break
		}
	}
	tail = append(append([]byte{}, o.tail[o.at:]...), o.tail[:o.at]...)
	for i := 0; i < utf8.UTFMax-1 && len(tail) > 0 && !utf8.RuneStart(tail[0]); i++ {
		tail = tail[1:]
	}
	return head, tail
}

// write keeps what fits and counts the rest.
func (o *Output) write(p []byte) {
	o.total += int64(len(p))
	if n := min(o.headMax-len(o.head), len(p)); n > 0 {
		if !o.reserve(n) {
			return
		}
		o.head = append(o.head, p[:n]...)
		p = p[n:]
	}
	if n := min(o.tailMax-len(o.tail), len(p)); n > 0 {
		if !o.reserve(n) {
			return
		}
		o.tail = append(o.tail, p[:n]...)
		p = p[n:]
	}
	if len(o.tail) == 0 {
		return
	}
	if skip := len(p) - len(o.tail); skip > 0 {
		p = p[skip:]
	}
	for len(p) > 0 {
		n := copy(o.tail[o.at:], p)
		p = p[n:]
		o.at = (o.at + n) % len(o.tail)
	}
}

// reserve makes room for n more bytes; once the shared budget is empty the
// capture stops growing for good.
func (o *Output) reserve(n int) bool {
	for o.reserved < len(o.head)+len(o.tail)+n {
		if !o.budget.take(budgetStep) {
			o.headMax, o.tailMax = len(o.head), len(o.tail)
			return false
		}
		o.reserved += budgetStep
	}
	return true
}

// release gives the memory back to the shared budget.
func (o *Output) release() {
	o.budget.give(o.reserved)
	o.reserved, o.head, o.tail, o.at = 0, nil, nil, 0
}
