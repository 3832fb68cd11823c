// Package journal is the record that PicoD keeps of the requests which reached it
// on encrypted connections: who carried them could not.
//
// A [Journal] is a chain of lines in memory (package api/audit), so that it is in the
// session's snapshots as all else is, and a bounded one: the oldest lines are dropped,
// while the chain commits to them still. It belongs to one session: a copy begins
// with an empty one.
package journal

import (
	"crypto/ecdsa"
	"sync"
	"time"

	"github.com/volcano-sh/agentcube/api/audit"
)

// MaxBytes bounds the lines that are kept.
const MaxBytes = 4 << 20

// Journal is a session's record. The zero value is empty and ready. It is safe for
// concurrent use.
type Journal struct {
	mu    sync.Mutex
	head  audit.Head
	lines [][]byte // the newest, with their newlines
	bytes int
	open  int
	idle  chan struct{} // closed when open becomes 0; nil: nobody waits
}

// Begin counts a request as under way, until the returned function records what
// became of it.
func (j *Journal) Begin() (end func(audit.Entry) error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.open++
	return j.end
}

func (j *Journal) end(e audit.Entry) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.open--
	if j.open == 0 && j.idle != nil {
		close(j.idle)
		j.idle = nil
	}
	line, next, err := j.head.Append(e)
	if err != nil {
		return err
	}
	j.head = next
	j.lines = append(j.lines, line)
	j.bytes += len(line)
	for j.bytes > MaxBytes {
		j.bytes -= len(j.lines[0])
		j.lines[0] = nil // or the array would hold it
		j.lines = j.lines[1:]
	}
	return nil
}

// Idle is closed once no request is under way.
func (j *Journal) Idle() <-chan struct{} {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.open == 0 {
		idle := make(chan struct{})
		close(idle)
		return idle
	}
	if j.idle == nil {
		j.idle = make(chan struct{})
	}
	return j.idle
}

// State returns the lines that are kept of those after the one with the number after,
// and a statement about them, signed with the key of the session's certificate. Of
// the requests under way, own are those of who asks, and do not count.
func (j *Journal) State(after uint64, own int, session string, key *ecdsa.PrivateKey) (lines [][]byte, statement string, err error) {
	j.mu.Lock()
	s := audit.Statement{Session: session, Head: j.head, Time: time.Now().UTC(), Open: j.open - own}
	if len(j.lines) > 0 {
		s.Kept = j.head.Seq + 1 - uint64(len(j.lines))
		from := max(after+1, s.Kept)
		lines = append(lines, j.lines[min(from-s.Kept, uint64(len(j.lines))):]...)
	}
	j.mu.Unlock()
	statement, err = s.Sign(key)
	return lines, statement, err
}
