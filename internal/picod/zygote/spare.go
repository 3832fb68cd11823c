package zygote

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// spare is a forked child that waits for its job. It is PicoD's own child.
type spare struct {
	process *process
	sock    *os.File
	pid     int
	pidfd   int
	job     []byte
	done    chan struct{} // closed with the spare
}

// meet waits until the spare is ready, and takes it over.
func (s *spare) meet() error {
	var buf [64]byte
	n, err := s.receive(buf[:], forkPatience)
	if err != nil {
		return fmt.Errorf("wait for spare: %w", err)
	}
	word, text, _ := strings.Cut(string(buf[:n]), "\x00")
	pid, err := strconv.Atoi(text)
	if word != "ready" || err != nil {
		return errors.New("spare does not say who it is")
	}
	if s.pidfd, err = s.process.runner.Adopt(pid); err != nil {
		return err
	}
	s.pid = pid
	return nil
}

// receive waits for a message, for a bounded time.
func (s *spare) receive(buf []byte, patience time.Duration) (int, error) {
	end := time.Now().Add(patience)
	for {
		left := time.Until(end)
		if left < 0 {
			return 0, os.ErrDeadlineExceeded
		}
		fds := []unix.PollFd{{Fd: int32(s.sock.Fd()), Events: unix.POLLIN}}
		_, err := unix.Poll(fds, int(left.Milliseconds())+1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return 0, err
		}
		if fds[0].Revents == 0 {
			continue
		}
		n, _, err := unix.Recvfrom(int(s.sock.Fd()), buf, unix.MSG_DONTWAIT)
		if err == nil || !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// living tells whether the spare has not ended.
func (s *spare) living() bool {
	fds := []unix.PollFd{{Fd: int32(s.pidfd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n == 0
}

// PID is the process; it is a child of this one.
func (s *spare) PID() int { return s.pid }

// PidFD refers to the process. It belongs to the spare.
func (s *spare) PidFD() int { return s.pidfd }

// Hand gives the spare its job and its standard descriptors.
func (s *spare) Hand(files [3]int) error {
	rights := unix.UnixRights(files[:]...)
	for {
		err := unix.Sendmsg(int(s.sock.Fd()), s.job, rights, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// Began tells whether the spare has begun its job. After false it will not
// begin any more.
func (s *spare) Began() bool {
	if s.said("go") {
		return true
	}
	_ = unix.Shutdown(int(s.sock.Fd()), unix.SHUT_RD)
	return s.said("go")
}

func (s *spare) said(word string) bool {
	var buf [16]byte
	n, _, err := unix.Recvfrom(int(s.sock.Fd()), buf[:], unix.MSG_DONTWAIT)
	return err == nil && string(buf[:n]) == word
}

// Close frees what the spare holds in this process.
func (s *spare) Close() {
	close(s.done)
	_ = s.sock.Close()
	if s.pidfd >= 0 {
		_ = unix.Close(s.pidfd)
		s.pidfd = -1
	}
}

// Discard ends a spare that got no job.
func (s *spare) Discard() {
	if s.pidfd >= 0 {
		s.process.runner.Discard(s.pid, s.pidfd)
	}
	s.Close()
}
