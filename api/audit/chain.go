package audit

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// MaxLine bounds a line of a record in bytes.
const MaxLine = 1 << 20

// origin is what the first line of a chain has for the hash of the one before it.
const origin = "0000000000000000000000000000000000000000000000000000000000000000"

// Head is where a chain ends: the number of its last line and the SHA-256 of that
// line, in hex, without its newline. The zero value is that of a chain without lines.
type Head struct {
	Seq  uint64 `json:"seq"`
	Hash string `json:"hash"`
}

// ParseHead reads what String returns.
func ParseHead(text string) (Head, error) {
	number, hash, found := strings.Cut(text, ":")
	seq, err := strconv.ParseUint(number, 10, 64)
	sum, hexErr := hex.DecodeString(hash)
	if !found || err != nil || hexErr != nil || len(sum) != sha256.Size {
		return Head{}, fmt.Errorf("%q is not a head: NUMBER:SHA256", text)
	}
	return Head{Seq: seq, Hash: strings.ToLower(hash)}, nil
}

// String returns the head as number:hash.
func (h Head) String() string { return strconv.FormatUint(h.Seq, 10) + ":" + h.prev() }

func (h Head) prev() string {
	if h.Hash == "" {
		return origin
	}
	return h.Hash
}

// Append returns the line that v, which has to be a JSON object, is after h, with its
// newline, and the head of the chain with it.
func (h Head) Append(v any) (line []byte, next Head, err error) {
	body, err := json.Marshal(v)
	if err != nil {
		return nil, h, fmt.Errorf("encode audit line: %w", err)
	}
	if body[0] != '{' {
		return nil, h, errors.New("encode audit line: it is not an object")
	}
	line = fmt.Appendf(make([]byte, 0, len(body)+120), `{"seq":%d,"prev":%q`, h.Seq+1, h.prev())
	if len(body) > len("{}") {
		line = append(line, ',')
	}
	line = append(line, body[1:]...)
	if len(line) >= MaxLine {
		return nil, h, fmt.Errorf("encode audit line: it has %d bytes", len(line))
	}
	return append(line, '\n'), Head{h.Seq + 1, hashOf(line)}, nil
}

func hashOf(line []byte) string {
	sum := sha256.Sum256(line)
	return hex.EncodeToString(sum[:])
}

// Line is one line of a record as it was read.
type Line struct {
	Head        // of the chain up to this line
	Prev string // the hash of the line before
	Text []byte // without newline; valid until the next one is read
}

// ErrTorn is the error of a last line that has no newline: writing it was broken off.
var ErrTorn = errors.New("the last line is not complete")

// ReadLine reads a line, without checking what it follows. At the end the error is
// io.EOF, and ErrTorn when there is a part of a line; no error wraps either of them.
// The reader must have a buffer of MaxLine bytes.
func ReadLine(r *bufio.Reader) (Line, error) {
	text, err := r.ReadSlice('\n')
	switch {
	case err == nil:
	case errors.Is(err, bufio.ErrBufferFull):
		return Line{}, errors.New("the line is too long")
	case err == io.EOF && len(text) > 0:
		return Line{}, ErrTorn
	default:
		return Line{}, err
	}
	return ParseLine(bytes.TrimSuffix(text, []byte("\n")))
}

// ParseLine reads a line without its newline.
func ParseLine(text []byte) (Line, error) {
	var start struct {
		Seq  uint64 `json:"seq"`
		Prev string `json:"prev"`
	}
	if err := json.Unmarshal(text, &start); err != nil {
		return Line{}, fmt.Errorf("the line is not one of JSON: %w", err)
	}
	if start.Seq == 0 || len(start.Prev) != len(origin) {
		return Line{}, errors.New("the line has no seq and prev")
	}
	return Line{Head: Head{start.Seq, hashOf(text)}, Prev: start.Prev, Text: text}, nil
}

// NewReader returns a reader for ReadLine.
func NewReader(r io.Reader) *bufio.Reader { return bufio.NewReaderSize(r, MaxLine) }

// Follows says what is wrong with line as the one after h, or nil.
func (l Line) Follows(h Head) error {
	switch {
	case l.Seq != h.Seq+1:
		return fmt.Errorf("line %d follows line %d: lines were taken out, put in or moved", l.Seq, h.Seq)
	case l.Prev != h.prev():
		return fmt.Errorf("line %d does not follow what is there as line %d: line %d was changed", l.Seq, h.Seq, h.Seq)
	}
	return nil
}
