package redis

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/valkey-io/valkey-go"

	"github.com/volcano-sh/agentcube/internal/session"
)

// Checkpoints are few, and are all kept by one server of a cluster, in three
// hashes that change together.

// createCheckpointLua adds the checkpoint ARGV[1] with the snapshot ARGV[2], if
// both are free. ARGV[5] is who does.
const createCheckpointLua = `
local records, used, snapshots = KEYS[1], KEYS[2], KEYS[3]
local mine = ARGV[5] .. ' ' .. ARGV[1]
local holder = redis.call('HGET', snapshots, ARGV[2])
if holder == mine then return 1 end
if holder or redis.call('HEXISTS', records, ARGV[1]) == 1 then return 0 end
redis.call('HSET', records, ARGV[1], ARGV[3])
redis.call('HSET', used, ARGV[1], ARGV[4])
redis.call('HSET', snapshots, ARGV[2], mine)
return 1`

const useCheckpointLua = `
local at = redis.call('HGET', KEYS[2], ARGV[1])
if not at then return 0 end
if at < ARGV[2] then redis.call('HSET', KEYS[2], ARGV[1], ARGV[2]) end
return 1`

const deleteCheckpointLua = `
local holder = redis.call('HGET', KEYS[3], ARGV[2])
if not holder or string.sub(holder, string.find(holder, ' ', 1, true) + 1) ~= ARGV[1] then return 0 end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('HDEL', KEYS[3], ARGV[2])
return 1`

// checkpointField names a checkpoint in the hashes: no owner, as no name of one
// whose checkpoints there are, has NUL in it.
func checkpointField(owner, name string) string { return owner + "\x00" + name }

func (s *Store) checkpointKeys() []string {
	records, used, snapshots := s.keys.checkpoints()
	return []string{records, used, snapshots}
}

// CreateCheckpoint implements session.Checkpoints.
func (s *Store) CreateCheckpoint(ctx context.Context, c session.Checkpoint) error {
	doing := fmt.Sprintf("create checkpoint %q", c.Name)
	for _, t := range []*time.Time{&c.CreatedAt, &c.UsedAt} {
		*t = t.Round(0).UTC()
	}
	record, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	made, err := s.run(ctx, doing, s.scripts.createCheckpoint, s.checkpointKeys(),
		checkpointField(c.Owner, c.Name), c.Snapshot, string(record), digits(c.UsedAt), rand.Text())
	if err == nil && made == 0 {
		err = fmt.Errorf("%s: %w", doing, session.ErrExists)
	}
	return err
}

// GetCheckpoint implements session.Checkpoints.
func (s *Store) GetCheckpoint(ctx context.Context, owner, name string) (session.Checkpoint, error) {
	doing := fmt.Sprintf("get checkpoint %q", name)
	records, used, _ := s.keys.checkpoints()
	field := checkpointField(owner, name)
	var record, at string
	err := s.exchange(ctx, doing, func(ctx context.Context, c valkey.Client) (err error) {
		results := c.DoMulti(ctx, c.B().Hget().Key(records).Field(field).Build(), c.B().Hget().Key(used).Field(field).Build())
		record, at = "", ""
		for i, out := range []*string{&record, &at} {
			if *out, err = results[i].ToString(); err != nil && !valkey.IsValkeyNil(err) {
				return err
			}
		}
		return nil
	})
	switch {
	case err != nil:
		return session.Checkpoint{}, err
	case record == "" || at == "":
		return session.Checkpoint{}, fmt.Errorf("%s: %w", doing, session.ErrNoCheckpoint)
	}
	c, err := readCheckpoint(field, record, at)
	if err != nil {
		return session.Checkpoint{}, fmt.Errorf("%s: %w", doing, err)
	}
	return c, nil
}

// readCheckpoint decodes one. When the record cannot be read, the error matches
// ErrUnreadable, and owner, name and when it was used are set all the same.
func readCheckpoint(field, record, usedAt string) (c session.Checkpoint, err error) {
	owner, name, _ := strings.Cut(field, "\x00")
	at, err := undigits(usedAt)
	if err == nil {
		err = json.Unmarshal([]byte(record), &c)
	}
	if err != nil {
		return session.Checkpoint{Owner: owner, Name: name, UsedAt: at}, fmt.Errorf("%w: checkpoint %q: %w", ErrUnreadable, name, err)
	}
	c.Owner, c.Name, c.UsedAt = owner, name, at
	return c, nil
}

// ListCheckpoints implements session.Checkpoints. A record that cannot be read is
// listed with what is known without: its snapshot is not forgotten, and it can be
// deleted.
func (s *Store) ListCheckpoints(ctx context.Context, owner string) ([]session.Checkpoint, error) {
	all, err := s.checkpointsThat(ctx, "list checkpoints", func(c session.Checkpoint) bool { return owner == "" || c.Owner == owner })
	if err != nil {
		return nil, err
	}
	slices.SortFunc(all, func(a, b session.Checkpoint) int {
		return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), strings.Compare(a.Owner, b.Owner), strings.Compare(a.Name, b.Name))
	})
	return all, nil
}

// UnusedCheckpoints implements session.Checkpoints.
func (s *Store) UnusedCheckpoints(ctx context.Context, usedBefore time.Time, limit int) ([]session.Checkpoint, error) {
	all, err := s.checkpointsThat(ctx, "find unused checkpoints", func(c session.Checkpoint) bool { return c.UsedAt.Before(usedBefore) })
	if err != nil {
		return nil, err
	}
	slices.SortFunc(all, func(a, b session.Checkpoint) int {
		return cmp.Or(a.UsedAt.Compare(b.UsedAt), strings.Compare(a.Owner, b.Owner), strings.Compare(a.Name, b.Name))
	})
	return all[:min(limit, len(all))], nil
}

// checkpointsThat are those that wanted says yes to, in no order.
func (s *Store) checkpointsThat(ctx context.Context, doing string, wanted func(session.Checkpoint) bool) ([]session.Checkpoint, error) {
	recordsKey, usedKey, snapshotsKey := s.keys.checkpoints()
	var records, used, snapshots map[string]string
	err := s.exchange(ctx, doing, func(ctx context.Context, c valkey.Client) (err error) {
		results := c.DoMulti(ctx, c.B().Hgetall().Key(recordsKey).Build(), c.B().Hgetall().Key(usedKey).Build(),
			c.B().Hgetall().Key(snapshotsKey).Build())
		for i, out := range []*map[string]string{&records, &used, &snapshots} {
			if *out, err = results[i].AsStrMap(); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	snapshotOf := map[string]string{}
	for snapshot, holder := range snapshots {
		_, field, _ := strings.Cut(holder, " ")
		snapshotOf[field] = snapshot
	}
	var all []session.Checkpoint
	for field, record := range records {
		at, ok := used[field]
		if !ok {
			continue // removed since
		}
		c, err := readCheckpoint(field, record, at)
		if err != nil {
			c.Snapshot = snapshotOf[field]
		}
		if wanted(c) {
			all = append(all, c)
		}
	}
	return all, nil
}

// UseCheckpoint implements session.Checkpoints.
func (s *Store) UseCheckpoint(ctx context.Context, owner, name string, at time.Time) error {
	doing := fmt.Sprintf("use checkpoint %q", name)
	return s.changeCheckpoint(ctx, doing, s.scripts.useCheckpoint, checkpointField(owner, name), digits(at))
}

// DeleteCheckpoint implements session.Checkpoints.
func (s *Store) DeleteCheckpoint(ctx context.Context, owner, name, snapshot string) error {
	doing := fmt.Sprintf("delete checkpoint %q", name)
	return s.changeCheckpoint(ctx, doing, s.scripts.deleteCheckpoint, checkpointField(owner, name), snapshot)
}

func (s *Store) changeCheckpoint(ctx context.Context, doing string, script *valkey.Lua, args ...string) error {
	n, err := s.run(ctx, doing, script, s.checkpointKeys(), args...)
	if err == nil && n == 0 {
		err = fmt.Errorf("%s: %w", doing, session.ErrNoCheckpoint)
	}
	return err
}
