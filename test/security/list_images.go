package security

const (
	unpack  = "internal/image/unpack.go"
	entries = "internal/image/unpackentry.go"
)

func inImage(name string) Test { return Test{In: "internal/image", Name: name} }

// images are unpacked by root.
func images() []Defence {
	return []Defence{
		{"image-dots", Image, "holds a name with dots", unpack,
			`case part == "..":`, `case false:`, inImage("TestHostileLayers")},
		{"image-entries", Image, "has a million files", unpack,
			`if u.entries > u.limits.Entries {`, `if false {`, inImage("TestHostileLayers")},
		{"image-depth", Image, "nests folders through links, until nobody can remove them", unpack,
			`if err != nil || len(where) > u.limits.PathBytes || strings.Count(where, "/") > u.limits.PathDepth {`, `if err != nil {`, inImage("TestHostileLayers")},
		{"image-bombs", Image, "unpacks to a thousand times its size", "internal/image/stream.go",
			`if l.left -= int64(n); l.left < 0 {`, `if l.left -= int64(n); false {`, inImage("TestBombs")},
		{"image-files-bounded", Image, "holds a file of a petabyte", entries,
			`if hdr.Size > u.limits.FileBytes {`, `if false {`, inImage("TestHostileFileSizes")},
		{"image-documents", Image, "has another manifest than its digest says", "internal/image/source.go",
			`if h != d.Digest || int64(len(data)) != d.Size {`, `if int64(len(data)) < 0 {`, inImage("TestHostileArchives")},
		{"image-layers", Image, "has another layer than its digest says", "internal/image/rootfs.go",
			`if got := sum.hash(); got != l.diffID {`, `if got := sum.hash(); got != l.diffID && false {`, inImage("TestManifestsThatDisagree")},
		{"image-registry-encrypted", Router, "answers in the place of a registry", "internal/image/pull.go",
			`if req.URL.Scheme != "https" && !isLoopback(req.URL.Hostname()) {`, `if false {`, inImage("TestNoPlainHTTPOffThisMachine")},
	}
}
