package auth

import (
	"errors"
	"net/http"

	"github.com/volcano-sh/agentcube/api"
)

// Chain asks one authenticator after the other until one knows the caller.
type Chain []Authenticator

// Authenticate implements Authenticator. What the last one says of a caller whom
// nobody knows is the answer. One that could not check ends the search: who is
// refused by the others might have been let in by that one.
func (c Chain) Authenticate(r *http.Request) (p Principal, err error) {
	err = Unauthorized("Missing authorization header")
	for _, a := range c {
		if p, err = a.Authenticate(r); err == nil {
			return p, nil
		}
		if e, ok := errors.AsType[*api.Error](err); !ok || e.Status != http.StatusUnauthorized {
			return Principal{}, err
		}
	}
	return Principal{}, err
}
