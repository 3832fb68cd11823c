package hostlink

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"time"
)

// line is a pipe at whose other end somebody has said all that there is to say.
type line struct {
	io.Reader
	out bytes.Buffer
}

func (l *line) Write(p []byte) (int, error)      { return l.out.Write(p) }
func (l *line) Close() error                     { return nil }
func (l *line) SetReadDeadline(time.Time) error  { return nil }
func (l *line) SetWriteDeadline(time.Time) error { return nil }

// FuzzServe: whatever comes on the line, each whole line of it has one answer, which
// is one line too.
func FuzzServe(f *testing.F) {
	for _, text := range []string{
		`{"op":"connect","nonce":"AAAA"}` + "\n", `{"op":"assume","identity":{"sandboxId":"a","hostname":"b"}}` + "\n{}\n", "\n\n", "null\n[]\n1\n", `{"op":1}` + "\n",
		`{"op":"fail","hostname":"a\nb"}` + "\n", "{", strings.Repeat("x", maxMessage) + "\n", "\x00\n", `{"op":"prepare","complete":true}` + "\r\n",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		l := &line{Reader: bytes.NewReader(text)}
		handled := 0
		err := Serve(l, func(r Request) error {
			handled++
			if r.Op == "fail" {
				return errors.New("failed: " + r.Hostname)
			}
			return nil
		})
		if err == nil {
			t.Error("the end of the line is no error")
		}
		lines := bytes.Count(text, []byte("\n"))
		answers := strings.Split(l.out.String(), "\n")
		if n := len(answers) - 1; n > lines || handled > n || len(text) < maxMessage && n != lines {
			t.Errorf("%d lines have %d answers, %d were handled", lines, n, handled)
		}
		for _, answer := range answers[:len(answers)-1] {
			var reply Reply
			if err := json.Unmarshal([]byte(answer), &reply); err != nil {
				t.Errorf("answered %q: %v", answer, err)
			}
		}
	})
}

// FuzzCall: a sandbox that answers what it likes ends the line, or is believed.
func FuzzCall(f *testing.F) {
	for _, text := range []string{"{}\n", `{"error":"no"}` + "\n", "null\n", "x\n", "{}", "", "{}\n{}\n", `{"error":7}` + "\n", strings.Repeat(" ", maxMessage) + "{}\n"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		c := NewControl(&line{Reader: bytes.NewReader(text)})
		first, _, whole := bytes.Cut(text, []byte("\n"))
		err := c.Call(t.Context(), Request{Op: OpPrepare})
		var reply Reply
		good := whole && len(first) < maxMessage && json.Unmarshal(first, &reply) == nil
		if (err == nil) != (good && reply.Error == "") {
			t.Errorf("%q: %v", text, err)
		}
		if !good && c.Call(t.Context(), Request{Op: OpContinue}) == nil {
			t.Errorf("after %q the line is used again", text)
		}
	})
}
