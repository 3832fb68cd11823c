package image

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// TestMain makes the test program an importer when it is started as one, and
// otherwise sees that no test leaves a goroutine behind.
func TestMain(m *testing.M) {
	if dir := os.Getenv("IMAGE_TEST_IMPORT_INTO"); dir != "" {
		os.Exit(importAsChild(dir, os.Getenv("IMAGE_TEST_SOURCE"), os.Getenv("IMAGE_TEST_MKFS")))
	}
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

func importAsChild(dir, source, mkfs string) int {
	s := New(Options{Dir: dir, Mkfs: mkfs})
	err := s.Open(context.Background())
	if err == nil {
		_, err = s.Import(context.Background(), "x", source, func(p Progress) { fmt.Println(p.Stage) })
	}
	fmt.Println("end", err)
	return 0
}

// sleepingMkfs stands for a mkfs.erofs that takes long; it writes its process
// id to the file beside it.
func sleepingMkfs(t *testing.T) (program, pidFile string) {
	t.Helper()
	program = filepath.Join(t.TempDir(), "mkfs.erofs")
	pidFile = program + ".pid"
	script := "#!/bin/sh\necho $$ >" + pidFile + ".new\nmv " + pidFile + ".new " + pidFile + "\nexec sleep 1000\n"
	if err := os.WriteFile(program, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return program, pidFile
}

// waitFor polls until ok, or fails the test when its guard runs out.
func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 3000 {
		if ok() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("never: %s", what)
}

func processGone(pidFile string) bool {
	data, err := os.ReadFile(pidFile)
	if err != nil {
		return true
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	return err == nil && errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
}

func TestKilledImportLeavesNothing(t *testing.T) {
	source := archiveFile(t, "x", gzipLayer(t, file("a", strings.Repeat("a", 20<<20))))
	for _, stage := range []string{"fetch", "unpack", "build"} {
		t.Run(stage, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "images")
			mkfs, pidFile := sleepingMkfs(t)
			cmd := exec.CommandContext(t.Context(), os.Args[0])
			cmd.Env = append(os.Environ(), "IMAGE_TEST_IMPORT_INTO="+dir, "IMAGE_TEST_SOURCE="+source, "IMAGE_TEST_MKFS="+mkfs)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewScanner(out)
			for lines.Scan() && lines.Text() != stage {
				if strings.HasPrefix(lines.Text(), "end") {
					t.Errorf("import ended: %s", lines.Text())
				}
			}
			if stage == "build" {
				waitFor(t, "mkfs.erofs started", func() bool { _, err := os.Stat(pidFile); return err == nil })
			}
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Wait(); err == nil {
				t.Error("the killed process ended well")
			}
			waitFor(t, "mkfs.erofs is gone", func() bool { return processGone(pidFile) })
			s := openStore(t, Options{Dir: dir})
			wantContents(t, s, 0, 0)
			mustImport(t, s, "x", source)
			wantContents(t, s, 3, 1)
		})
	}
}

func TestCancelEndsMkfs(t *testing.T) {
	mkfs, pidFile := sleepingMkfs(t)
	s := openStore(t, Options{Mkfs: mkfs})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer cancel()
		for ctx.Err() == nil {
			if _, err := os.Stat(pidFile); err == nil {
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
	}()
	_, err := s.Import(ctx, "x", archiveFile(t, "x", plainLayer(t, file("a", "1"))), nil)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
	if !processGone(pidFile) {
		t.Error("mkfs.erofs is still there")
	}
	wantContents(t, s, 0, 0)
}

func TestMkfsThatFails(t *testing.T) {
	source := archiveFile(t, "x", plainLayer(t, file("a", "1")))
	for name, script := range map[string]string{
		"fails":        "echo broken >&2; exit 1",
		"writes trash": "head -c 8192 /dev/zero >\"$5\"",
	} {
		t.Run(name, func(t *testing.T) {
			program := filepath.Join(t.TempDir(), "mkfs")
			if err := os.WriteFile(program, []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
				t.Fatal(err)
			}
			s := openStore(t, Options{Mkfs: program})
			_, err := s.Import(t.Context(), "x", source, nil)
			wantCode(t, err, CodeBuildFailed)
			wantContents(t, s, 0, 0)
		})
	}
	s := openStore(t, Options{Mkfs: "/nowhere/mkfs.erofs"})
	_, err := s.Import(t.Context(), "x", source, nil)
	wantCode(t, err, CodeBuildFailed)
}

func TestDiskFull(t *testing.T) {
	noise := make([]byte, 2<<20)
	if _, err := rand.Read(noise); err != nil {
		t.Fatal(err)
	}
	for name, layer := range map[string]packed{
		"storing":   plainLayer(t, file("a", string(noise)+string(noise))),
		"unpacking": plainLayer(t, file("a", string(noise))),
		"building":  gzipLayer(t, file("a", strings.Repeat("a", 2<<20))),
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := unix.Mount("none", dir, "tmpfs", 0, "size=3m"); err != nil {
				t.Fatalf("mount small file system: %v", err)
			}
			t.Cleanup(func() {
				if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
					t.Errorf("unmount: %v", err)
				}
			})
			s := openStore(t, Options{Dir: filepath.Join(dir, "images")})
			_, err := s.Import(t.Context(), "x", archiveFile(t, "x", layer), nil)
			wantCode(t, err, CodeDiskFull)
			wantContents(t, s, 0, 0)
			mustImport(t, s, "y", archiveFile(t, "y", plainLayer(t, file("a", "fits"))))
		})
	}
}
