package auth

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// maxSecretBytes bounds what is read from a token or key file; the largest
// thing in one is an RSA-8192 private key of 6.4 KiB.
const maxSecretBytes = 16 << 10

// FileError is a token or key file that is refused.
type FileError struct {
	Path    string
	Problem string // completes the sentence "<path> ..."
	Fix     string // what to do about it
}

// Error implements error.
func (e *FileError) Error() string { return e.Path + " " + e.Problem }

// Hint says what to do about the problem.
func (e *FileError) Hint() string { return e.Fix }

// readPrivateFile reads a small file that nobody but its owner may read.
func readPrivateFile(path string) ([]byte, error) {
	return readFileFor(path, 0o077, "chmod 600 "+path+"; if others may have read it, remove it instead and let \"agentcube up\" make a new one")
}

// readFileFor reads a small file that has none of the permissions in forbidden; fix
// says what to do when it has.
func readFileFor(path string, forbidden fs.FileMode, fix string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	// Asked of the open file, so that it cannot be swapped in between.
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &FileError{Path: path, Problem: "is not a regular file", Fix: "remove it or name another path"}
	}
	if mode := info.Mode().Perm(); mode&forbidden != 0 {
		return nil, &FileError{Path: path, Problem: fmt.Sprintf("can be read or changed by other users (mode %04o)", mode), Fix: fix}
	}
	data, err := io.ReadAll(io.LimitReader(f, maxSecretBytes+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxSecretBytes {
		return nil, &FileError{
			Path:    path,
			Problem: fmt.Sprintf("is larger than %d bytes", maxSecretBytes),
			Fix:     "check that the path is right",
		}
	}
	return data, nil
}

// createPrivateFile makes a file with mode 0600 that appears under its name
// complete and on disk, or not at all; fs.ErrExist when the name is taken. A
// hard link, unlike a rename, never replaces what another process just made.
func createPrivateFile(path string, data []byte) (err error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(tmp.Name())) }()
	if err := writeAndSync(tmp, data); err != nil {
		return err
	}
	if err := os.Link(tmp.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

func writeAndSync(f *os.File, data []byte) error {
	err := f.Chmod(0o600)
	if err == nil {
		_, err = f.Write(data)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
