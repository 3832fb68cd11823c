package audit_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/volcano-sh/agentcube/api/audit"
)

// chained are lines of a chain, and where it ends.
func chained(t testing.TB, values ...any) (lines []string, head audit.Head) {
	t.Helper()
	for _, v := range values {
		line, next, err := head.Append(v)
		if err != nil {
			t.Fatal(err)
		}
		lines, head = append(lines, string(line)), next
	}
	return lines, head
}

func events(n int) (out []any) {
	for i := range n {
		out = append(out, audit.Event{Action: audit.SessionCreated, Session: strings.Repeat("é\n\"", i)})
	}
	return out
}

func TestChain(t *testing.T) {
	lines, head := chained(t, events(4)...)
	whole := strings.Join(lines, "")
	got, err := audit.Verify(audit.NewReader(strings.NewReader(whole)), audit.Head{}, nil)
	if err != nil || got != head || got.Seq != 4 {
		t.Fatalf("Verify = %v, %v, want %v", got, err, head)
	}
	mended, _, err := audit.Head{Seq: 2, Hash: audit.Head{}.Hash}.Append(audit.Event{})
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		lines []string
		row   int
	}{
		"taken out, and the hash mended": {[]string{string(mended)}, 1},
		"changed":                        {[]string{lines[0], strings.Replace(lines[1], "created", "deleted", 1), lines[2], lines[3]}, 3},
		"taken out":                      {[]string{lines[0], lines[2], lines[3]}, 2},
		"put in":                         {[]string{lines[0], lines[1], lines[1], lines[2]}, 3},
		"moved":                          {[]string{lines[0], lines[2], lines[1], lines[3]}, 2},
		"the first is gone":              {lines[1:], 1},
		"torn":                           {[]string{lines[0], lines[1][:20]}, 2},
		"no JSON":                        {[]string{lines[0], "x\n"}, 2},
		"empty line":                     {[]string{lines[0], "\n", lines[1]}, 2},
	} {
		_, err := audit.Verify(audit.NewReader(strings.NewReader(strings.Join(test.lines, ""))), audit.Head{}, nil)
		broken, ok := errors.AsType[*audit.BrokenError](err)
		if !ok || broken.Row != test.row {
			t.Errorf("%s: %v, want one in row %d", name, err, test.row)
		}
	}
}

func TestHeadIsText(t *testing.T) {
	_, head := chained(t, events(2)...)
	for _, h := range []audit.Head{head, {}} {
		got, err := audit.ParseHead(h.String())
		if err != nil || got.String() != h.String() {
			t.Errorf("%v is read as %v, %v", h, got, err)
		}
	}
	for _, text := range []string{"", "1", "1:", "x:" + head.Hash, "-1:" + head.Hash, "1:" + head.Hash[1:]} {
		if _, err := audit.ParseHead(text); err == nil {
			t.Errorf("%q is a head", text)
		}
	}
}

// keyed is a key and its certificate in PEM.
func keyed(t testing.TB) (*ecdsa.PrivateKey, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return key, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func TestRecord(t *testing.T) {
	key, certificate := keyed(t)
	other, _ := keyed(t)
	lines, head := chained(t, audit.Entry{Path: "/a"}, audit.Entry{Path: "/b"}, audit.Entry{Path: "/c"})
	closing := func(s audit.Statement, key *ecdsa.PrivateKey) string {
		token, err := s.Sign(key)
		if err != nil {
			t.Fatal(err)
		}
		return `{"statement":"` + token + "\"}\n"
	}
	good := closing(audit.Statement{Session: "s", Head: head, Time: time.Now(), Kept: 1}, key)
	earlier := audit.Head{Seq: 2, Hash: strings.Repeat("0", 64)}
	for name, test := range map[string]struct {
		text string
		n    int // entries; -1: it is refused
	}{
		"whole":                   {strings.Join(lines, "") + good, 3},
		"its end":                 {lines[2] + good, 1},
		"nothing new":             {good, 0},
		"no statement":            {strings.Join(lines, ""), -1},
		"shortened":               {lines[0] + lines[1] + good, -1},
		"a gap":                   {lines[0] + lines[2] + good, -1},
		"of another key":          {strings.Join(lines, "") + closing(audit.Statement{Session: "s", Head: head}, other), -1},
		"of another session":      {strings.Join(lines, "") + closing(audit.Statement{Session: "t", Head: head}, key), -1},
		"another head":            {strings.Join(lines, "") + closing(audit.Statement{Session: "s", Head: earlier}, key), -1},
		"empty":                   {"", -1},
		"the statement is broken": {strings.Join(lines, "") + good[:len(good)-1], -1},
	} {
		rec, err := audit.ParseRecord([]byte(test.text), certificate, "s")
		switch {
		case test.n < 0 && err == nil:
			t.Errorf("%s: taken for whole", name)
		case test.n >= 0 && (err != nil || len(rec.Entries) != test.n):
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzVerify: whatever the file holds, what is sound of it is a chain of the lines
// that were read, and no more.
func FuzzVerify(f *testing.F) {
	lines, _ := chained(f, events(3)...)
	f.Add([]byte(strings.Join(lines, "")))
	f.Add([]byte(lines[0] + lines[0]))
	f.Add([]byte(`{"seq":1,"prev":"` + strings.Repeat("0", 64) + "\"}\n\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		n := uint64(0)
		head, err := audit.Verify(audit.NewReader(bytes.NewReader(text)), audit.Head{}, func(l audit.Line) error {
			n++
			return nil
		})
		if head.Seq != n || n > uint64(bytes.Count(text, []byte("\n"))) {
			t.Errorf("head %v after %d lines", head, n)
		}
		if err == nil && n != uint64(bytes.Count(text, []byte("\n"))) {
			t.Error("lines were passed over")
		}
	})
}

// FuzzParseRecord: nothing is taken for a session's record that its key has not signed.
func FuzzParseRecord(f *testing.F) {
	_, certificate := keyed(f)
	key, _ := keyed(f)
	token, err := audit.Statement{Session: "s"}.Sign(key)
	if err != nil {
		f.Fatal(err)
	}
	lines, _ := chained(f, audit.Entry{Path: "/a"})
	f.Add([]byte(lines[0] + `{"statement":"` + token + "\"}\n"))
	f.Add([]byte(`{"statement":"a.b.c"}` + "\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if _, err := audit.ParseRecord(text, certificate, "s"); err == nil {
			t.Error("a record without a valid signature is taken for one")
		}
	})
}
