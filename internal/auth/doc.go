// Package auth says who a caller is and signs and checks the tokens that pass
// between the parts of AgentCube.
//
// Three things live here. An [Authenticator] turns a request into a
// [Principal], who is an owner and has [Scopes]; [Local] does so with the token
// file that the first start of AgentCube makes, [Tokens] with those that
// administrators make for others, of which a [TokenStore] keeps the hashes.
// [LoadOrCreateRSAKey] and [ParseSessionPublicKey] read keys. [SignInit],
// [SignRouter] and [VerifyRequest] make and check the JSON Web Tokens that PicoD
// accepts; [Agreements] checks those with which the holder of a session's key
// agrees to copies of the session.
//
// Nothing here logs, and no error text holds a token or a key. Errors that a
// person can mend have a method Hint that says how.
package auth
