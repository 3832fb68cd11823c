// Package audit is the format of AgentCube's audit records: what a line holds, how
// lines are chained, and how a record is checked by whoever has a copy of it.
//
// A record is JSON Lines. Each line begins with its number and the hash of the line
// before it:
//
//	{"seq":2,"prev":"<SHA-256 of line 1 in hex, without its newline>","time":"...",...}
//
// so that a line cannot be changed, taken out, put in or moved without the next one
// showing it. The first has the number 1 and 64 zeros. What a chain cannot show is
// that its end was cut off, or that all of it was written anew: for that, keep a
// [Head] of it somewhere else, and give it to [Check.Expect].
//
// There are two kinds. The server's own has an [Event] in each line. That of a
// session, which the agent in its sandbox keeps of the requests that reached it
// encrypted, has an [Entry] in each, and ends with a [Statement] that the agent has
// signed; heads of it are in the server's record as a [Seal].
package audit
