package api

import "strings"

// RequestTarget names the resource of a request to PicoD as the claim "htu" of a
// token that is bound to it has it: the path, as the sandbox sees it and decoded,
// percent-encoded anew in one way, and the query, if there is one, as it was sent.
//
// All bytes of the path but the slash and the unreserved characters of RFC 3986,
// section 2.3 (letters, digits, "-", ".", "_", "~"), are encoded, with capital
// letters. The claim is named after that of RFC 9449, which has no query in it and
// an authority instead: a session, which the claim "sid" names, has no other.
func RequestTarget(path, rawQuery string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(path) {
		switch c := path[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.IndexByte("/-._~", c) >= 0:
			b.WriteByte(c)
		default:
			b.Write([]byte{'%', hex[c>>4], hex[c&15]})
		}
	}
	if rawQuery != "" {
		b.WriteString("?" + rawQuery)
	}
	return b.String()
}
