package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"path"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/volcano-sh/agentcube/client"
)

// world is a server whose sessions have a file and a process, as far as a soak
// and sleepers look at them.
type world struct {
	mu     sync.Mutex
	made   int
	alive  map[string]*inside
	count  map[string]int // of pauses, resumes and forks
	forget bool           // memory is lost in a pause
	keep   bool           // what is deleted stays in the list
	refuse int            // so many creations are refused
}

type inside struct {
	word   string
	asked  int
	paused bool
	tags   map[string]string
}

func (w *world) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	id, verb := path.Base(r.URL.Path), ""
	if r.Method == http.MethodPost && strings.HasPrefix(r.URL.Path, "/v1/sessions/") {
		id, verb = path.Base(path.Dir(r.URL.Path)), path.Base(r.URL.Path)
	}
	s := w.alive[id]
	switch {
	case strings.HasSuffix(r.URL.Path, "/prepare"):
		fmt.Fprintln(rw, `{"done":true}`)
	case r.URL.Path == "/v1/code-interpreter" && w.refuse > 0:
		w.refuse--
		rw.WriteHeader(http.StatusTooManyRequests)
	case r.URL.Path == "/v1/code-interpreter":
		var in struct{ Metadata map[string]string }
		_ = json.NewDecoder(r.Body).Decode(&in)
		fmt.Fprintf(rw, `{"sessionId":%q}`, w.add(inside{tags: in.Metadata}))
	case strings.Contains(r.URL.Path, "/invocations/"):
		w.data(rw, r)
	case r.Method == http.MethodGet && r.URL.Path == "/v1/sessions":
		w.list(rw)
	case s == nil:
		rw.WriteHeader(http.StatusNotFound)
	case r.Method == http.MethodDelete:
		if !w.keep {
			delete(w.alive, id)
		}
	case verb == "pause":
		w.count[verb]++
		s.paused = true
		if w.forget {
			s.asked = 0
		}
		fmt.Fprint(rw, `{}`)
	case verb == "resume":
		w.count[verb]++
		s.paused = false
		fmt.Fprint(rw, `{}`)
	case verb == "fork":
		w.count[verb]++
		fmt.Fprintf(rw, `{"sessions":[{"sessionId":%q}]}`, w.add(*s))
	}
}

func (w *world) add(s inside) string {
	w.made++
	id := "s" + strconv.Itoa(w.made)
	w.alive[id] = &s
	return id
}

// data is the data plane: writing the word, exchanging it, starting the process
// and asking it.
func (w *world) data(rw http.ResponseWriter, r *http.Request) {
	s := w.alive[r.Header.Get("x-agentcube-session-id")]
	if s == nil {
		rw.WriteHeader(http.StatusGone)
		return
	}
	s.paused = false
	if strings.HasSuffix(r.URL.Path, "/api/files") {
		if _, part, err := r.FormFile("file"); err == nil && part.Filename == "word" {
			f, _ := part.Open()
			text := make([]byte, part.Size)
			_, _ = f.Read(text)
			s.word = string(text)
		}
		fmt.Fprint(rw, `{}`)
		return
	}
	var in struct{ Command []string }
	_ = json.NewDecoder(r.Body).Decode(&in)
	out := ""
	switch script := in.Command[min(2, len(in.Command)-1)]; {
	case in.Command[0] == "cat":
		out = s.word
	case strings.HasPrefix(script, "cat word"):
		out, s.word = s.word, in.Command[4]
	case strings.HasPrefix(script, "echo > ask"):
		s.asked++
		out = fmt.Sprintf("sum %d\n", s.asked)
	}
	fmt.Fprintf(rw, `{"exit_code":0,"stdout":%q,"stderr":""}`, out)
}

func (w *world) list(rw http.ResponseWriter) {
	type info struct {
		SessionID string            `json:"sessionId"`
		Metadata  map[string]string `json:"metadata"`
	}
	out := struct {
		Sessions []info `json:"sessions"`
	}{[]info{}}
	for id, s := range w.alive {
		out.Sessions = append(out.Sessions, info{id, maps.Clone(s.tags)})
	}
	_ = json.NewEncoder(rw).Encode(out)
}

func startWorld(t *testing.T, w *world) Options {
	t.Helper()
	w.alive, w.count = map[string]*inside{}, map[string]int{}
	srv := httptest.NewServer(w)
	t.Cleanup(srv.Close)
	c, err := client.New(client.Config{BaseURL: srv.URL})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return Options{Client: c, Plain: Template{"default", "plain"}, N: 3, Concurrency: []int{2}}
}

// soakUntil soaks worlds, longer each time, until the report is good: keys alone
// take long to make on a busy machine.
func soakUntil(t *testing.T, like func() *world, good func(*SoakReport) bool) (*world, *SoakReport) {
	t.Helper()
	for length := 700 * time.Millisecond; ; length *= 4 {
		w := like()
		report, err := Soak(t.Context(), startWorld(t, w), length)
		if err != nil {
			t.Fatal(err)
		}
		if good(report.Soak) || length > time.Minute {
			return w, report.Soak
		}
	}
}

func TestSoakUsesEverythingAndLeavesNothing(t *testing.T) {
	w, got := soakUntil(t, func() *world { return &world{refuse: 3} }, func(r *SoakReport) bool { return len(r.Operations) == len(soakOperations()) })
	if !got.OK() || got.Refused != 3 || got.Workers != 2 || len(got.Operations) != len(soakOperations()) {
		t.Errorf("soak %+v", got)
	}
	if w.count["pause"] == 0 || w.count["fork"] == 0 || len(w.alive) != 0 {
		t.Errorf("%v, %d sessions left", w.count, len(w.alive))
	}
}

func TestSoakSeesLostMemory(t *testing.T) {
	w, got := soakUntil(t, func() *world { return &world{forget: true} }, func(r *SoakReport) bool { return r.Wrong > 0 })
	if got.OK() || got.Wrong == 0 || got.Failed != 0 || len(got.Errors) == 0 {
		t.Errorf("soak %+v", got)
	}
	if len(w.alive) != 0 {
		t.Errorf("%d sessions left", len(w.alive))
	}
}

func TestSoakEndsEarlyAndCleansUp(t *testing.T) {
	w := &world{}
	opts := startWorld(t, w)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() { // until it is in the middle of things
		for tick := time.NewTicker(10 * time.Millisecond); ctx.Err() == nil; <-tick.C {
			w.mu.Lock()
			if len(w.alive) > 1 {
				cancel()
			}
			w.mu.Unlock()
		}
	}()
	report, err := Soak(ctx, opts, time.Hour)
	if err != nil || !report.Soak.OK() || len(w.alive) != 0 {
		t.Errorf("soak %+v, %v, %d sessions left", report.Soak, err, len(w.alive))
	}
}

func TestSleepersWakeAndAreRemoved(t *testing.T) {
	w := &world{}
	report, err := Sleepers(t.Context(), startWorld(t, w), 7)
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Results) != 2 || report.Results[1].Name != "resume_among_7" || report.Results[1].Ratio == nil {
		t.Errorf("results %+v", report.Results)
	}
	if w.made != 7 || len(w.alive) != 0 || w.count["resume"] != 6 || w.count["pause"] != 7+6 {
		t.Errorf("%d made, %d left, %v", w.made, len(w.alive), w.count)
	}
	if _, err := Sleepers(t.Context(), startWorld(t, w), 0); err == nil {
		t.Error("no sleepers accepted")
	}
}

func TestSleepMeasuresAndChecks(t *testing.T) {
	w := &world{}
	opts := startWorld(t, w)
	opts.Only = []string{Pause, Resume, Fork}
	report, err := Run(t.Context(), opts)
	if err != nil || len(report.Results) != 3 || len(w.alive) != 0 {
		t.Errorf("%+v, %v, %d sessions left", report, err, len(w.alive))
	}
	w.forget = true
	if _, err := Run(t.Context(), opts); err == nil || len(w.alive) != 0 {
		t.Errorf("memory was lost: %v, %d sessions left", err, len(w.alive))
	}
}
