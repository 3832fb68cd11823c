package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"github.com/volcano-sh/agentcube/api"
)

// Bounds of what is read to be sent with a create request: its own.
const (
	maxGivenFiles = 1 << 20
	maxEnvFile    = 1 << 20
)

// givenFlags say what a session begins with.
type givenFlags struct {
	env, envFiles, files []string
}

func (g *givenFlags) add(flags *pflag.FlagSet) {
	flags.StringArrayVarP(&g.env, "env", "e", nil, "environment of all commands of the session, as `KEY=value`; may be repeated")
	flags.StringArrayVar(&g.envFiles, "env-file", nil, "`file` with lines KEY=value for the same; may be repeated")
	flags.StringArrayVar(&g.files, "file", nil, "file that is there when the session begins, as `local[:remote]`; may be repeated, up to 1 MiB in all")
}

// variables are those of the files, and over them those of the command line.
func (g *givenFlags) variables() (map[string]string, error) {
	own, err := keyValues("env", g.env)
	if err != nil {
		return nil, err
	}
	all := map[string]string{}
	for _, name := range g.envFiles {
		if err := readEnvFile(name, all); err != nil {
			return nil, err
		}
	}
	maps.Copy(all, own)
	return all, nil
}

// readEnvFile adds the variables of a file. Values are taken as they are, without
// quotes or escapes; empty lines and those that begin with # say nothing. What a
// line holds is not repeated in errors.
func readEnvFile(name string, into map[string]string) error {
	f, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("read %s: %w", name, reason(err))
	}
	defer f.Close()
	lines := bufio.NewScanner(io.LimitReader(f, maxEnvFile))
	lines.Buffer(nil, maxEnvFile)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSuffix(lines.Text(), "\r")
		if strings.TrimSpace(line) == "" || strings.HasPrefix(line, "#") {
			continue
		}
		key, value, found := strings.Cut(line, "=")
		if !found || key == "" {
			return &cliError{code: exitUsage, err: fmt.Errorf("%s:%d is not of the form KEY=value", name, n)}
		}
		into[key] = value
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read %s: %w", name, reason(err))
	}
	return nil
}

// read reads the files, which keep their permissions.
func (g *givenFlags) read() ([]api.File, error) {
	var out []api.File
	room := int64(maxGivenFiles)
	for _, spec := range g.files {
		local, remote := splitPair(spec)
		if remote == "" || strings.HasSuffix(remote, "/") {
			remote += filepath.Base(local)
		}
		content, mode, err := readRegular(local, room)
		if err != nil {
			return nil, err
		}
		room -= int64(len(content))
		out = append(out, api.File{Path: remote, Content: content, Mode: fmt.Sprintf("%04o", mode)})
	}
	return out, nil
}

// readRegular reads a regular file of at most room bytes.
func readRegular(name string, room int64) ([]byte, os.FileMode, error) {
	info, err := os.Stat(name)
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("not a regular file")
	}
	if err != nil {
		return nil, 0, withHint(fmt.Errorf("read %s: %w", name, reason(err)), copyLater)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, 0, fmt.Errorf("read %s: %w", name, reason(err))
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, room+1))
	if err != nil {
		return nil, 0, fmt.Errorf("read %s: %w", name, reason(err))
	}
	if int64(len(content)) > room {
		return nil, 0, withHint(fmt.Errorf("read %s: the files of --file have more than %s together", name, size(maxGivenFiles)), copyLater)
	}
	return content, info.Mode().Perm(), nil
}

const copyLater = "`agentcube session cp` copies folders, and files of any size, once the session is there"
