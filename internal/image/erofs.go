package image

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// latestTime is the latest modification time in an EROFS file, and the time of
// its superblock: 2106-02-07, the end of unsigned 32-bit seconds.
const latestTime = 1<<32 - 1

// WriteEROFS makes the EROFS file out of the tree at dir with mkfs.erofs (mkfs;
// empty means the one in PATH), in the form that gVisor reads: not compressed,
// 4 KiB blocks, no extended attributes, and no file content inside inodes,
// which gVisor cannot map into memory. The same tree gives the same bytes. An
// out left behind after an error is the caller's to remove. Errors have
// CodeBuildFailed or CodeDiskFull.
func WriteEROFS(ctx context.Context, mkfs, dir, out string) error {
	if mkfs == "" {
		mkfs = "mkfs.erofs"
	}
	program, err := exec.LookPath(mkfs)
	if err != nil {
		return &Error{Code: CodeBuildFailed, Text: "find mkfs.erofs", Cause: err, Hint: "install erofs-utils, 1.5 or later"}
	}
	cmd := exec.CommandContext(ctx, program, "--quiet", "-x-1", "-Enoinline_data",
		"-U00000000-0000-0000-0000-000000000000", out, dir)
	// With this set, mkfs.erofs keeps times up to it and takes it for its own.
	cmd.Env = []string{"LC_ALL=C", "PATH=" + defaultPath, "SOURCE_DATE_EPOCH=" + strconv.FormatInt(latestTime, 10)}
	// It dies with this process, even with one that is killed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = 5 * time.Second
	notes := &tailBuffer{most: 4096}
	cmd.Stdout, cmd.Stderr = notes, notes
	if err := runOnThread(cmd); err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("run mkfs.erofs: %w", ctx.Err())
		}
		code := CodeBuildFailed
		if strings.Contains(notes.String(), "No space left") || strings.Contains(notes.String(), "[Error 28]") {
			code = CodeDiskFull
		}
		return &Error{Code: code, Text: "mkfs.erofs failed: " + notes.String(), Cause: err,
			Hint: "check free space and that erofs-utils is 1.5 or later"}
	}
	return finishEROFS(out)
}

// runOnThread runs cmd from one thread until it ends: the death signal is sent
// when the thread that started a child goes, not the process.
func runOnThread(cmd *exec.Cmd) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		done <- cmd.Run()
	}()
	return <-done
}

// finishEROFS checks the superblock against what gVisor accepts and makes the
// file durable.
func finishEROFS(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return classify(err, CodeBuildFailed, "open EROFS file")
	}
	defer f.Close()
	var sb [128]byte
	if _, err := f.ReadAt(sb[:], 1024); err != nil {
		return classify(err, CodeBuildFailed, "read EROFS file")
	}
	magic, blockBits := binary.LittleEndian.Uint32(sb[0:]), sb[12]
	incompatible := binary.LittleEndian.Uint32(sb[80:])
	if magic != 0xe0f5e1e2 || blockBits != 12 || incompatible != 0 {
		return &Error{Code: CodeBuildFailed,
			Text: fmt.Sprintf("mkfs.erofs wrote what gVisor cannot read: magic %#x, block bits %d, features %#x", magic, blockBits, incompatible),
			Hint: "use erofs-utils 1.5 to 1.8"}
	}
	return classify(errors.Join(f.Chmod(0o444), f.Sync()), CodeBuildFailed, "sync EROFS file")
}

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// tailBuffer keeps the last bytes written to it.
type tailBuffer struct {
	buf  []byte
	most int
}

func (t *tailBuffer) Write(p []byte) (int, error) {
	t.buf = append(t.buf, p...)
	if over := len(t.buf) - t.most; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	return len(p), nil
}

func (t *tailBuffer) String() string { return string(bytes.TrimSpace(t.buf)) }
