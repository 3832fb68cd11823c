package kubeauth

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/kubernetes"

	"github.com/volcano-sh/agentcube/internal/auth"
)

// defaultCacheFor is how old what the API server said may be.
const defaultCacheFor = time.Minute

// Config of a Cluster.
type Config struct {
	// Client may create TokenReviews and SubjectAccessReviews. Its own rate limit should
	// be off (QPS -1 in its rest.Config): a Cluster bounds what it asks itself.
	Client kubernetes.Interface
	// Audiences are those of which a token needs one; it is for no other server then,
	// and no other server can use it here. That of the API server itself, which tokens
	// have that Pods get without asking, is one only where it is in the list. At least
	// one is required.
	Audiences []string
	// CacheFor is for how long an answer of the API server counts; 0 means 1 min. So long
	// goes on who has been deleted, or may no longer do something.
	CacheFor time.Duration
}

// Cluster is an auth.Authenticator and an auth.Authorizer.
type Cluster struct {
	cfg     Config
	callers *memory[auth.Principal] // by digest of the token
	rights  *memory[struct{}]       // by who, what and of which template
}

var (
	_ auth.Authenticator = (*Cluster)(nil)
	_ auth.Authorizer    = (*Cluster)(nil)
)

// New makes a Cluster. It does no I/O. The error says that the Config is incomplete.
func New(cfg Config) (*Cluster, error) {
	if cfg.Client == nil || len(cfg.Audiences) == 0 {
		return nil, errors.New("make authenticator: it needs a client and an audience")
	}
	if cfg.CacheFor == 0 {
		cfg.CacheFor = defaultCacheFor
	}
	return &Cluster{cfg: cfg, callers: newMemory[auth.Principal](cfg.CacheFor), rights: newMemory[struct{}](cfg.CacheFor)}, nil
}

// account splits the name of a service account, which is the only kind of user that is
// a caller here.
func account(user string) (namespace, name string, ok bool) {
	rest, ok := strings.CutPrefix(user, auth.ServiceAccountPrefix)
	if !ok {
		return "", "", false
	}
	namespace, name, ok = strings.Cut(rest, ":")
	ok = ok && len(validation.IsDNS1123Label(namespace)) == 0 && len(validation.IsDNS1123Subdomain(name)) == 0
	return namespace, name, ok
}

// fail is what a caller is told whom nobody could answer for.
func fail(ctx context.Context, what string, err error, unanswered func(error) error) error {
	if ctx.Err() != nil && !errors.Is(err, errUnanswered) {
		return fmt.Errorf("%s: %w", what, ctx.Err())
	}
	return unanswered(fmt.Errorf("%s: %w", what, err))
}
