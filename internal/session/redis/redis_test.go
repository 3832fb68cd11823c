package redis_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/valkey-io/valkey-go"
	"go.uber.org/goleak"

	"github.com/volcano-sh/agentcube/internal/auth"
	"github.com/volcano-sh/agentcube/internal/auth/tokentest"
	"github.com/volcano-sh/agentcube/internal/session"
	"github.com/volcano-sh/agentcube/internal/session/redis"
	"github.com/volcano-sh/agentcube/internal/session/redis/redistest"
	"github.com/volcano-sh/agentcube/internal/session/storetest"
)

// writeTo makes this test binary the process that TestKill kills.
var (
	writeTo    = flag.String("write-to", "", "write to the store on this server until killed")
	writeRound = flag.Int("write-round", 0, "number of the round")
)

func TestMain(m *testing.M) {
	flag.Parse()
	if *writeTo == "" {
		code := m.Run()
		// The client of a cluster may have put off, by up to a second, to look for
		// changes of it. After that nothing is to be left of any.
		time.Sleep(1100 * time.Millisecond)
		if err := goleak.Find(); err != nil && code == 0 {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
		os.Exit(code)
	}
	st := redis.New(redis.Config{URL: *writeTo})
	err := st.Open(context.Background())
	if err == nil {
		err = storetest.Write(context.Background(), st, *writeRound, os.Stdout)
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// timeout is short, so that tests of servers that are away are, too.
const timeout = 500 * time.Millisecond

// store adds to a Store what the suites ask for.
type store struct {
	*redis.Store
	cfg redis.Config
	// do sends a command past the store, to the server that has the key.
	do func(t testing.TB, key string, args ...string) string
}

func open(t testing.TB, cfg redis.Config) store {
	t.Helper()
	st := redis.New(cfg)
	if err := st.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return store{Store: st, cfg: cfg}
}

func (s store) reopen(t *testing.T) store {
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again := open(t, s.cfg)
	again.do = s.do
	return again
}

func (s store) Reopen(t *testing.T) session.Store         { return s.reopen(t) }
func (s store) ReopenTokens(t *testing.T) auth.TokenStore { return s.reopen(t) }

func (s store) Corrupt(t *testing.T, id string) {
	key := s.cfg.Prefix + "{session:" + id + "}"
	rec := s.do(t, key, "HGET", key, "rec")
	s.do(t, key, "HSET", key, "rec", rec[:40])
}

// suites runs all of them, each of their stores with keys of its own.
func suites(t *testing.T, cfg redis.Config, do func(t testing.TB, key string, args ...string) string) {
	var n atomic.Int32
	fresh := func(t *testing.T) store {
		own := cfg
		own.Prefix = fmt.Sprintf("suite-%d:", n.Add(1))
		st := open(t, own)
		st.do = do
		return st
	}
	t.Run("store", func(t *testing.T) {
		storetest.Run(t, func(t *testing.T) session.Store { return fresh(t) })
	})
	t.Run("tokens", func(t *testing.T) {
		tokentest.Run(t, func(t *testing.T) auth.TokenStore { return fresh(t) })
	})
	t.Run("rates", func(t *testing.T) {
		storetest.RunRates(t, func(t *testing.T) session.Rates { return fresh(t) })
	})
	t.Run("seats", func(t *testing.T) {
		storetest.RunSeats(t, func(t *testing.T) session.Seats { return fresh(t) })
	})
	t.Run("living", func(t *testing.T) {
		storetest.RunLiving(t, func(t *testing.T) storetest.LivingStore { return fresh(t) })
	})
}

// one sends commands to a single server.
func one(s *redistest.Server) func(t testing.TB, key string, args ...string) string {
	return func(t testing.TB, _ string, args ...string) string { return s.Do(t, args...) }
}

// owner finds the member of a cluster that has a key.
func owner(all []*redistest.Server) func(t testing.TB, key string, args ...string) string {
	return func(t testing.TB, key string, args ...string) string {
		slot, err := strconv.Atoi(all[0].Do(t, "CLUSTER", "KEYSLOT", key))
		if err != nil {
			t.Fatal(err)
		}
		for i, s := range all {
			if slot < (i+1)*16384/len(all) {
				return s.Do(t, args...)
			}
		}
		t.Fatalf("nobody has slot %d", slot)
		return ""
	}
}

func TestSingle(t *testing.T) {
	for _, p := range redistest.Programs(t) {
		t.Run(p.Name, func(t *testing.T) {
			s := p.Start(t)
			suites(t, redis.Config{URL: "redis://" + s.Addr()}, one(s))
		})
	}
}

// What belongs together is on one server of a cluster: it refuses commands and
// scripts whose keys are not.
func TestCluster(t *testing.T) {
	for _, p := range redistest.Programs(t) {
		t.Run(p.Name, func(t *testing.T) {
			all := p.Cluster(t, 3)
			suites(t, redis.Config{URL: "redis+cluster://" + all[0].Addr() + "," + all[1].Addr()}, owner(all))
		})
	}
}

// acl is what docs/configuration.md tells users to allow AgentCube.
const acl = "~agentcube:* +@read +@write +@scripting +@connection -@dangerous +info +cluster|slots +cluster|shards"

func TestTLSAndUser(t *testing.T) {
	for _, p := range redistest.Programs(t) {
		t.Run(p.Name, func(t *testing.T) {
			cfg := redis.Config{}
			s := startSecure(t, p, &cfg, strings.Replace(acl, "agentcube:", "suite-", 1))
			suites(t, cfg, secureDo(t, s, cfg))
		})
	}
}

// startSecure starts a server that wants TLS, a certificate, and a user who may do
// what rules say; cfg is made to fit.
func startSecure(t testing.TB, p redistest.Program, cfg *redis.Config, rules string) *redistest.Server {
	t.Helper()
	dir, certs := t.TempDir(), redistest.NewCertificates(t)
	users := filepath.Join(dir, "users.acl")
	write(t, users, "user default off\nuser cube on >p4ss "+rules+"\n")
	s := p.StartTLS(t, certs, "--aclfile", users)
	*cfg = redis.Config{
		URL: "rediss://cube@" + s.Addr(), PasswordFile: filepath.Join(dir, "password"), Timeout: cfg.Timeout,
		CAFile: certs.CA, CertFile: certs.ClientCert, KeyFile: certs.ClientKey,
	}
	write(t, cfg.PasswordFile, "p4ss\n")
	return s
}

// secureDo sends commands as one does who knows the secrets.
func secureDo(t testing.TB, s *redistest.Server, cfg redis.Config) func(t testing.TB, key string, args ...string) string {
	t.Helper()
	cert, err := tls.LoadX509KeyPair(cfg.CertFile, cfg.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(cfg.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	c, err := valkey.NewClient(valkey.ClientOption{
		InitAddress: []string{s.Addr()}, Username: "cube", Password: "p4ss", DisableCache: true, ForceSingleClient: true,
		TLSConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{cert}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return func(t testing.TB, _ string, args ...string) string {
		t.Helper()
		result := c.Do(t.Context(), c.B().Arbitrary(args...).Build())
		if n, err := result.AsInt64(); err == nil {
			return strconv.FormatInt(n, 10)
		}
		text, err := result.ToString()
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
}

func itoa(n int) string { return strconv.Itoa(n) }

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// A process that is killed in the middle of its writes loses nothing that it was
// told is stored, and leaves no session that is not found when it is due.
func TestKill(t *testing.T) {
	for _, p := range redistest.Programs(t) {
		t.Run(p.Name, func(t *testing.T) {
			all := p.Cluster(t, 3)
			url := "redis+cluster://" + all[0].Addr()
			for round := range 5 {
				killRound(t, url, round)
			}
		})
	}
}

func killRound(t *testing.T, url string, round int) {
	t.Helper()
	reports, err := os.Create(filepath.Join(t.TempDir(), "reports"))
	if err != nil {
		t.Fatal(err)
	}
	defer reports.Close()
	child := exec.CommandContext(t.Context(), os.Args[0], "-write-to", url, "-write-round", strconv.Itoa(round))
	child.Stdout = reports
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	for guard := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		if info, err := reports.Stat(); err != nil || time.Now().After(guard) {
			t.Fatalf("the writer writes nothing: %v", err)
		} else if info.Size() > int64(10_000*(round+1)) {
			break
		}
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait()
	if _, err := reports.Seek(0, 0); err != nil {
		t.Fatal(err)
	}
	st := open(t, redis.Config{URL: url})
	t.Logf("round %d: %d changes were acknowledged", round, storetest.Verify(t, t.Context(), st, reports))
	living := map[string]bool{}
	for q := (session.Query{Limit: 1000}); ; {
		page, next, err := st.List(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range page {
			if !s.Ended() {
				living[s.ID] = true
			}
		}
		if q.Cursor = next; next == "" {
			break
		}
	}
	due, err := st.Due(t.Context(), time.Now().AddDate(100, 0, 0), 1_000_000)
	if err != nil || len(due) != len(living) {
		t.Errorf("of %d living sessions %d are due, %v", len(living), len(due), err)
	}
	for _, s := range due {
		if !living[s.ID] {
			t.Errorf("session %s is due, but not listed", s.ID)
		}
	}
}
