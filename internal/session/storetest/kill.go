package storetest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/session"
)

const (
	killWriters = 4
	killUpdates = 3
)

// Write changes the store without end, from several goroutines, and writes a
// line to out after each change that the store has acknowledged. It runs in a
// process that is killed; Verify then reads the lines. The sessions of rounds
// with different numbers do not meet.
func Write(ctx context.Context, st session.Store, round int, out io.Writer) error {
	var mu sync.Mutex
	acknowledged := func(format string, args ...any) error {
		mu.Lock()
		defer mu.Unlock()
		_, err := fmt.Fprintf(out, format+"\n", args...)
		return err
	}
	errs := make(chan error, killWriters)
	for w := range killWriters {
		go func() {
			for i := 0; ; i++ {
				if err := writeOne(ctx, st, New(round*1_000_000+w*100_000+i), acknowledged); err != nil {
					errs <- err
					return
				}
			}
		}()
	}
	return <-errs
}

// writeOne takes one session through its life.
func writeOne(ctx context.Context, st session.Store, s session.Session, acknowledged func(string, ...any) error) error {
	if _, err := st.Create(ctx, s); err != nil {
		return err
	}
	if err := acknowledged("updated %s 0", s.ID); err != nil {
		return err
	}
	for n := 1; n <= killUpdates; n++ {
		if _, err := st.Update(ctx, s.ID, increment); err != nil {
			return err
		}
		if err := acknowledged("updated %s %d", s.ID, n); err != nil {
			return err
		}
		if err := st.Touch(ctx, s.ID, s.CreatedAt.Add(time.Duration(n))); err != nil {
			return err
		}
		if err := acknowledged("touched %s %d", s.ID, n); err != nil {
			return err
		}
	}
	if _, err := st.Update(ctx, s.ID, end(s.CreatedAt.Add(time.Hour), api.FateDeleted)); err != nil {
		return err
	}
	return acknowledged("ended %s 1", s.ID)
}

// Verify checks that every change that Write reported is in the store, and
// that everything in the store can be read. It returns the number of changes.
func Verify(t *testing.T, ctx context.Context, st session.Store, lines io.Reader) int {
	t.Helper()
	changes := 0
	want := map[string]map[string]int{} // id → what → at least
	for in := bufio.NewReader(lines); ; changes++ {
		line, err := in.ReadString('\n')
		if errors.Is(err, io.EOF) {
			break // a last line without its end is not a report
		}
		var what, id string
		var n int
		if _, scanErr := fmt.Sscanf(line, "%s %s %d", &what, &id, &n); err != nil || scanErr != nil {
			t.Fatalf("line %q: %v, %v", line, err, scanErr)
		}
		if want[id] == nil {
			want[id] = map[string]int{}
		}
		want[id][what] = max(want[id][what], n)
	}
	for id, atLeast := range want {
		s, err := st.Get(ctx, id)
		if err != nil {
			t.Errorf("an acknowledged session is lost: %v", err)
			continue
		}
		if updates := strings.Count(s.Reason, "x"); updates < atLeast["updated"] {
			t.Errorf("session %s has %d of %d acknowledged updates", id, updates, atLeast["updated"])
		}
		if touched := int(s.LastActivity.Sub(s.CreatedAt)); touched < atLeast["touched"] {
			t.Errorf("session %s has touch %d, %d was acknowledged", id, touched, atLeast["touched"])
		}
		if atLeast["ended"] == 1 && !s.Ended() {
			t.Errorf("session %s has state %s, its end was acknowledged", id, s.State)
		}
	}
	if got := len(pages(t, ctx, st, session.Query{Limit: 1000}, func() {})); got < len(want) {
		t.Errorf("%d sessions are listed, %d were acknowledged", got, len(want))
	}
	return changes
}
