// Package storetest is the suite that every session.Store passes.
//
// A store's test calls [Run] with a function that makes an empty store. What
// not every store can do is asked for by optional interfaces, which the value
// that the function returns may have: [Reopener] and [Corrupter]. [Write] and
// [Verify] are the two halves of a test that kills a process in the middle of its
// writes.
package storetest
