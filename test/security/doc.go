// Package security is the list of AgentCube's defences, and what shows that each is
// one: a [Defence] says who is kept from what, the line of code that does it, that
// line switched off, and the test that notices.
//
// `make test-security` runs the tests of the list as they are, which are the attacks,
// and then each once more against a program without the defence, where it has to
// fail. A defence whose absence no test notices is a belief. What is written here is
// held to the code by the tests of this package, which are cheap and part of
// `make test`.
//
// The code that a defence names changes. Whoever changes it changes the entry too:
// From is the text as it stands there, once in its file, and To is what it would be
// if nobody had thought of the attacker.
package security
