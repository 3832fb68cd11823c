package redis

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/volcano-sh/agentcube/internal/session"
)

// keys makes the names of keys. What is in braces decides which server of a
// cluster has a key: one of them for all that belongs to a session, and one each
// for the indexes, the checkpoints, the tokens and the seats.
type keys struct{ prefix string }

func (k keys) session(id string) string   { return k.prefix + "{session:" + id + "}" }
func (k keys) index(name string) string   { return k.prefix + "{sessions}:" + name }
func (k keys) ofOwner(name string) string { return k.prefix + "{sessions}:of:" + name }
func (k keys) clock() string              { return k.prefix + "clock" }
func (k keys) ping() string               { return k.prefix + "ping" }

// claim is who has an idempotency key of an owner's.
func (k keys) claim(owner, key string) string {
	sum := sha256.Sum256([]byte(owner + "\x00" + key))
	return k.prefix + "key:" + hex.EncodeToString(sum[:])
}

// checkpoints are the records, when each was used, and which has which snapshot.
func (k keys) checkpoints() (records, used, snapshots string) {
	return k.prefix + "{checkpoints}:records", k.prefix + "{checkpoints}:used", k.prefix + "{checkpoints}:snapshots"
}

// tokens are the records, when each was used and revoked, whose hash is which,
// and their names in order.
func (k keys) tokens() tokenKeys {
	base := k.prefix + "{tokens}:"
	return tokenKeys{base + "records", base + "used", base + "revoked", base + "hashes", base + "names"}
}

// uses are what one owner has used, until when, and who noted it.
func (k keys) uses(owner string) (until, by string) {
	sum := sha256.Sum256([]byte(owner))
	base := k.prefix + "{used:" + hex.EncodeToString(sum[:]) + "}"
	return base + ":until", base + ":by"
}

// seats are those that are taken, in order, and those of them that rest.
func (k keys) seats() []string {
	return []string{k.prefix + "{seats}:taken", k.prefix + "{seats}:resting"}
}

func (k keys) rate(bucket string) string {
	sum := sha256.Sum256([]byte(bucket))
	return k.prefix + "rate:" + hex.EncodeToString(sum[:])
}

// Names of indexes by time. Scores are microseconds, of which a float64 holds
// all until 2255.
const (
	indexAll   = "all" // by place, not by time
	indexDue   = "due"
	indexPause = "pause"
	indexEnded = "ended"
)

const maxScore = 1<<53 - 1

// score is a time as the indexes have it, rounded down.
func score(t time.Time) int64 { return min(session.Nanos(t)/1000, maxScore) }

// digits is a time as text that sorts as the times do, and undigits is it back.
func digits(t time.Time) string { return fmt.Sprintf("%019d", session.Nanos(t)) }

func undigits(text string) (time.Time, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return time.Time{}, err
	}
	return time.Unix(0, n).UTC(), nil
}

// optionalTime is undigits for a time that may be none: "" or nothing but zeros.
func optionalTime(text string) (time.Time, error) {
	if strings.Trim(text, "0") == "" {
		return time.Time{}, nil
	}
	return undigits(text)
}

// listed is the member of the indexes by place: sorting them as text gives the
// order of List. It ends with how the record was born, so that one whose session
// never came to be, or is gone, is told from another's with the same id.
func listed(p session.Place, born string) string { return listedBefore(p) + born }

// listedBefore comes before all members of the same place.
func listedBefore(p session.Place) string {
	return fmt.Sprintf("%019d:%s\x00", math.MaxInt64-p.CreatedAt, p.ID)
}

// unlisted is the id and how it was born; "" of a member that is none of ours.
func unlisted(member string) (id, born string) {
	_, rest, ok := strings.Cut(member, ":")
	if !ok {
		return "", ""
	}
	return splitMember(rest)
}

// timed is the member of the indexes by time: it belongs to one version of the
// record.
func timed(id, version string) string { return id + "\x00" + version }

func splitMember(member string) (id, version string) {
	i := strings.LastIndexByte(member, 0)
	if i < 0 {
		return "", ""
	}
	return member[:i], member[i+1:]
}

// newVersion is the n-th version of a record, of somebody's making: two who make
// the n-th at once do not make the same.
func newVersion(n int64) string { return strconv.FormatInt(n, 10) + "/" + rand.Text()[:16] }

// number is the n of newVersion; 0 of what is none.
func number(version string) int64 {
	text, _, _ := strings.Cut(version, "/")
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0
	}
	return n
}
