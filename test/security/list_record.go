package security

const (
	chainFile  = "api/audit/chain.go"
	recordFile = "api/audit/session.go"
)

func inFormat(name string) Test { return Test{In: "api/audit", Name: name} }
func inLog(name string) Test    { return Test{In: "internal/audit", Name: name} }

// records are what keeps the audit record from being changed, or gone round, and what
// guards the ports of a session.
func records() []Defence {
	return []Defence{
		{"audit-line-changed", Client, "changes a line of the record", chainFile, `case l.Prev != h.prev():`, `case false:`, inFormat("TestChain")},
		{"audit-line-missing", Client, "takes a line out of the record and mends the hashes", chainFile, `case l.Seq != h.Seq+1:`, `case false:`, inFormat("TestChain")},
		{"audit-oldest-missing", Client, "takes the oldest files away", "internal/audit/verify.go",
			`if v.First.Seq > 0 && !slices.Contains(v.removed, v.First) {`, `if false {`, inLog("TestTamperingIsLocated")},
		{"audit-end-missing", Client, "cuts off the end, or writes all of it anew", "internal/audit/verify.go",
			`if h.Seq > v.First.Seq {`, `if false {`, inLog("TestTamperingIsLocated")},
		{"audit-one-writer", Client, "writes beside AgentCube", "internal/audit/log.go",
			`if err := unix.Flock(int(l.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {`,
			`if err := unix.Flock(int(l.lock.Fd()), unix.LOCK_UN); err != nil {`, inLog("TestGoesOn")},
		{"audit-waits-for-room", Client, "fills the disk, so that nothing is recorded", "internal/audit/append.go",
			`l.waiting = append(l.waiting, e)`, ``, inLog("TestDiskFull")},
		{"audit-router-ready", Client, "fills the disk, and uses sessions unrecorded", "internal/router/router.go",
			`if err := rt.cfg.Audit.Ready(); err != nil {`, `if err := rt.cfg.Audit.Ready(); err != nil && false {`, inRouter("TestNothingIsDoneUnrecorded")},
		{"audit-manager-ready", Client, "fills the disk, and makes sessions unrecorded", "internal/manager/http.go",
			`err = m.cfg.Audit.Ready()`, `_ = m.cfg.Audit.Ready()`, inManager("TestNothingIsDoneUnrecorded")},
		{"audit-strangers", Client, "fills the record with requests of nobody", "internal/audit/strangers.go",
			`if now.Sub(s.last) < strangersEvery {`, `if false {`, inRouter("TestRefusedAreRecorded")},
		{"audit-no-tokens", Client, "finds tokens in the record that are good for more", "internal/router/record.go",
			` || claims.Method == ""`, ``, inRouter("TestRequestsAreRecorded")},
		{"record-signed", Router, "makes up the record of a session", recordFile,
			`if claims.Session != session {`, `if claims.Session != session && false {`, inFormat("TestRecord")},
		{"record-whole", Router, "leaves out the end of the record of a session", recordFile,
			`if head != statement.Head {`, `if false {`, inFormat("TestRecord")},
		{"record-of-copy", Neighbour, "reads in a copy what was done in the original", "internal/picod/host.go",
			`s.journal.Store(new(journal.Journal))`, `_ = new(journal.Journal)`, inPicod("TestCopyBeginsARecord")},
		{"record-bounded", Inside, "has PicoD's memory filled with requests", "internal/picod/journal/journal.go",
			`for j.bytes > MaxBytes {`, `for false {`, inPicod("TestJournalIsBounded")},
		{"seal-purpose", Router, "has sessions sealed with another token", cert,
			`case claims.text("purpose") != SealPurpose:`, `case false:`, inPicod("TestSeal")},
		{"seal-for-this-sandbox", Router, "has another session sealed", cert,
			`case claims.text("sandboxId") != now.cfg.SandboxID || claims.text("sessionId") != now.session.ID:`, `case false:`, inPicod("TestSeal")},
		{"port-body", Router, "sends something else to a server in a session", "internal/picod/port.go",
			`if err := claims.CheckBody(sum); err != nil {`, `if err := claims.CheckBody(sum); err != nil && false {`, inPicod("TestPort")},
		{"port-signature", Client, "reaches servers in a session without its key", "internal/picod/port.go",
			`claims, p := q.authorize()`, `claims, p := q.authorize(); p = nil`, inPicod("TestPort")},
		{"port-token", Inside, "is shown the tokens of requests to its server", "internal/picod/port.go",
			`out.Header.Del("Authorization")`, ``, inPicod("TestPort")},
		{"sdk-record-signed", Router, "makes up the record of a session", "sdk/python/src/agentcube/_audit.py",
			`if not sound or session != session_id:`, `if not sound:`, Test{In: "sdk/python/tests/unit/test_audit.py", Name: "test_refused"}},
		{"sdk-record-chained", Router, "changes the record of a session", "sdk/python/src/agentcube/_audit.py",
			`if entry.get("seq") != number + 1 or entry.get("prev") != digest:`, `if False:`,
			Test{In: "sdk/python/tests/unit/test_audit.py", Name: "test_refused"}},
	}
}
