package picod

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

const accountName = "agent"

// prepareAccount sees to it that the user of commands has a name in any image,
// and returns that name. An image that cannot be written keeps what it has.
func (s *Server) prepareAccount() string {
	u := s.cfg.RunAs
	if u == nil || s.cfg.Accounts == "" {
		return accountName
	}
	shell := "/bin/sh"
	if _, err := os.Stat("/bin/bash"); err == nil {
		shell = "/bin/bash"
	}
	name, err := ensureEntry(filepath.Join(s.cfg.Accounts, "group"), u.GID, func(name string) string {
		return fmt.Sprintf("%s:x:%d:", name, u.GID)
	})
	if err == nil {
		name, err = ensureEntry(filepath.Join(s.cfg.Accounts, "passwd"), u.UID, func(name string) string {
			return fmt.Sprintf("%s:x:%d:%d:AgentCube:%s:%s", name, u.UID, u.GID, s.cfg.Workspace, shell)
		})
	}
	if err != nil {
		// Read-only images and mounted account files are usual; a name is
		// a convenience, not a reason to be without a session.
		s.log.Warn("user of commands has no name", "error", err)
		return accountName
	}
	return name
}

// ensureEntry adds a line for id to an account file, unless it has one, and
// returns the name that id goes by.
func ensureEntry(file string, id uint32, line func(name string) string) (string, error) {
	text, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read accounts: %w", err)
	}
	want, taken := strconv.FormatUint(uint64(id), 10), false
	for entry := range strings.Lines(string(text)) {
		fields := strings.Split(strings.TrimRight(entry, "\n"), ":")
		if len(fields) >= 3 && fields[2] == want {
			return fields[0], nil
		}
		taken = taken || fields[0] == accountName
	}
	name := accountName
	if taken {
		name += want
	}
	if len(text) > 0 && !bytes.HasSuffix(text, []byte("\n")) {
		text = append(text, '\n')
	}
	text = append(text, line(name)+"\n"...)
	temp := file + ".picod"
	if err := os.WriteFile(temp, text, 0o644); err != nil {
		return "", fmt.Errorf("write accounts: %w", err)
	}
	// Explicitly, because of the umask: everybody must be able to read names.
	if err := errors.Join(os.Chmod(temp, 0o644), os.Rename(temp, file)); err != nil {
		_ = os.Remove(temp)
		return "", fmt.Errorf("write accounts: %w", err)
	}
	return name, nil
}
