package image

import (
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"time"
)

// Limits bound what one image may make this machine do. A zero field means the
// value of DefaultLimits.
type Limits struct {
	// Bytes is the most that all layers together may hold, unpacked, counting
	// files that a later layer hides.
	Bytes int64
	// FileBytes is the most that one file may hold.
	FileBytes int64
	// BlobBytes is the most that all layers together may take as stored.
	BlobBytes int64
	// Entries is the most files, directories and links in all layers together.
	Entries int
	// Layers is the most layers.
	Layers int
	// PathBytes and PathDepth bound one path in the image.
	PathBytes, PathDepth int
	// Ratio is the most bytes one stored byte may unpack to, beyond the first
	// 64 MiB of a layer.
	Ratio int64
	// Document is the most bytes of an index, a manifest or a configuration.
	Document int64
}

// DefaultLimits are generous for images that people use: 16 GiB, a million
// entries, 127 layers.
func DefaultLimits() Limits {
	return Limits{
		Bytes: 16 << 30, FileBytes: 8 << 30, BlobBytes: 16 << 30,
		Entries: 1_000_000, Layers: 127, PathBytes: 3072, PathDepth: 256,
		Ratio: 500, Document: 4 << 20,
	}
}

func (l Limits) orDefault() Limits {
	d := DefaultLimits()
	for _, f := range []struct{ have, def *int64 }{
		{&l.Bytes, &d.Bytes}, {&l.FileBytes, &d.FileBytes}, {&l.BlobBytes, &d.BlobBytes},
		{&l.Ratio, &d.Ratio}, {&l.Document, &d.Document},
	} {
		if *f.have == 0 {
			*f.have = *f.def
		}
	}
	for _, f := range []struct{ have, def *int }{
		{&l.Entries, &d.Entries}, {&l.Layers, &d.Layers}, {&l.PathBytes, &d.PathBytes}, {&l.PathDepth, &d.PathDepth},
	} {
		if *f.have == 0 {
			*f.have = *f.def
		}
	}
	return l
}

// Agent is a program put into every EROFS file, mode 0755, owner root.
type Agent struct {
	// Path is where it goes, relative to the root, for example ".agentcube/picod".
	Path string
	// Data is the program; it must not change while a Store uses it.
	Data []byte
}

// key names the agent in file names: another agent, another EROFS file.
func (a *Agent) key() string {
	if a == nil {
		return "plain"
	}
	h := sha256.New()
	h.Write([]byte(a.Path + "\x00"))
	h.Write(a.Data)
	return hex.EncodeToString(h.Sum(nil))[:16]
}

// Options of a Store. Only Dir is required.
type Options struct {
	// Dir is the store's directory, its own alone; Open makes it.
	Dir string
	// Agent goes into every EROFS file; nil for none.
	Agent *Agent
	// InUse is asked before an image, or one of its EROFS files, is deleted. It
	// is called with the store locked and must not call the store.
	InUse func(digest string) bool
	// Limits on images that come in.
	Limits Limits
	// Mkfs is the mkfs.erofs program; empty means the one in PATH.
	Mkfs string
	// Logger gets notes on what was left out of an image; nil discards them.
	Logger *slog.Logger
}

// Progress of an operation that takes long.
type Progress struct {
	// Stage is "fetch", "unpack" or "build".
	Stage string
	// Done and Total are bytes as stored; Total is 0 when unknown.
	Done, Total int64
}

// ProgressFunc is told of progress, from one goroutine at a time. It may be nil.
type ProgressFunc func(Progress)

// Config is what an image says about running it.
type Config struct {
	Env        []string `json:"env,omitempty"` // "KEY=value"
	Entrypoint []string `json:"entrypoint,omitempty"`
	Cmd        []string `json:"cmd,omitempty"`
	WorkingDir string   `json:"workingDir,omitempty"`
	User       string   `json:"user,omitempty"`
}

// Image is one image of a store, as it was when it was looked at.
type Image struct {
	// Digest is that of the image's manifest, "sha256:" and 64 hex digits.
	Digest string `json:"digest"`
	// References are the names of the image, sorted; empty when all moved on.
	References []string `json:"references"`
	// Created is when the image says it was made; zero when it does not say.
	Created time.Time `json:"created"`
	// Imported is when it came into the store.
	Imported time.Time `json:"imported"`
	Config   Config    `json:"config"`
	// BlobBytes is the size of the layers as stored.
	BlobBytes int64 `json:"blobBytes"`
	// RootfsPath is the EROFS file for the store's agent and Size its bytes;
	// "" and 0 when it has to be built (Build does).
	RootfsPath string `json:"rootfsPath"`
	Size       int64  `json:"size"`
}
