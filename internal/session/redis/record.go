package redis

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/valkey-io/valkey-go"

	"github.com/volcano-sh/agentcube/internal/session"
)

// ErrUnreadable says that the record is there, but what it holds cannot be decoded.
var ErrUnreadable = errors.New("session record is unreadable")

// errID is about an id that cannot be part of a key.
var errID = errors.New("a session id has 1 to 200 bytes, none of which is NUL")

const (
	maxID = 200
	// fetchBatch is how many records are asked for at once.
	fetchBatch = 256
)

// row is what the server has for one session.
type row struct {
	// session is the record; of an unreadable one only the ID is set.
	session session.Session
	problem error // why it is unreadable, or nil

	// version is the present one, placed the one that the indexes by time are
	// about, born the first.
	version, placed, born string
	// there: a record is there; making: it does not count yet.
	there, making bool
}

// counts reports whether there is a session.
func (r row) counts() bool { return r.there && !r.making }

var rowFields = []string{"rec", "ver", "idx", "act", "born", "new"}

// readRow takes apart what the server has in rowFields.
func readRow(id string, values []valkey.ValkeyMessage) (row, error) {
	if len(values) != len(rowFields) {
		return row{}, fmt.Errorf("%d of %d fields of a record came back", len(values), len(rowFields))
	}
	var f [6]string
	for i := range values {
		if values[i].IsNil() {
			continue
		}
		var err error
		if f[i], err = values[i].ToString(); err != nil {
			return row{}, err
		}
	}
	r := row{session: session.Session{ID: id}, version: f[1], placed: f[2], born: f[4], there: f[1] != "", making: f[5] != ""}
	if !r.there {
		return r, nil
	}
	rec, err := decode(id, f[0], f[3])
	if err != nil {
		r.problem = fmt.Errorf("%w: %q: %w", ErrUnreadable, id, err)
		return r, nil
	}
	r.session = rec
	return r, nil
}

func decode(id, record, activity string) (s session.Session, err error) {
	if err := json.Unmarshal([]byte(record), &s); err != nil {
		return s, err
	}
	if s.ID != id {
		return s, errors.New("it is the record of another session")
	}
	s.LastActivity, err = undigits(activity)
	return s, err
}

// encode returns the record as it comes back, and as it is stored.
func encode(s session.Session) (session.Session, string, error) {
	s = s.InUTC()
	record, err := json.Marshal(s)
	if err != nil {
		return s, "", fmt.Errorf("encode session %q: %w", s.ID, err)
	}
	s.LastActivity = time.Unix(0, session.Nanos(s.LastActivity)).UTC()
	return s, string(record), nil
}

func goodID(id string) bool { return id != "" && len(id) <= maxID && !strings.ContainsRune(id, 0) }

// row fetches the record of one session.
func (s *Store) row(ctx context.Context, doing, id string) (row, error) {
	if !goodID(id) {
		return row{}, nil // nobody has such a one
	}
	rows, err := s.rows(ctx, doing, []string{id})
	if err != nil {
		return row{}, err
	}
	return rows[0], nil
}

// rows fetches records, those that are not there as well.
func (s *Store) rows(ctx context.Context, doing string, ids []string) ([]row, error) {
	all := make([]row, 0, len(ids))
	for len(ids) > 0 {
		n := min(len(ids), fetchBatch)
		var some []row
		err := s.exchange(ctx, doing, func(ctx context.Context, c valkey.Client) error {
			some = some[:0]
			commands := make(valkey.Commands, n)
			for i, id := range ids[:n] {
				commands[i] = c.B().Hmget().Key(s.keys.session(id)).Field(rowFields...).Build()
			}
			for i, result := range c.DoMulti(ctx, commands...) {
				values, err := result.ToArray()
				if err != nil {
					return err
				}
				r, err := readRow(ids[i], values)
				if err != nil {
					return err
				}
				some = append(some, r)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		all, ids = append(all, some...), ids[n:]
	}
	return all, nil
}

// run runs a script whose answer is a number.
func (s *Store) run(ctx context.Context, doing string, script *valkey.Lua, keys []string, args ...string) (n int64, err error) {
	err = s.exchange(ctx, doing, func(ctx context.Context, c valkey.Client) (err error) {
		n, err = script.Exec(ctx, c, keys, args).ToInt64()
		return err
	})
	return n, err
}

// send sends commands whose answers do not matter, as long as they are no errors.
func (s *Store) send(ctx context.Context, doing string, commands func(valkey.Builder) valkey.Commands) error {
	return s.exchange(ctx, doing, func(ctx context.Context, c valkey.Client) error {
		for _, result := range c.DoMulti(ctx, commands(c.B())...) {
			if err := result.Error(); err != nil {
				return err
			}
		}
		return nil
	})
}
