package cli

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/volcano-sh/agentcube/internal/auth"
	"github.com/volcano-sh/agentcube/internal/config"
	"github.com/volcano-sh/agentcube/internal/manager"
	"github.com/volcano-sh/agentcube/internal/session"
	"github.com/volcano-sh/agentcube/internal/session/redis"
	"github.com/volcano-sh/agentcube/internal/session/sqlite"
)

// store is what both planes keep sessions and tokens in.
type store interface {
	manager.Store
	session.Once
	session.Pinger
	auth.TokenStore
	Close() error
}

func (s *server) openStore(ctx context.Context) (func() error, error) {
	if s.cfg.Store != "redis" {
		local := sqlite.New(s.cfg.SessionStorePath())
		s.store = local
		if err := local.Open(ctx); err != nil {
			return nil, err
		}
		return local.Close, nil
	}
	shared := redis.New(redisConfig(s.cfg))
	s.store = shared
	if err := shared.Open(ctx); err != nil {
		return nil, err
	}
	return shared.Close, s.reserve(ctx, shared)
}

func redisConfig(cfg *config.Config) redis.Config {
	return redis.Config{
		URL: cfg.RedisURL, PasswordFile: cfg.RedisPasswordFile, CAFile: cfg.RedisCAFile,
		CertFile: cfg.RedisCertFile, KeyFile: cfg.RedisKeyFile, Prefix: cfg.RedisPrefix, Timeout: cfg.RedisTimeout,
	}
}

// reserve makes the sessions on a server this machine's: their sandboxes are
// here, and a machine that took those of another for its own would end them.
func (s *server) reserve(ctx context.Context, shared *redis.Store) error {
	mine, err := installation(s.cfg)
	if err != nil {
		return err
	}
	holder, err := shared.Reserve(ctx, mine)
	if err != nil {
		return err
	}
	if holder != mine {
		return withHint(fmt.Errorf("open session store: the keys that begin with %q belong to another installation of AgentCube", s.cfg.RedisPrefix),
			"choose a prefix of its own with --redis-prefix; if the data folder of that installation is lost, remove the key "+
				shared.ReserveKey()+", and its sessions end")
	}
	return nil
}

// installation is what tells this data folder from all others: random, and made
// at the first start.
func installation(cfg *config.Config) (string, error) {
	path := cfg.InstallationPath()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	switch {
	case err == nil:
		name := rand.Text()
		_, err = f.WriteString(name + "\n")
		if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
			return "", fmt.Errorf("make installation file: %w", err)
		}
		return name, nil
	case !errors.Is(err, fs.ErrExist):
		return "", fmt.Errorf("make installation file: %w", err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read installation file: %w", err)
	}
	name := strings.TrimSpace(string(text))
	if name == "" {
		return "", withHint(fmt.Errorf("read installation file: %s is empty", path), "remove it")
	}
	return name, nil
}
