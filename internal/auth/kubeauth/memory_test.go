package kubeauth

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server counts what it is asked.
type server struct {
	asked  atomic.Int32
	answer answer[string]
	err    error
	takes  time.Duration
}

func (s *server) ask(ctx context.Context) (answer[string], error) {
	s.asked.Add(1)
	select {
	case <-time.After(s.takes):
		return s.answer, s.err
	case <-ctx.Done():
		return answer[string]{}, ctx.Err()
	}
}

// want asks m, and holds its answer, and how often the server was asked in all, to what
// they should be.
func want(t *testing.T, m *memory[string], s *server, value string, yes bool, asked int32) {
	t.Helper()
	v, ok, err := m.get(t.Context(), "key", s.ask)
	synctest.Wait()
	if v != value || ok != yes || err != nil || s.asked.Load() != asked {
		t.Errorf("get = %q, %v, %v after %d questions; want %q, %v after %d", v, ok, err, s.asked.Load(), value, yes, asked)
	}
}

// TestRemembers: a yes counts for its time, and is asked for anew in the second half of
// it, without anybody waiting.
func TestRemembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, s := newMemory[string](time.Minute), &server{answer: answer[string]{yes: true, value: "a"}, takes: time.Second}
		want(t, m, s, "a", true, 1)
		time.Sleep(29 * time.Second)
		want(t, m, s, "a", true, 1)
		time.Sleep(2 * time.Second)
		s.answer.value = "b"
		began := time.Now()
		want(t, m, s, "a", true, 2)
		if waited := time.Since(began); waited != 0 {
			t.Errorf("it waited for %v", waited)
		}
		time.Sleep(2 * time.Second)
		want(t, m, s, "b", true, 2)
		time.Sleep(2 * time.Minute)
		want(t, m, s, "b", true, 3) // nobody has asked meanwhile
	})
}

// TestRemembersNo: a no counts for a few seconds, and takes the place of a yes.
func TestRemembersNo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, s := newMemory[string](time.Minute), &server{answer: answer[string]{yes: true, value: "a"}}
		want(t, m, s, "a", true, 1)
		time.Sleep(31 * time.Second)
		s.answer = answer[string]{}
		want(t, m, s, "a", true, 2)
		want(t, m, s, "", false, 2)
		time.Sleep(noFor - time.Millisecond)
		want(t, m, s, "", false, 2)
		time.Sleep(2 * time.Millisecond)
		s.answer = answer[string]{yes: true, value: "c"}
		want(t, m, s, "c", true, 3)
	})
}

// TestRemembersUntil: what ends by itself is not remembered for longer.
func TestRemembersUntil(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		end := time.Now().Add(10 * time.Second)
		m, s := newMemory[string](time.Minute), &server{answer: answer[string]{yes: true, value: "a", until: end}}
		want(t, m, s, "a", true, 1)
		time.Sleep(4 * time.Second)
		want(t, m, s, "a", true, 1)
		time.Sleep(7 * time.Second)
		s.answer = answer[string]{}
		want(t, m, s, "", false, 2)
	})
}

// TestUnanswered: without an answer there is neither a yes nor a no, and the next one
// asks again. A yes goes on for its time, and no longer.
func TestUnanswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, s := newMemory[string](time.Minute), &server{answer: answer[string]{yes: true, value: "a"}}
		want(t, m, s, "a", true, 1)
		s.err = errors.New("away")
		time.Sleep(59 * time.Second)
		want(t, m, s, "a", true, 2)
		time.Sleep(2 * time.Second)
		for range 2 {
			if _, yes, err := m.get(t.Context(), "key", s.ask); yes || !errors.Is(err, errUnanswered) || !errors.Is(err, s.err) {
				t.Errorf("get = %v, %v", yes, err)
			}
		}
		s.err, s.takes = nil, time.Hour
		began := time.Now()
		if _, yes, err := m.get(t.Context(), "key", s.ask); yes || !errors.Is(err, errUnanswered) || time.Since(began) != askTimeout {
			t.Errorf("get = %v, %v after %v", yes, err, time.Since(began))
		}
		if s.asked.Load() != 5 {
			t.Errorf("it was asked %d times", s.asked.Load())
		}
	})
}

// TestOneQuestion: who asks the same at the same time waits for one answer, also when
// the first of them has lost patience.
func TestOneQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, s := newMemory[string](time.Minute), &server{answer: answer[string]{yes: true, value: "a"}, takes: time.Second}
		impatient, leave := context.WithCancel(t.Context())
		gone := make(chan error)
		go func() {
			_, _, err := m.get(impatient, "key", s.ask)
			gone <- err
		}()
		synctest.Wait()
		got := make(chan string)
		for range 10 {
			go func() {
				v, _, err := m.get(t.Context(), "key", s.ask)
				got <- fmt.Sprint(v, err)
			}()
		}
		synctest.Wait()
		leave()
		if err := <-gone; !errors.Is(err, context.Canceled) || errors.Is(err, errUnanswered) {
			t.Errorf("who left got %v", err)
		}
		for range 10 {
			if v := <-got; v != "a<nil>" {
				t.Errorf("got %s", v)
			}
		}
		if s.asked.Load() != 1 {
			t.Errorf("it was asked %d times", s.asked.Load())
		}
	})
}

// TestBounds: of many different questions so many are asked at a time, and of their
// answers so many are remembered; those who are refused push out nobody who is let in.
func TestBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, known := newMemory[string](time.Minute), &server{answer: answer[string]{yes: true, value: "a"}}
		want(t, m, known, "a", true, 1)
		slow := &server{takes: time.Second}
		for i := range maxAsked + 10 {
			go func() { _, _, _ = m.get(t.Context(), fmt.Sprint(i), slow.ask) }()
		}
		synctest.Wait()
		if n := slow.asked.Load(); n != maxAsked {
			t.Errorf("%d are asked at a time, want %d", n, maxAsked)
		}
		time.Sleep(3 * time.Second)
		quick := &server{}
		for i := range maxAnswers + 10 {
			if _, _, err := m.get(t.Context(), fmt.Sprint("no ", i), quick.ask); err != nil {
				t.Fatal(err)
			}
		}
		if n := len(m.no.Keys()); n > maxAnswers {
			t.Errorf("%d are remembered", n)
		}
		want(t, m, known, "a", true, 1)
	})
}

func TestAccount(t *testing.T) {
	long := func(n int) string { return fmt.Sprintf("%0*d", n, 1) }
	for user, ok := range map[string]bool{
		"system:serviceaccount:ns:name":                       true,
		"system:serviceaccount:ns:name.with-dots":             true,
		"system:serviceaccount:" + long(63) + ":" + long(253): true,
		"system:serviceaccount:" + long(64) + ":name":         false,
		"system:serviceaccount:ns:" + long(254):               false,
		"system:serviceaccount:ns:":                           false,
		"system:serviceaccount::name":                         false,
		"system:serviceaccount:ns":                            false,
		"system:serviceaccount:ns:a:b":                        false,
		"system:serviceaccount:ns:A":                          false,
		"system:serviceaccount:ns:name\n":                     false,
		"system:serviceaccounts:ns:name":                      false,
		"other:system:serviceaccount:ns:name":                 false,
		"system:admin":                                        false,
		"":                                                    false,
	} {
		if _, _, got := account(user); got != ok {
			t.Errorf("account(%q) = %v", user, got)
		}
	}
}
