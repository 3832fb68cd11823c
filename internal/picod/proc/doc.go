// Package proc runs commands for PicoD: it starts them, bounds what they may
// use and say, and ends them with everything they started.
//
// # One thread per command
//
// A command is awaited by the goroutine that asked for it, in one poll(2) over
// both output pipes and a pidfd. No goroutine is handed anything, which is what
// keeps the cost of a short command close to a bare fork and exec; inside a
// sandbox kernel every wake-up of another thread is dear. The number of
// commands at a time is the caller's to bound.
//
// # What is bounded before the first instruction of a command
//
// Nothing is set after the start, because a command could be faster. The thread
// that forks steps into the command's control group, forks, and steps back out
// (cgroup v1 lets one thread move by itself); RLIMIT_NPROC is put on PicoD
// for the moment of the fork and taken off again. The user is changed by the
// child itself. Capabilities and no_new_privs are properties of the whole
// daemon, see [Harden].
//
// # Process trees
//
// Every command has a session and a control group of its own. Killing means
// killing all members until there are none, so setsid and double forks do not
// help, while the group's process limit refuses new ones. Where control groups
// cannot be had, the tree is found by walking /proc: descendants, members of the
// session, and processes that still carry the command's marker variable.
//
// The groups are in the hierarchy of the pids controller, below one group with
// the limit of all commands together. gVisor looks only at the group that
// a process is in; there each command's group has the same limit, and RLIMIT_NPROC
// limits the user of all commands. Commands that run as root are, in gVisor,
// limited one by one.
//
// When the direct child ends on its own, what it left in the background keeps
// running and counts against the process limit. Its pipes are emptied and
// forgotten, so that a server that logs is not ended by a broken pipe. When
// a command runs out of time, or the one who asked for it goes away, all of its
// tree is killed, background processes included.
package proc
