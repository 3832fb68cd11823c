package security

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// Attacker is who a defence is against.
type Attacker string

// The attackers.
const (
	// Router carries the traffic of sessions: it records, repeats, changes and
	// redirects what it carries, and answers in the place of others.
	Router Attacker = "hostile Router"
	// Neighbour has a valid token and sessions of its own.
	Neighbour Attacker = "neighbour"
	// Inside is a process in a sandbox, which may also be root there.
	Inside Attacker = "process in a sandbox"
	// Page is a web page in a browser on this machine.
	Page Attacker = "web page"
	// Client is anybody else who reaches the listener or its machine, and sends what it
	// likes.
	Client Attacker = "client"
	// Image is an image or an archive that somebody imports.
	Image Attacker = "hostile image"
	// Writer may write templates in a namespace of Kubernetes, and make no Pods there.
	Writer Attacker = "writer of templates"
)

// Attackers are all of them.
func Attackers() []Attacker {
	return []Attacker{Router, Neighbour, Inside, Page, Client, Image, Writer}
}

// Test is a test by name.
type Test struct {
	// In is the folder of a Go package, or the file of a Python test, from the root
	// of the repository.
	In string
	// Name is that of the function; after slashes come those of one of its parts, which
	// has to notice.
	Name string
	// waits: where there is nothing to notice it does not fail but waits for what does
	// not come, until its time is over.
	waits bool
}

// waiting is t, of which a time-out is as good as a failure.
func (t Test) waiting() Test {
	t.waits = true
	return t
}

// function is the name of the whole test.
func (t Test) function() string {
	name, _, _ := strings.Cut(t.Name, "/")
	return name
}

// Python reports whether it is one of the SDK's.
func (t Test) Python() bool { return strings.HasSuffix(t.In, ".py") }

// String is how a person would look for it.
func (t Test) String() string { return path.Base(t.In) + " " + t.Name }

// Defence is one line of defence.
type Defence struct {
	// Name identifies it.
	Name string
	// By is who would attack.
	By Attacker
	// Attack is what it is against, as the end of a sentence that begins with the
	// attacker. Where another line of defence stands behind it, that may hold.
	Attack string
	// File is where it stands, from the root of the repository, and From its text: once
	// in the file. To is the text without it; the code must still compile.
	File, From, To string
	// Noticed is the test that fails when it is off.
	Noticed Test
}

// Defences are all of them.
func Defences() []Defence {
	return slices.Concat(requests(), forms(), hellos(), firstKey(), forwarding(), owners(), copies(), tokens(), rights(), openID(), certificates(),
		browsers(), bounds(), files(), processes(), machine(), images(), pods(), goClient(), pythonSDK(), records(), telemetry())
}

// Attacks are tests of the whole program, with real sandboxes, which are run as they
// are: what they attack stands behind many lines of defence.
func Attacks() []Test {
	return []Test{
		{In: "test/e2e", Name: "TestHostileRouter"}, {In: "test/e2e", Name: "TestEndToEnd"}, {In: "test/e2e", Name: "TestEndToEndChanged"}, {In: "test/e2e", Name: "TestEndToEndPeers"},
		{In: "test/e2e", Name: "TestCopiesNeedTheKey"}, {In: "test/e2e", Name: "TestWhoMayCall"}, {In: "test/e2e", Name: "TestHostileCode"}, {In: "test/e2e", Name: "TestRestoredSessionsShareNothing"},
		{In: "test/e2e", Name: "TestAudit"},
	}
}

// Without returns the content of the defence's file with the defence switched off.
func (d Defence) Without(content string) (string, error) {
	if n := strings.Count(content, d.From); n != 1 {
		return "", fmt.Errorf("%s: its text is %d times in %s, want once:\n%s", d.Name, n, d.File, d.From)
	}
	return strings.Replace(content, d.From, d.To, 1), nil
}
