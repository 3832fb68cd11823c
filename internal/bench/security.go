package bench

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/volcano-sh/agentcube/client"
)

// securitySamples is how many times more samples it takes to see a difference of a
// few per cent.
const securitySamples = 10

// security measures, in one session and in turns, what a command costs with and
// without encryption from end to end, and a signature of it.
func (r *runner) security(ctx context.Context) (_ []Result, err error) {
	if err := r.prepare(ctx, r.Plain); err != nil {
		return nil, err
	}
	s, remove, err := r.session(ctx, r.Plain)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, remove()) }()
	if s.Info.Secure == nil {
		return nil, errors.New("bench: the server offers no encryption from end to end to measure")
	}
	execute := func(s *client.Session) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := s.Execute(ctx, client.ExecRequest{Command: []string{"true"}})
			return err
		}
	}
	ops := []op{
		r.timed(ExecEncrypted, execute(s)), r.timed(refExecPlain, execute(s.InPlainText())), r.timed(SignAndCheck, r.signAndCheck),
	}
	// The first ones pay for connections and what else the others find done.
	r.samples = map[string][]float64{}
	for _, do := range ops {
		if err := do(ctx, 0); err != nil {
			return nil, err
		}
	}
	if err := r.take(ctx, r.N*securitySamples, 1, nil, ops...); err != nil {
		return nil, err
	}
	return []Result{r.result(ExecEncrypted, "ms", 1, refExecPlain), r.result(SignAndCheck, "ms", 1, refExecPlain)}, nil
}

// signAndCheck does what a client does for a request, and then twice, as the Router
// and PicoD do, what who receives it does.
func (r *runner) signAndCheck(context.Context) error {
	now := time.Now()
	token, err := jwt.NewWithClaims(jwt.SigningMethodRS256, jwt.MapClaims{
		"iss": "sdk-client", "iat": now.Unix(), "exp": now.Add(5 * time.Minute).Unix(), "jti": rand.Text(),
		"sid": "00000000-0000-4000-8000-000000000000", "htm": "POST", "htu": "/api/execute", "body_sha256": fmt.Sprintf("%064x", 0),
	}).SignedString(r.key)
	if err != nil {
		return fmt.Errorf("sign: %w", err)
	}
	for range 2 {
		if _, err := jwt.Parse(token, func(*jwt.Token) (any, error) { return &r.key.PublicKey, nil }, jwt.WithValidMethods([]string{"RS256"})); err != nil {
			return fmt.Errorf("check signature: %w", err)
		}
	}
	return nil
}
