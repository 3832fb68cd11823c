package redis_test

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/volcano-sh/agentcube/internal/session"
	"github.com/volcano-sh/agentcube/internal/session/redis"
	"github.com/volcano-sh/agentcube/internal/session/redis/redistest"
	"github.com/volcano-sh/agentcube/internal/session/storetest"
)

// wantRefused wants Open to fail, in words that say why and tell no secret.
func wantRefused(t *testing.T, cfg redis.Config, want string) {
	t.Helper()
	cfg.Timeout = timeout
	st := redis.New(cfg)
	err := st.Open(t.Context())
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("Open: %v, want an error that says %q", err, want)
	}
	if err != nil && strings.Contains(err.Error(), "p4ss") {
		t.Errorf("the error tells the password: %v", err)
	}
	if err := st.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	p := redistest.Any(t)
	plain, evicting := p.Start(t), p.Start(t, "--maxmemory-policy", "allkeys-lru")
	locked := p.Start(t, "--requirepass", "p4ss")
	member := p.Cluster(t, 1)[0]
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		write(t, path, text)
		return path
	}
	nobody := redistest.FreePort(t)
	for name, test := range map[string]struct {
		cfg  redis.Config
		want string
	}{
		"no address":          {redis.Config{URL: plain.Addr()}, "is not the address"},
		"braces":              {redis.Config{URL: "redis://" + plain.Addr(), Prefix: "a{b}"}, "braces"},
		"throws away":         {redis.Config{URL: "redis://" + evicting.Addr()}, "allkeys-lru"},
		"password wanted":     {redis.Config{URL: "redis://" + locked.Addr()}, "NOAUTH"},
		"wrong password":      {redis.Config{URL: "redis://" + locked.Addr(), PasswordFile: file("wrong", "p4ssword")}, "WRONGPASS"},
		"no password file":    {redis.Config{URL: "redis://" + locked.Addr(), PasswordFile: filepath.Join(dir, "none")}, "no such file"},
		"empty password file": {redis.Config{URL: "redis://" + locked.Addr(), PasswordFile: file("empty", "\n")}, "one line"},
		"two passwords":       {redis.Config{URL: "redis://" + locked.Addr(), PasswordFile: file("two", "p4ss\np4ss2\n")}, "one line"},
		"no cluster":          {redis.Config{URL: "redis+cluster://" + plain.Addr() + "," + plain.Addr()}, "cluster"},
		"database of cluster": {redis.Config{URL: "redis://" + member.Addr() + "/3"}, "SELECT is not allowed"},
		"TLS files, no TLS":   {redis.Config{URL: "redis://" + plain.Addr(), CAFile: file("ca", "x")}, "rediss"},
		"CA file of none":     {redis.Config{URL: "rediss://" + plain.Addr(), CAFile: file("ca", "x")}, "no certificate"},
		"half a certificate":  {redis.Config{URL: "rediss://" + plain.Addr(), CertFile: file("cert", "x")}, "client certificate"},
		"nobody":              {redis.Config{URL: "redis://127.0.0.1:" + itoa(nobody)}, "cannot be reached"},
		"no sentinel":         {redis.Config{URL: "redis+sentinel://127.0.0.1:" + itoa(nobody) + "/cube"}, "cannot be reached"},
		"no socket":           {redis.Config{URL: "redis+unix://" + dir + "/none.sock"}, "cannot be reached"},
	} {
		t.Run(name, func(t *testing.T) { wantRefused(t, test.cfg, test.want) })
	}
}

func TestOpenRefusesStrangers(t *testing.T) {
	p := redistest.Any(t)
	var cfg redis.Config
	startSecure(t, p, &cfg, acl)
	open(t, cfg)
	for name, test := range map[string]struct {
		change func(*redis.Config)
		want   string
	}{
		"unknown authority": {func(c *redis.Config) { c.CAFile = redistest.NewCertificates(t).CA }, "certificate"},
		"no certificate":    {func(c *redis.Config) { c.CertFile, c.KeyFile = "", "" }, ""},
		"another's certificate": {func(c *redis.Config) {
			other := redistest.NewCertificates(t)
			c.CertFile, c.KeyFile = other.ClientCert, other.ClientKey
		}, ""},
		"no TLS":       {func(c *redis.Config) { *c = redis.Config{URL: strings.Replace(c.URL, "rediss", "redis", 1)} }, ""},
		"unknown user": {func(c *redis.Config) { c.URL = strings.Replace(c.URL, "cube@", "eve@", 1) }, "WRONGPASS"},
	} {
		t.Run(name, func(t *testing.T) {
			other := cfg
			test.change(&other)
			wantRefused(t, other, test.want)
		})
	}
}

// TestForbidden: a user who may not write is no reason to try again and again.
func TestForbidden(t *testing.T) {
	var cfg redis.Config
	startSecure(t, redistest.Any(t), &cfg, "~other:* +@all")
	st := open(t, cfg)
	if err := st.Ping(t.Context()); !errors.Is(err, session.ErrUnavailable) || errors.Is(err, session.ErrAway) {
		t.Errorf("Ping: %v, want ErrUnavailable alone", err)
	}
}

// TestPasswordChanges: the file is read at each connection.
func TestPasswordChanges(t *testing.T) {
	s := redistest.Any(t).Start(t, "--requirepass", "old")
	path := filepath.Join(t.TempDir(), "password")
	write(t, path, "old")
	st := open(t, redis.Config{URL: "redis://" + s.Addr(), PasswordFile: path, Timeout: timeout})
	s.Kill(t)
	s.Restart(t, "--requirepass", "new")
	write(t, path, "new")
	wantBack(t, st.Store)
}

func TestOpenCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	st := redis.New(redis.Config{URL: "redis://127.0.0.1:" + itoa(redistest.FreePort(t))})
	if err := st.Open(ctx); !errors.Is(err, context.Canceled) || errors.Is(err, session.ErrUnavailable) {
		t.Errorf("Open: %v, want context.Canceled alone", err)
	}
	frozen := redistest.Any(t).Start(t)
	frozen.Freeze(t)
	ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	st = redis.New(redis.Config{URL: "redis://" + frozen.Addr(), Timeout: timeout})
	if err := st.Open(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Open: %v, want context.DeadlineExceeded", err)
	}
}

// TestOpenWaits: a server that starts at the same time is waited for.
func TestOpenWaits(t *testing.T) {
	s := redistest.Any(t).Start(t)
	s.Kill(t)
	time.AfterFunc(timeout, func() { s.Restart(t) })
	open(t, redis.Config{URL: "redis://" + s.Addr(), Timeout: 20 * timeout})
}

func TestUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "redis.sock")
	redistest.Any(t).Start(t, "--unixsocket", path)
	st := open(t, redis.Config{URL: "redis+unix://" + path + "?database=2"})
	if _, err := st.Create(t.Context(), storetest.New(1)); err != nil {
		t.Error(err)
	}
}

// TestReserve: the first who asks has the store, for ever.
func TestReserve(t *testing.T) {
	s := redistest.Any(t).Start(t)
	cfg := redis.Config{URL: "redis://" + s.Addr()}
	for _, step := range []struct{ prefix, holder, want string }{
		{"", "a", "a"}, {"", "b", "a"}, {"", "a", "a"}, {"other:", "b", "b"},
	} {
		cfg.Prefix = step.prefix
		if got, err := open(t, cfg).Reserve(t.Context(), step.holder); got != step.want || err != nil {
			t.Errorf("Reserve(%q) with prefix %q = %q, %v, want %q", step.holder, step.prefix, got, err, step.want)
		}
	}
}
