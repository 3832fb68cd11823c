package authtest_test

import (
	"testing"

	"github.com/volcano-sh/agentcube/internal/auth"
	"github.com/volcano-sh/agentcube/internal/auth/authtest"
	"github.com/volcano-sh/agentcube/internal/auth/tokentest"
)

func TestTokenStore(t *testing.T) {
	tokentest.Run(t, func(*testing.T) auth.TokenStore { return &authtest.TokenStore{} })
}
