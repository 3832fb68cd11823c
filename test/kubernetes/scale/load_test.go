package scale

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/volcano-sh/agentcube/api"
)

// took is how long each of many calls took, and all of them together.
type took struct {
	each []time.Duration
	all  time.Duration
}

func (k took) part(of float64) time.Duration {
	if len(k.each) == 0 {
		return 0
	}
	slices.Sort(k.each)
	return k.each[min(int(of*float64(len(k.each))), len(k.each)-1)]
}

func (k took) String() string {
	return fmt.Sprintf("%d in %.1f s: %.1f/s, p50 %d ms, p95 %d ms, p99 %d ms", len(k.each), k.all.Seconds(),
		float64(len(k.each))/k.all.Seconds(), k.part(0.5).Milliseconds(), k.part(0.95).Milliseconds(), k.part(0.99).Milliseconds())
}

// times calls do so many times, by as many clients at once.
func (w *world) times(t *testing.T, clients, count int, do func(i int) error) took {
	t.Helper()
	k := took{each: make([]time.Duration, count)}
	began := time.Now()
	var next atomic.Int64
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < count; i = int(next.Add(1)) - 1 {
				start := time.Now()
				if err := do(i); err != nil {
					t.Error(err)
				}
				k.each[i] = time.Since(start)
			}
		})
	}
	wg.Wait()
	k.all = time.Since(began)
	return k
}

// create makes sessions from a template, with all managers in turn.
func (w *world) create(t *testing.T, template string, count int) ([]string, took) {
	t.Helper()
	ids := make([]string, count)
	body, err := json.Marshal(api.CreateRequest{Name: template, Namespace: namespace, PublicKey: w.publicKey})
	if err != nil {
		t.Fatal(err)
	}
	k := w.times(t, w.concurrency, count, func(i int) error {
		var made api.CreateResponse
		err := w.call(w.token, http.MethodPost, w.managers[i%len(w.managers)].url+"/v1/code-interpreter", "", body, &made)
		ids[i] = made.SessionID
		return err
	})
	return ids, k
}

// delete ends sessions. The clients are more, as each waits for a Pod to end.
func (w *world) delete(t *testing.T, ids []string) took {
	t.Helper()
	return w.times(t, 5*w.concurrency, len(ids), func(i int) error {
		return w.call(w.token, http.MethodDelete, w.managers[i%len(w.managers)].url+"/v1/code-interpreter/sessions/"+ids[i], "", nil, nil)
	})
}

// use sends requests to sessions.
func (w *world) use(t *testing.T, template string, ids []string, count int) took {
	t.Helper()
	w.sign(t)
	path := "/v1/namespaces/" + namespace + "/code-interpreters/" + template + "/invocations/api/execute"
	return w.times(t, w.concurrency, count, func(i int) error {
		return w.call(w.signed, http.MethodPost, w.routers[i%len(w.routers)].url+path, ids[rand.IntN(len(ids))], []byte(`{"command":["true"]}`), nil)
	})
}

func (w *world) call(token, method, url, session string, body []byte, out any) error {
	req, err := http.NewRequest(method, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	if session != "" {
		req.Header.Set(api.HeaderSessionID, session)
	}
	resp, err := w.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %s: %.300s", method, url, resp.Status, answer)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(answer, out)
}
