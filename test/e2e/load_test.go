package e2e

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/volcano-sh/agentcube/client"
)

// TestManySessions: 200 sessions, 20 at a time, are created, used and deleted.
// Each is had, or refused with a 429 that says when to come again; afterwards
// the machine and the server are as they were.
func TestManySessions(t *testing.T) {
	t.Parallel()
	few, many := newServer(t), newServer(t)
	// A round before the counting makes what stays: connections to the store,
	// threads, the parent control group.
	useSessions(t, few, 20, 20)
	useSessions(t, many, 20, 20)
	base := many.census()
	threads := many.threads(t)
	useSessions(t, many, 200, 20)
	many.settled(t, base)
	// Threads of the Go runtime stay for the next burst; a leak has one a session.
	if got := many.threads(t); got > threads+50 {
		t.Errorf("the server has %d threads, it had %d", got, threads)
	}
	// The same for open files, some of which wait for the garbage collector.
	if got := many.census().fds; got > base.fds+50 {
		t.Errorf("the server has %d open files, it had %d", got, base.fds)
	}
	if a, b := few.goroutines(t), many.goroutines(t); b > a+10 {
		t.Errorf("after 220 sessions the server has %d goroutines, after 20 it has %d", b, a)
	}
}

// useSessions goes through the lives of n sessions, several at a time.
func useSessions(t *testing.T, srv *server, n, atATime int) {
	t.Helper()
	c := srv.client(t)
	key, err := client.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	slots := make(chan struct{}, atATime)
	var wg sync.WaitGroup
	for i := range n {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			s, err := createPatiently(t, c, client.CreateOptions{Key: key})
			if err != nil {
				t.Error(err)
				return
			}
			want := strconv.Itoa(i)
			res, err := s.Execute(t.Context(), client.ExecRequest{Command: []string{"echo", "-n", want}})
			if err != nil || string(res.Stdout) != want {
				t.Errorf("session %d answered %q, %v", i, res.Stdout, err)
			}
			if err := c.DeleteSession(t.Context(), s.ID); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	c.Close()
}

// createPatiently comes again when the server says so.
func createPatiently(t *testing.T, c *client.Client, opts client.CreateOptions) (*client.Session, error) {
	for deadline := time.Now().Add(patience); ; {
		s, err := c.CreateSession(t.Context(), opts)
		var answer *client.APIError
		if !errors.As(err, &answer) || answer.Status != 429 || time.Now().After(deadline) {
			return s, err
		}
		if answer.RetryAfter <= 0 || answer.Text == "" {
			t.Errorf("429 without a word or a time: %+v", answer)
		}
		time.Sleep(max(answer.RetryAfter, 100*time.Millisecond))
	}
}

// TestTooManySessions: what does not fit is refused, and fits later.
func TestTooManySessions(t *testing.T) {
	t.Parallel()
	srv := newServer(t, "--max-sandboxes", "2")
	c := srv.client(t)
	first := create(t, c, client.CreateOptions{Managed: true})
	create(t, c, client.CreateOptions{Managed: true})
	_, err := c.CreateSession(t.Context(), client.CreateOptions{Managed: true})
	var answer *client.APIError
	if !errors.As(err, &answer) || answer.Status != 429 || answer.RetryAfter <= 0 || answer.Text == "" {
		t.Fatalf("the third of two sessions: %v (%+v)", err, answer)
	}
	discard(t, first)
	if s, err := createPatiently(t, c, client.CreateOptions{Managed: true}); err != nil {
		t.Error(err)
	} else {
		discard(t, s)
	}
}

func (s *server) threads(t *testing.T) int {
	t.Helper()
	tasks, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(s.cmd.Process.Pid), "task"))
	if err != nil {
		t.Fatal(err)
	}
	return len(tasks)
}

var goroutine = regexp.MustCompile(`(?m)^goroutine \d+ `)

// goroutines counts the server's goroutines by having it print them, which
// ends it.
func (s *server) goroutines(t *testing.T) int {
	t.Helper()
	before, err := os.ReadFile(s.path("log"))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.signal(syscall.SIGQUIT); err != nil {
		t.Fatal(err)
	}
	after, err := os.ReadFile(s.path("log"))
	if err != nil {
		t.Fatal(err)
	}
	dump := after[len(before):]
	n := len(goroutine.FindAll(dump, -1))
	if n == 0 {
		t.Fatalf("the server printed no goroutines: %.300s", dump)
	}
	// Its own way of ending leaves the parent control group: have that removed.
	s.restart(t)
	return n
}

// TestLargeFiles: 64 MiB go in and come out unchanged.
func TestLargeFiles(t *testing.T) {
	t.Parallel()
	s := create(t, at(t).client(t), client.CreateOptions{})
	const size = 64 << 20
	content := make([]byte, size)
	_, _ = rand.Read(content)
	sum := sha256.Sum256(content)
	if _, err := s.Upload(t.Context(), "large", bytes.NewReader(content), client.UploadOptions{Size: size}); err != nil {
		t.Fatal(err)
	}
	inside := output(t, s, "sha256sum large")
	if want := hex.EncodeToString(sum[:]); !strings.HasPrefix(inside, want) {
		t.Errorf("inside its hash is %s, want %s", inside, want)
	}
	body, info, err := s.Download(t.Context(), "large")
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	back := sha256.New()
	n, err := io.Copy(back, body)
	if err != nil || n != size || info.Size != size || !bytes.Equal(back.Sum(nil), sum[:]) {
		t.Errorf("%d of %d bytes came back, %v", n, info.Size, err)
	}
}
