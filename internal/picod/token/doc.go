// Package token decides who may use a PicoD: it verifies the JWT of each
// request, and locks PicoD to the key of its session, once and for ever.
//
// A [Gate] has up to three keys. The bootstrap key may only initialise; the key
// it brings is the session key, and the only one that is accepted from then on.
// The router key, given from outside, opens a PicoD that nobody initialised.
//
// What binds a token to one request is in one place, [Gate.bind]: the body hash,
// the session, the single use of a jti. Claims that are absent bind nothing,
// because older clients do not send them.
package token
