// Package redis keeps session records on a Redis or Valkey server, for several
// processes that share them, and with them checkpoints, tokens, the sessions' clock,
// what counts once, rates, and the seats that sandboxes take.
//
// The server is one, a cluster of several masters, or a master that sentinels
// watch; [address.Forms] says how each is named. It is asked for as little as
// Redis 6.2: hashes, sorted sets and scripts.
//
// # Where things are
//
// A session is one hash, so all that is changed at once about it is on one server
// of a cluster, and sessions are spread over all of them. It holds the record as
// JSON, the last activity beside it, and a version that every update replaces. A
// script compares the version, so of two updates at once one begins anew.
//
// Listings and deadlines need indexes, which are sorted sets on one of the servers,
// and no server changes two keys on two of them at once. So an index is a hint, and
// the record decides:
//
//   - What has to be found is in the index before it counts. A new record does not
//     count until its places are written; a new version of one has places of its
//     own, which are written before it. So no death of a process, at whatever moment,
//     leaves a session that is never listed, or is never due.
//   - A place names the version, or the birth, of the record that it is about. Who
//     reads it fetches the record, and tells a place of now from one of the past,
//     which is removed, and one that may be of the future, which is left. Versions are
//     numbered and differ also where two are made at once, so a place of the past
//     never comes true again, and removing it undoes nobody's work. Each leads to
//     the record, and that counts, so it is found also where a server that took over
//     lacks the last moments of the index, or of the record.
//   - The times in the indexes are the earliest at which something may be due.
//     Activity only moves it on; Touch therefore changes the session's hash and
//     nothing else. Who finds a place whose time has come looks at the record, and
//     moves the place on where activity has.
//
// An idempotency key is a key of its own, which one record's birth is claimed by. A
// claim whose record is gone, or has given the key up, is stale: that cannot be
// undone, so it can be taken over. A record that has the claim but does not count yet,
// because whoever made it died or is just about to, is made to count by whoever asks.
//
// Checkpoints and tokens, whose names are given once, and seats, which are counted, are
// each on one server, and change by one script.
//
// # Times
//
// All times are those of the callers. The server's clock decides only when leftovers
// are forgotten: a record that was being made for ten minutes, and what the other
// methods say.
//
// # When the server is away
//
// Each script can be sent again when the answer to it got lost, and is, for a while,
// with pauses that grow and vary. Then the call fails with session.ErrAway, and for a
// moment all others do at once, without asking, while one of them looks whether the
// server is back. In a cluster, where one server may be away and others not, each
// call tries for itself.
//
// What is acknowledged is in the memory of the server. Whether it outlives that is the
// server's configuration: appendonly, and replicas.
package redis
