package manager

import (
	"cmp"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/volcano-sh/agentcube/api"
)

// Bounds of what a create request may give its session.
const (
	maxVariables = 128
	maxEnvBytes  = 64 << 10 // of names and values together
	maxFiles     = 64
	maxFileBytes = 1 << 20 // of contents together
	maxPathBytes = 4096
)

var (
	variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	fileMode     = regexp.MustCompile(`^0?[0-7]{3}$`)
)

// given is what a create request gives one session alone: variables, and files
// that are there when it begins. It goes to the sandbox and into no record or
// log, as it may hold secrets.
type given struct {
	env   map[string]string
	files []api.File
}

func (g given) empty() bool { return len(g.env)+len(g.files) == 0 }

// checkGiven checks what can be known of a request without its sandbox.
func checkGiven(req Request) error {
	if err := checkEnv(req.Env); err != nil {
		return err
	}
	return checkFiles(req.Files)
}

// checkEnv never repeats a value.
func checkEnv(env map[string]string) error {
	if len(env) > maxVariables {
		return invalid("env has more than %d variables", maxVariables)
	}
	total := 0
	for _, name := range slices.Sorted(maps.Keys(env)) {
		value := env[name]
		total += len(name) + len(value)
		switch {
		case !variableName.MatchString(name):
			return invalid("env: %s is not the name of a variable", shorten(name)).
				WithHint("names are letters, digits and '_', and do not begin with a digit")
		case name == "PWD":
			return invalid("env: PWD cannot be set: it is the working directory of each command")
		case strings.IndexByte(value, 0) >= 0:
			return invalid("env: the value of %s holds a NUL character", shorten(name))
		}
	}
	if total > maxEnvBytes {
		return invalid("env has more than %d bytes of names and values", maxEnvBytes)
	}
	return nil
}

// checkFiles leaves to PicoD, which knows the workspace and what is in it, what
// an absolute path means and where links lead.
func checkFiles(files []api.File) error {
	if len(files) > maxFiles {
		return invalid("files are more than %d", maxFiles)
	}
	total := 0
	seen := make(map[string]int, len(files))
	for i, f := range files {
		clean := path.Clean(f.Path)
		if why := wrongPath(f.Path, clean); why != "" {
			return invalid("files[%d].path %s", i, why)
		}
		if first, twice := seen[clean]; twice {
			return invalid("files[%d].path is that of files[%d]", i, first)
		}
		seen[clean] = i
		if f.Mode != "" && !fileMode.MatchString(f.Mode) {
			return invalid("files[%d].mode must be permissions in octal, such as 0644", i)
		}
		total += len(f.Content)
	}
	if total > maxFileBytes {
		return invalid("files have more than %d bytes of content", maxFileBytes).
			WithHint("upload what is large once the session is there")
	}
	return nil
}

// wrongPath says what is wrong with the path of a file, or nothing.
func wrongPath(name, clean string) string {
	switch base := path.Base(name); {
	case name == "":
		return "is required"
	case len(name) > maxPathBytes:
		return fmt.Sprintf("is longer than %d bytes", maxPathBytes)
	case strings.IndexByte(name, 0) >= 0:
		return "holds a NUL character"
	case clean == ".." || strings.HasPrefix(clean, "../"):
		return "leaves the workspace"
	case strings.HasSuffix(name, "/"), base == ".", base == "..":
		return "is that of a folder"
	}
	return ""
}

// permissions are those of a file that passed checkFiles.
func permissions(f api.File) uint32 {
	n, err := strconv.ParseUint(cmp.Or(f.Mode, "0644"), 8, 32)
	if err != nil {
		panic("manager: unchecked mode: " + err.Error())
	}
	return uint32(n)
}

// seal tells what two requests give apart without telling what it is: the
// digest is kept, and short secrets would be guessed from it. "" when nothing
// is given.
func (m *Manager) seal(env map[string]string, files []api.File) string {
	if len(env)+len(files) == 0 {
		return ""
	}
	files = slices.SortedFunc(slices.Values(files), func(a, b api.File) int { return cmp.Compare(a.Path, b.Path) })
	body, err := json.Marshal(struct {
		Env   map[string]string
		Files []api.File
	}{env, files})
	if err != nil {
		panic("manager: files do not marshal: " + err.Error()) // texts and bytes always do
	}
	key, err := hkdf.Key(sha256.New, m.cfg.BootstrapKey.D.Bytes(), nil, "agentcube digest of create requests", sha256.Size)
	if err != nil {
		panic("manager: no key for digests: " + err.Error()) // only for lengths that cannot be
	}
	mac := hmac.New(sha256.New, key)
	mac.Write(body)
	return hex.EncodeToString(mac.Sum(nil))
}

// readEnv reads the env of a create request. A value of another kind than a
// text may be a secret all the same: it is not repeated.
func readEnv(in map[string]json.RawMessage) (map[string]string, error) {
	if len(in) == 0 {
		return nil, nil
	}
	out := make(map[string]string, len(in))
	for name, raw := range in {
		var value *string
		if err := json.Unmarshal(raw, &value); err != nil || value == nil {
			return nil, invalid("env: the value of %s must be a string", shorten(name))
		}
		out[name] = *value
	}
	return out, nil
}

// fileBody is an api.File as it arrives: null is told from the empty string.
type fileBody struct {
	Path    string  `json:"path"`
	Content *string `json:"content"`
	Mode    string  `json:"mode"`
}

func readFiles(in []fileBody) ([]api.File, error) {
	if len(in) == 0 {
		return nil, nil
	}
	out := make([]api.File, len(in))
	for i, f := range in {
		if f.Content == nil {
			return nil, invalid("files[%d].content is required", i)
		}
		content, err := base64.StdEncoding.Strict().DecodeString(*f.Content)
		if err != nil {
			return nil, invalid("files[%d].content is not base64 with padding", i).WithCause(err)
		}
		out[i] = api.File{Path: f.Path, Content: content, Mode: f.Mode}
	}
	return out, nil
}
