// Package sqlite keeps session records in one SQLite file, for a single node, and
// with them what else has to outlive the process: checkpoints, the sessions' clock,
// tokens, and what counts once.
//
// The file is in write-ahead-log mode: readers never wait for the writer. One
// connection writes, a few read. Each record is one row: the session as JSON,
// beside it the columns that are searched, and LastActivity, which Touch moves
// without rewriting the record.
//
// # What survives
//
// What a method has acknowledged is in the operating system's hands, so it
// survives the death of the process at any moment, kill -9 included. After a
// power cut the last acknowledged writes may be gone, but the file is consistent:
// the setting is synchronous=NORMAL. With FULL every Touch, which is part of every
// request, would wait for the disk: 0.26 ms instead of 0.06 ms where the disk is
// fast (BenchmarkTouch, BenchmarkSynchronousFull), several where it spins. And it
// would save little: a power cut ends the sandboxes too.
//
// A file that is damaged, or made by a newer AgentCube, is refused at Open with
// a *FileError and left as it is. A single record that cannot be read is set
// aside by Due and hides no other.
package sqlite
