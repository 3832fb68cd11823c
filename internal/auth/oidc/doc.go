// Package oidc knows callers by the access tokens that an OpenID provider has given
// them: JSON Web Tokens whose signature is checked with the provider's published keys.
//
// What a token has to say is written at [Provider.Authenticate]. The provider need not
// be there when AgentCube starts, nor afterwards: its keys are fetched when they are
// wanted first and remembered, and until then a token that names it cannot be checked,
// which is a 503. Tokens that name another issuer are none of this package's business
// and are refused at once, so that a Provider can stand first in an auth.Chain.
package oidc
