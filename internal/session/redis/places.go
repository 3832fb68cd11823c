package redis

import (
	"context"

	"github.com/valkey-io/valkey-go"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/internal/session"
)

// place is where a version of a record is in one of the indexes by time.
type place struct {
	index string
	score int64
}

// placesOf are those where a record has to be found. As activity only ever moves
// its times on, they are never too late.
func placesOf(s session.Session) []place {
	if s.Ended() {
		return []place{{indexEnded, score(s.EndedAt)}}
	}
	places := []place{{indexDue, score(s.Deadline())}}
	if s.State == api.StateRunning && s.PauseAfter > 0 {
		places = append(places, place{indexPause, score(s.LastActivity.Add(s.PauseAfter))})
	}
	return places
}

// enter makes a version of a record found.
func (s *Store) enter(b valkey.Builder, id, version string, places []place) valkey.Commands {
	commands := make(valkey.Commands, len(places))
	for i, p := range places {
		commands[i] = b.Zadd().Key(s.keys.index(p.index)).ScoreMember().ScoreMember(float64(p.score), timed(id, version)).Build()
	}
	return commands
}

// leave undoes enter.
func (s *Store) leave(b valkey.Builder, id, version string, places []place) valkey.Commands {
	commands := make(valkey.Commands, len(places))
	for i, p := range places {
		commands[i] = b.Zrem().Key(s.keys.index(p.index)).Member(timed(id, version)).Build()
	}
	return commands
}

// enterLists makes a session listed.
func (s *Store) enterLists(b valkey.Builder, rec session.Session, born string) valkey.Commands {
	member := listed(session.PlaceOf(rec), born)
	return valkey.Commands{
		b.Zadd().Key(s.keys.index(indexAll)).ScoreMember().ScoreMember(0, member).Build(),
		b.Zadd().Key(s.keys.ofOwner(rec.Owner)).ScoreMember().ScoreMember(0, member).Build(),
	}
}

// leaveLists undoes enterLists.
func (s *Store) leaveLists(b valkey.Builder, rec session.Session, born string) valkey.Commands {
	member := listed(session.PlaceOf(rec), born)
	return valkey.Commands{
		b.Zrem().Key(s.keys.index(indexAll)).Member(member).Build(),
		b.Zrem().Key(s.keys.ofOwner(rec.Owner)).Member(member).Build(),
	}
}

// tidy removes members of indexes that have been found to be about nothing. That
// it fails is no matter: whoever comes upon them next finds the same.
func (s *Store) tidy(ctx context.Context, commands func(valkey.Builder) valkey.Commands) {
	_ = s.send(ctx, "tidy indexes", commands)
}

// standing is what a member of an index by time is about.
type standing int

const (
	standsNow   standing = iota // the present version of a record
	standsNever                 // none that is, or ever will be
	standsLater                 // one that is just being written, perhaps
)

// standing judges the member of a version. The n-th version of a record is only
// ever put in place of the one before, so another n-th never comes after it.
func (r row) standing(version string) standing {
	switch {
	case !r.there:
		return standsNever // it can only be written over one that is being made
	case r.making:
		if r.born == version {
			return standsLater
		}
		return standsNever
	case r.placed == version:
		return standsNow
	case number(version) > number(r.version):
		return standsLater
	}
	return standsNever
}
