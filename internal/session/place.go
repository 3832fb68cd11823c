package session

import (
	"encoding/base64"
	"encoding/binary"
	"hash/crc32"
	"math"
	"time"
)

// Place is a place in the order of Store.List, after which a page begins. It
// names a place and not a record, so it stays good when the record goes.
type Place struct {
	// CreatedAt is in the nanoseconds of Nanos.
	CreatedAt int64
	ID        string
}

// PlaceOf is the place of a session.
func PlaceOf(s Session) Place { return Place{CreatedAt: Nanos(s.CreatedAt), ID: s.ID} }

const (
	cursorVersion  = 1
	maxCursorChars = 1024
)

// Cursor is the place as the text that List returns: version, place, and a
// checksum by which a cut or mistyped text is told from a good one; that is no
// protection, and none is needed.
func (p Place) Cursor() string {
	raw := binary.BigEndian.AppendUint64([]byte{cursorVersion}, uint64(p.CreatedAt))
	raw = append(raw, p.ID...)
	return base64.RawURLEncoding.EncodeToString(binary.BigEndian.AppendUint32(raw, crc32.ChecksumIEEE(raw)))
}

// ParseCursor undoes Place.Cursor; ErrBadCursor for any other text.
func ParseCursor(text string) (Place, error) {
	if len(text) > maxCursorChars {
		return Place{}, ErrBadCursor
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(raw) < 1+8+4 || raw[0] != cursorVersion {
		return Place{}, ErrBadCursor
	}
	body, sum := raw[:len(raw)-4], raw[len(raw)-4:]
	if crc32.ChecksumIEEE(body) != binary.BigEndian.Uint32(sum) {
		return Place{}, ErrBadCursor
	}
	return Place{CreatedAt: int64(binary.BigEndian.Uint64(body[1:9])), ID: string(body[9:])}, nil
}

// Nanos is t in nanoseconds since 1970, within what stores can order: a time
// before 1970, the zero time too, is 0; one after 2262 comes after all others.
func Nanos(t time.Time) int64 {
	switch {
	case t.Unix() < 0:
		return 0
	case t.Unix() > math.MaxInt64/int64(time.Second)-1:
		return math.MaxInt64
	}
	return t.UnixNano()
}
