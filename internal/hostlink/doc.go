// Package hostlink is the line between the host and PicoD inside a sandbox:
// four pipes. Two carry the trunk (package trunk), two carry control messages,
// which only the host can send: user code has no end of them.
//
// Pipes, as they are what gVisor gives back to a restored sandbox under any
// number; and two lines, as what was on its way on the trunk when a snapshot
// was taken would otherwise be taken for the beginning of a message. After
// each start and each restore the host sends OpConnect with a nonce, and once that
// is answered, both sides write the nonce on the trunk, and both throw away what
// they read before it.
//
// A message is one line of JSON, answered by one line, one at a time.
package hostlink
