package guardtest

import (
	"fmt"
	"strings"
)

// hostile is a request that is followed by another one, "/smuggled".
type hostile struct {
	name, text string
	refused    bool   // no handler may get it
	body       string // else: the body that the handler gets
}

// post is a request with more header lines, and what comes after the header.
func post(lines, rest string) string {
	return "POST {PATH} HTTP/1.1\r\nHost: {HOST}\r\n{AUTH}" + lines + "\r\n" + rest
}

// chunked is a whole chunked body.
const chunked = "5\r\nhello\r\n0\r\n\r\n"

// cases are all of them.
func cases() []hostile {
	return append(append(lengths(), chunks()...), headers()...)
}

// lengths disagree about where the request ends.
func lengths() []hostile {
	out := []hostile{
		{name: "CL.TE", text: post("Content-Length: 6\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n")},
		{name: "TE.CL", text: post("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", chunked), body: "hello"},
		{name: "CL.TE, huge CL", text: post("Content-Length: 99999\r\nTransfer-Encoding: chunked\r\n", chunked), body: "hello"},
		{name: "two CL", text: post("Content-Length: 5\r\nContent-Length: 0\r\n", "hello"), refused: true},
		{name: "CL list", text: post("Content-Length: 5, 5\r\n", "hello"), refused: true},
		{name: "CL twice in a chunked request", text: post("Content-Length: 5\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n", chunked), refused: true},
		{name: "chunked in capitals", text: post("tRANSFER-eNCODING: CHUNKED\r\n", chunked), body: "hello"},
		{name: "two TE", text: post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", chunked), refused: true},
		{name: "TE before the colon", text: post("Transfer-Encoding : chunked\r\n", chunked), refused: true},
		{name: "chunked in HTTP/1.0", text: "POST {PATH} HTTP/1.0\r\nHost: {HOST}\r\n{AUTH}Transfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n"},
		{name: "HTTP/1.0 keep-alive", text: "POST {PATH} HTTP/1.0\r\nHost: {HOST}\r\n{AUTH}Content-Length: 5\r\nConnection: keep-alive\r\n\r\nhello", body: "hello"},
	}
	for _, cl := range []string{"+5", "-5", "0x5", "5 5", "", "5.0", "5e0", "1_0", "99999999999999999999", "５"} {
		out = append(out, hostile{name: "CL " + cl, text: post("Content-Length: "+cl+"\r\n", "hello"), refused: true})
	}
	for _, te := range []string{"gzip, chunked", "chunked, identity", "chunked, chunked", "identity", "xchunked", "chunked;q=1", "\x0bchunked", "\"chunked\"", ""} {
		out = append(out, hostile{name: fmt.Sprintf("TE %q", te), text: post("Transfer-Encoding: "+te+"\r\n", chunked), refused: true})
	}
	return out
}

// chunks are malformed where the header is not: the handler may have begun.
func chunks() []hostile {
	te := "Transfer-Encoding: chunked\r\n"
	var out []hostile
	for name, body := range map[string]string{
		"size overflows": "FFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n", "size with sign": "+5\r\nhello\r\n0\r\n\r\n", "negative size": "-1\r\nhello\r\n0\r\n\r\n",
		"size in C": "0x5\r\nhello\r\n0\r\n\r\n", "no size": "\r\nhello\r\n0\r\n\r\n", "size with letters": "5g\r\nhello\r\n0\r\n\r\n",
		"bare LF after the size": "5\nhello\r\n0\r\n\r\n", "bare LF after the chunk": "5\r\nhello\n0\r\n\r\n", "bare CR after the size": "5\rhello\r\n0\r\n\r\n",
		"no CRLF after the chunk": "5\r\nhelloXX0\r\n\r\n", "endless extension": "5;" + strings.Repeat("a", 64<<10) + "\r\nhello\r\n0\r\n\r\n",
		"extensions without end":  strings.Repeat("1;"+strings.Repeat("a", 1000)+"\r\nx\r\n", 100) + "0\r\n\r\n",
		"bare LF in an extension": "5;a\nb\r\nhello\r\n0\r\n\r\n",
		"endless trailer":         "5\r\nhello\r\n0\r\nX-A: " + strings.Repeat("a", 64<<10) + "\r\n\r\n",
		"malformed trailer":       "5\r\nhello\r\n0\r\nnot a header\r\n\r\n",
	} {
		out = append(out, hostile{name: "chunked: " + name, text: post(te, body), refused: true})
	}
	for name, lines := range map[string]string{
		"length": "Content-Length: 3\r\n", "authorization": "Authorization: Bearer x\r\nX-Agentcube-Session-Id: y\r\n", "anything": "X-A: b\r\n",
	} {
		out = append(out, hostile{name: "trailer: " + name, text: post(te, "5\r\nhello\r\n0\r\n"+lines+"\r\n"), body: "hello"})
	}
	for _, announced := range []string{"Content-Length", "Transfer-Encoding", "Trailer"} {
		out = append(out, hostile{name: "announced trailer: " + announced,
			text: post(te+"Trailer: "+announced+"\r\n", "5\r\nhello\r\n0\r\n"+announced+": 3\r\n\r\n"), refused: true})
	}
	return append(out, hostile{name: "announced trailer: X-A", body: "hello",
		text: post(te+"Trailer: X-A, Authorization\r\n", "5\r\nhello\r\n0\r\nX-A: b\r\nAuthorization: Bearer x\r\n\r\n")})
}

// headers are malformed, or say what is not for everybody to say.
func headers() []hostile {
	cl := "Content-Length: 5\r\n"
	out := []hostile{
		{name: "folded TE", text: post("Transfer-Encoding:\r\n chunked\r\n", chunked), body: "hello"},
		{name: "first line folded", text: "POST {PATH} HTTP/1.1\r\n Host: {HOST}\r\n{AUTH}" + cl + "\r\nhello", refused: true},
		{name: "bare CR", text: post("X-A: a\rTransfer-Encoding: chunked\r\n"+cl, "hello"), refused: true},
		// RFC 9112 lets a server take it for the end of a line.
		{name: "bare LF", text: post("X-A: a\nTransfer-Encoding: chunked\r\n"+cl, chunked), body: "hello"},
		{name: "NUL in a value", text: post("X-A: a\x00b\r\n"+cl, "hello"), refused: true},
		{name: "NUL in a name", text: post("X-\x00A: a\r\n"+cl, "hello"), refused: true},
		{name: "space in a name", text: post("X A: a\r\n"+cl, "hello"), refused: true},
		{name: "no name", text: post(": a\r\n"+cl, "hello"), refused: true},
		{name: "no colon", text: post("X-A\r\n"+cl, "hello"), refused: true},
		{name: "endless header", text: post("X-A: "+strings.Repeat("a", 80<<10)+"\r\n"+cl, "hello"), refused: true},
		{name: "headers without end", text: post(strings.Repeat("X-A: a\r\n", 20<<10)+cl, "hello"), refused: true},
		{name: "no host", text: "POST {PATH} HTTP/1.1\r\n{AUTH}" + cl + "\r\nhello", refused: true},
		{name: "two hosts", text: post("Host: evil.example\r\n"+cl, "hello"), refused: true},
		{name: "malformed host", text: "POST {PATH} HTTP/1.1\r\nHost: a b\r\n{AUTH}" + cl + "\r\nhello", refused: true},
		{name: "NUL in the path", text: "POST {PATH}\x00 HTTP/1.1\r\nHost: {HOST}\r\n{AUTH}" + cl + "\r\nhello", refused: true},
		{name: "space in the path", text: "POST {PATH} x HTTP/1.1\r\nHost: {HOST}\r\n{AUTH}" + cl + "\r\nhello", refused: true},
		{name: "fragment of a method", text: "PO ST {PATH} HTTP/1.1\r\nHost: {HOST}\r\n{AUTH}" + cl + "\r\nhello", refused: true},
		{name: "odd version", text: "POST {PATH} HTTP/1.10\r\nHost: {HOST}\r\n{AUTH}" + cl + "\r\nhello", refused: true},
		{name: "HTTP/2 in words", text: "POST {PATH} HTTP/2.0\r\nHost: {HOST}\r\n{AUTH}" + cl + "\r\nhello", refused: true},
		{name: "HTTP/0.9", text: "POST {PATH}\r\n", refused: true},
		{name: "odd expectation", text: post("Expect: the-inquisition\r\n"+cl, "hello"), refused: true},
	}
	for _, line := range []string{"OPTIONS *", "CONNECT evil.example:443", "CONNECT {PATH}", "TRACE {PATH}", "POST *", "POST evil.example:443", "POST http://"} {
		out = append(out, hostile{name: line, text: line + " HTTP/1.1\r\nHost: {HOST}\r\n{AUTH}Connection: close\r\n\r\n", refused: true})
	}
	return out
}
