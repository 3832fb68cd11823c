package picod

import (
	"encoding/base64"
	"errors"
	"io/fs"
	"mime"
	"net/http"
	"os"
	"path"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/volcano-sh/agentcube/internal/picod/jail"
)

// download sends one file, or the range of it that was asked for.
func (q *request) download() *problem {
	if _, p := q.authorize(); p != nil {
		return p
	}
	name := strings.TrimPrefix(q.r.URL.Path, "/api/files/")
	rel, err := q.ws.Rel(name)
	if err != nil {
		return badPath(err, "File")
	}
	file, info, err := q.openFile(rel, name)
	if errors.Is(err, jail.ErrIsDir) {
		return fault(http.StatusBadRequest, "PATH_IS_DIRECTORY", "Path is a directory, not a file")
	}
	if errors.Is(err, jail.ErrNotDir) {
		err = fs.ErrNotExist
	}
	if err != nil {
		return badPath(err, "File")
	}
	defer file.Close()
	h := q.w.Header()
	h.Set("Content-Type", contentType(rel))
	h.Set("Content-Disposition", disposition(path.Base(rel)))
	h.Set("Content-Description", "File Transfer")
	h.Set("Content-Transfer-Encoding", "binary")
	// Not http.ServeFile, which answers a file named index.html with a redirect.
	http.ServeContent(q.w, q.r, "", info.ModTime(), file)
	return nil
}

// openFile opens rel, or what an absolute path means whose slash was cut off.
func (q *request) openFile(rel, name string) (*os.File, fs.FileInfo, error) {
	file, info, err := q.ws.OpenFile(rel)
	if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, jail.ErrNotDir) || strings.HasPrefix(name, "/") {
		return file, info, err
	}
	other, relErr := q.ws.Rel("/" + name)
	if relErr != nil || other == rel {
		return nil, nil, err
	}
	return q.ws.OpenFile(other)
}

// contentType goes by the extension, from a table that does not depend on what
// the image has in /etc.
func contentType(name string) string {
	if t, ok := knownTypes()[strings.ToLower(path.Ext(name))]; ok {
		return t
	}
	if t := mime.TypeByExtension(path.Ext(name)); t != "" {
		return t
	}
	return "application/octet-stream"
}

func knownTypes() map[string]string {
	return map[string]string{
		".csv": "text/csv; charset=utf-8", ".txt": "text/plain; charset=utf-8", ".log": "text/plain; charset=utf-8",
		".md": "text/markdown; charset=utf-8", ".json": "application/json", ".py": "text/x-python; charset=utf-8",
		".sh": "application/x-sh", ".png": "image/png", ".svg": "image/svg+xml", ".pdf": "application/pdf",
		".zip": "application/zip", ".gz": "application/gzip", ".tar": "application/x-tar",
	}
}

// disposition is an attachment header (RFC 6266): a name that every client can
// read and, when that is not the real one, the real one beside it.
func disposition(name string) string {
	plain := strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || r == '"' || r == '\\' || r == '%' {
			return '_'
		}
		return r
	}, name)
	if plain == name {
		return `attachment; filename="` + name + `"`
	}
	const unreserved = "!#$&+-.^_`|~"
	var b strings.Builder
	for _, c := range []byte(strings.ToValidUTF8(name, "\uFFFD")) {
		if c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || strings.IndexByte(unreserved, c) >= 0 {
			b.WriteByte(c)
			continue
		}
		const hexDigits = "0123456789ABCDEF"
		b.Write([]byte{'%', hexDigits[c>>4], hexDigits[c&15]})
	}
	return `attachment; filename="` + plain + `"; filename*=UTF-8''` + b.String()
}

type listEntry struct {
	Name       string `json:"name"`
	NameBase64 string `json:"name_base64,omitempty"` // when the name is not UTF-8
	Size       int64  `json:"size"`
	Modified   string `json:"modified"`
	Mode       string `json:"mode"`
	IsDir      bool   `json:"is_dir"`
}

// list names what is in a directory.
func (q *request) list() *problem {
	if _, p := q.authorize(); p != nil {
		return p
	}
	name := q.r.URL.Query().Get("path")
	if name == "" {
		return fault(http.StatusBadRequest, "MISSING_PATH", "Missing 'path' query parameter")
	}
	rel, err := q.ws.Rel(name)
	if err != nil {
		return badPath(err, "Directory")
	}
	entries, more, err := q.ws.List(rel)
	if err != nil {
		return badPath(err, "Directory")
	}
	files := make([]listEntry, len(entries))
	for i, e := range entries {
		files[i] = listEntry{
			Name: e.Name, Size: e.Size, Mode: e.Mode.String(), IsDir: e.Mode.IsDir(),
			Modified: e.Modified.UTC().Format(time.RFC3339),
		}
		if !utf8.ValidString(e.Name) {
			files[i].NameBase64 = base64.StdEncoding.EncodeToString([]byte(e.Name))
		}
	}
	q.reply(http.StatusOK, false, struct {
		Files     []listEntry `json:"files"`
		Truncated bool        `json:"truncated,omitempty"`
	}{files, more})
	return nil
}
