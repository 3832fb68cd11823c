package trace

import (
	"encoding/hex"
	"net/http"
)

// Header carries a Parent in a request, in its canonical form.
const Header = "Traceparent"

// headerLength is that of version 00, the only one that there is.
const headerLength = len("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")

// Parent is a step of a trace, which other steps can be a part of. The zero value
// is none.
type Parent struct {
	Trace [16]byte
	Span  [8]byte
	// Sampled: whoever made the step records it.
	Sampled bool
}

// Parse reads the value of a header traceparent: 55 bytes of a fixed form. What
// comes after them in later versions is not known, and the whole then refused.
func Parse(text string) (p Parent, ok bool) {
	if len(text) != headerLength || text[2] != '-' || text[35] != '-' || text[52] != '-' {
		return Parent{}, false
	}
	var version, flags [1]byte
	for _, part := range []struct {
		to   []byte
		text string
	}{{version[:], text[:2]}, {p.Trace[:], text[3:35]}, {p.Span[:], text[36:52]}, {flags[:], text[53:]}} {
		if !lowerHex(part.text) {
			return Parent{}, false
		}
		_, _ = hex.Decode(part.to, []byte(part.text)) // it is hexadecimal
	}
	if version[0] == 0xff || !p.Valid() {
		return Parent{}, false
	}
	p.Sampled = flags[0]&1 != 0
	return p, true
}

func lowerHex(text string) bool {
	for _, c := range []byte(text) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// Valid reports whether p is a step at all.
func (p Parent) Valid() bool { return p.Trace != [16]byte{} && p.Span != [8]byte{} }

// ID is the id of the trace in hexadecimal, as people look it up, or "".
func (p Parent) ID() string {
	if !p.Valid() {
		return ""
	}
	return hex.EncodeToString(p.Trace[:])
}

// String is the value of a header traceparent, or "".
func (p Parent) String() string {
	if !p.Valid() {
		return ""
	}
	flags := "00"
	if p.Sampled {
		flags = "01"
	}
	return "00-" + hex.EncodeToString(p.Trace[:]) + "-" + hex.EncodeToString(p.Span[:]) + "-" + flags
}

// From is the step that a request says it is part of; the zero value when it says
// none, or nothing that can be believed.
func From(h http.Header) Parent {
	values := h.Values(Header)
	if len(values) != 1 {
		return Parent{}
	}
	p, _ := Parse(values[0])
	return p
}
