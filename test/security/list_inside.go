package security

const (
	jail   = "internal/picod/jail/jail.go"
	reads  = "internal/picod/jail/read.go"
	writes = "internal/picod/jail/write.go"
	runner = "internal/picod/proc/runner.go"
	spec   = "internal/sandbox/gvisor/spec.go"
)

func inProc(name string) Test   { return Test{In: "internal/picod/proc", Name: name} }
func inJail(name string) Test   { return Test{In: "internal/picod/jail", Name: name} }
func inDaemon(name string) Test { return Test{In: "cmd/picod", Name: name} }
func inDriver(name string) Test { return Test{In: "internal/sandbox/gvisor", Name: name} }

// files are handled by PicoD, which is root, in folders in which user code is at work.
func files() []Defence {
	return []Defence{
		{"links-out", Inside, "plants a link that leads out of the workspace", jail,
			"if !ok {\n\t\t\t\treturn \"\", len(todo), ErrEscapes\n\t\t\t}", "if !ok {\n\t\t\t\trest = strings.TrimPrefix(target, \"/\")\n\t\t\t}", inPicod("TestHostileFiles")},
		{"dots-out", Inside, "plants a link with dots that lead out of the workspace", jail,
			"if done == \".\" {\n\t\t\t\treturn \"\", len(todo), ErrEscapes\n\t\t\t}", "", inPicod("TestHostileFiles")},
		{"links-loop", Inside, "has PicoD follow links in a circle", jail,
			`if links++; links > maxLinks {`, `if links++; false {`, inPicod("TestHostileFiles").waiting()},
		{"read-beneath", Inside, "swaps a folder for a link while a file is read", reads,
			`f, err := w.root.OpenFile(resolved, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY, 0)`,
			`f, err := os.OpenFile(w.dir+"/"+resolved, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY, 0)`, inJail("TestSwappedFolders")},
		{"write-beneath", Inside, "swaps a folder for a link while a file is written", writes,
			"if err := w.mkdirAll(parent); err != nil {\n\t\treturn err\n\t}\n\tdir, err := w.root.OpenRoot(parent)",
			"dir, err := os.OpenRoot(w.dir + \"/\" + parent)", inJail("TestSwapAfterTheLook")},
		{"make-folders-beneath", Inside, "swaps a folder for a link while one is made in it", writes,
			`if err := w.root.Mkdir(dir, 0o700); errors.Is(err, fs.ErrExist) {`, `if err := os.Mkdir(w.dir+"/"+dir, 0o700); errors.Is(err, fs.ErrExist) {`, inJail("TestSwappedFolders")},
		{"no-pipes", Inside, "has PicoD wait at a pipe", reads,
			"case !info.Mode().IsRegular():\n\t\treturn ErrNotRegular\n\t}\n\treturn nil", "}\n\treturn nil", inPicod("TestHostileFiles")},
		{"never-written-in-place", Inside, "gives a file of PicoD's a second name in the workspace", writes,
			`err = unix.Renameat(int(from.Fd()), p.name, int(to.Fd()), path.Base(target))`,
			"into, err := dir.OpenFile(path.Base(target), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)\n\tif err == nil {\n\t\t_, err = io.Copy(into, io.NewSectionReader(p.file, 0, p.size))\n\t}", inPicod("TestHardLink")},
		{"folders-stay-their-owners", Inside, "has a folder of another owner's given to it", writes,
			`if int(st.Uid) != os.Geteuid() || st.Mode&0o077 != 0 {`, `if false {`, inJail("TestAdoptsItsOwnFolders")},
		{"names-in-headers", Inside, "breaks out of a header with the name of a file", "internal/picod/download.go",
			`if r < ' ' || r > '~' || r == '"' || r == '\\' || r == '%' {`, `if r < ' ' || r > '~' || r == '%' {`, inPicod("TestFileNamesInHeaders")},
		{"names-copied-out", Inside, "has a file written elsewhere on the machine of who copies it out", "internal/cli/copy.go",
			"if e.Name == \".\" || !filepath.IsLocal(e.Name) || strings.ContainsAny(e.Name, `/\\`) {", `if false {`, Test{In: "internal/cli", Name: "TestNamesFromTheSandboxStayInTheirFolder"}},
		{"machine-id-not-followed", Inside, "has PicoD write through a link that it left beside a file of the system's", "internal/picod/host.go",
			"if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {\n\t\treturn err\n\t}\n\tf, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o444)",
			"f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o444)", inPicod("TestReplaceFileFollowsNoLink")},
	}
}

// processes of user code are not PicoD's equals.
func processes() []Defence {
	return []Defence{
		{"user", Inside, "is root", runner,
			`attr.Sys.Credential = &syscall.Credential{Uid: u.UID, Gid: u.GID}`, `_ = u`, inDaemon("TestAccount")},
		{"no-new-privileges", Inside, "becomes root by a set-uid program", "internal/picod/proc/harden.go",
			`if _, _, errno := syscall.AllThreadsSyscall(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0); errno != 0 {`, `if errno := syscall.Errno(0); errno != 0 {`, inDaemon("TestDaemon")},
		{"no-dump", Inside, "reads the memory of PicoD", "internal/picod/proc/harden.go",
			`unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)`, `unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0)`, inDaemon("TestNobodyReadsPicod")},
		{"bounding-set", Inside, "gets a capability by a file that has one", "internal/picod/proc/harden.go",
			`unix.PR_CAPBSET_DROP, c, 0)`, `unix.PR_CAPBSET_READ, c, 0)`, inDaemon("TestDaemon")},
		{"own-variables", Inside, "reads what PicoD was started with", "cmd/picod/main.go",
			`if !strings.HasPrefix(name, ownPrefix) && name != *keyVar {`, `if name != "" {`, inDaemon("TestDaemon")},
		{"trees", Inside, "leaves processes behind that its time-out does not reach", runner,
			"if c.group.kill(killPatience) {\n\t\treturn\n\t}", "if unix.Kill(c.pid, unix.SIGKILL) == nil {\n\t\treturn\n\t}", inProc("TestTrees/cgroup/setsid/timeout").waiting()},
		{"process-limit", Inside, "forks without end", "internal/picod/proc/group.go",
			`c.max = strconv.Itoa(maxProcesses)`, `_ = strconv.Itoa(maxProcesses)`, inProc("TestProcessLimit")},
		{"output-bounded", Inside, "prints until PicoD's memory is full", "internal/picod/proc/output.go",
			`if !o.budget.take(budgetStep) {`, `if !o.budget.take(budgetStep) && false {`, inProc("TestBudget")},
	}
}

// machine is what keeps a sandbox from the host and from other sandboxes.
func machine() []Defence {
	return []Defence{
		{"network-namespace", Inside, "is in the network of the host", spec,
			`{Type: specs.UTSNamespace}, {Type: specs.NetworkNamespace, Path: b.netns},`, `{Type: specs.UTSNamespace},`, inDriver("TestOCISpecGolden")},
		{"network-is-empty", Inside, "finds a link in its network", "internal/sandbox/gvisor/netns.go",
			`if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {`, `if err := unix.Unshare(0); err != nil {`, inDriver("TestSentryIsConfined")},
		{"capabilities", Inside, "runs its own server with what lifts the limit of processes", spec,
			"if f.agent() {\n\t\tcaps = append(", "if true {\n\t\tcaps = append(", inDriver("TestOCISpecGolden")},
		{"user-namespace", Inside, "takes gVisor's kernel over and is at the host's files", "internal/sandbox/gvisor/runsc.go",
			`"directfs": "false",`, `"directfs": "true",`, inDriver("TestSentryIsConfined")},
		{"sockets-of-others", Inside, "takes gVisor's kernel over and has a neighbour's socket", "internal/sandbox/gvisor/sentry/strangers.go",
			`if err != nil || !strings.HasPrefix(file, "socket:") {`, `if err != nil || strings.HasPrefix(file, "") {`, Test{In: "internal/sandbox/gvisor/sentry", Name: "TestCloseStrangers"}},
		{"limits", Inside, "takes the memory of the machine", "internal/sandbox/gvisor/run.go",
			`errors.Join(d.groups.create(id, f.Resources), d.groups.limitCPU(id, f.Resources, false))`, `d.groups.create(id, sandbox.Resources{MemoryBytes: 8 << 30, CPUMillis: 4000, Processes: 4096})`, inDriver("TestLimitsAreSet")},
		{"in-its-group", Inside, "is outside of its control group", "internal/sandbox/gvisor/run.go",
			`return r, ours, d.groups.join(id, descendants(r.at.PID))`, `return r, ours, nil`, inDriver("TestLimitsAreSet")},
		{"snapshot-sums", Inside, "begins from a snapshot that was damaged", "internal/sandbox/gvisor/sums.go",
			`if got.Size != want.Size || want.CRC32C != nil && *got.CRC32C != *want.CRC32C {`, `if got.Size != want.Size {`, inDriver("TestBadSnapshots")},
	}
}
