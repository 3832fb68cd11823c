package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// localRegistry stands for "no registry": names of local images are shown and
// kept without one.
const localRegistry = "localhost.invalid"

// repository is what the OCI distribution specification allows; the registry
// client's own check lets "../x" through.
var repository = regexp.MustCompile(`^[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*(/[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*)*$`)

// registryHost is a host name or an address, with or without a port.
var registryHost = regexp.MustCompile(`^([a-zA-Z0-9]([a-zA-Z0-9.-]*[a-zA-Z0-9])?|\[[0-9a-fA-F:]+\])(:[0-9]+)?$`)

func checkName(repo name.Repository) error {
	if !registryHost.MatchString(repo.RegistryStr()) {
		return errors.New("the registry is not a host name")
	}
	if !repository.MatchString(repo.RepositoryStr()) {
		return errors.New("a part of the name has other than lower-case letters and digits with . _ or - between them")
	}
	return nil
}

// index is the content of index.json.
type index struct {
	Version int       `json:"version"`
	Images  []*record `json:"images"`
}

type record struct {
	Digest     string    `json:"digest"`
	References []string  `json:"references"`
	Created    time.Time `json:"created,omitzero"`
	Imported   time.Time `json:"imported"`
	Config     Config    `json:"config"`
	BlobBytes  int64     `json:"blobBytes"`
}

func readIndex(path string) (*index, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return &index{Version: 1}, nil
	}
	if err != nil {
		return nil, classify(err, CodeStoreCorrupt, "read image index")
	}
	ix := &index{}
	if err := json.Unmarshal(data, ix); err != nil {
		return nil, &Error{Code: CodeStoreCorrupt, Text: "read image index", Cause: err,
			Hint: "remove the image store and import the images again"}
	}
	if ix.Version != 1 {
		return nil, &Error{Code: CodeStoreCorrupt, Text: fmt.Sprintf("image index has version %d, want 1", ix.Version),
			Hint: "another release of AgentCube wrote it: use that release, or remove the image store"}
	}
	for _, rec := range ix.Images {
		if !validDigest(rec.Digest) {
			return nil, errorf(CodeStoreCorrupt, "image index has a bad digest %q", clip(rec.Digest))
		}
	}
	return ix, nil
}

// writeIndex replaces index.json at once. The caller has the lock.
func (s *Store) writeIndex(ix *index) error {
	data, err := json.MarshalIndent(ix, "", "  ")
	if err != nil {
		return fmt.Errorf("encode image index: %w", err)
	}
	tmp := s.path("index.json.new")
	if err := writeFileSync(tmp, data, 0o600); err != nil {
		return classify(errors.Join(err, removeIfThere(tmp)), CodeStoreCorrupt, "write image index")
	}
	if err := os.Rename(tmp, s.path("index.json")); err != nil {
		return classify(err, CodeStoreCorrupt, "replace image index")
	}
	return classify(syncDir(s.opts.Dir), CodeStoreCorrupt, "sync image index")
}

func writeFileSync(path string, data []byte, perm fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, perm)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (ix *index) byDigest(digest string) *record {
	for _, rec := range ix.Images {
		if rec.Digest == digest {
			return rec
		}
	}
	return nil
}

// find looks an image up by normalised name or by digest.
func (ix *index) find(ref string) *record {
	for _, rec := range ix.Images {
		if rec.Digest == ref || slices.Contains(rec.References, ref) {
			return rec
		}
	}
	return nil
}

// tag gives the name to the image and takes it from any other.
func (ix *index) tag(rec *record, ref string) {
	for _, other := range ix.Images {
		other.References = slices.DeleteFunc(other.References, func(r string) bool { return r == ref })
	}
	rec.References = append(rec.References, ref)
	slices.Sort(rec.References)
}

// Normalize returns ref in the form the store keeps: with a tag, and without
// the registry that Pull asks when a name has none. A digest ("sha256:…") stays as it is. Errors
// have CodeReferenceInvalid.
func Normalize(ref string) (string, error) {
	if validDigest(ref) {
		return ref, nil
	}
	parsed, err := name.ParseReference(ref, name.WithDefaultRegistry(localRegistry), name.WithDefaultTag("latest"))
	if err == nil {
		err = checkName(parsed.Context())
	}
	if err != nil {
		return "", &Error{Code: CodeReferenceInvalid, Text: fmt.Sprintf("image reference %q is not valid", clip(ref)),
			Cause: err, Hint: "write it like name:tag or registry.example/name:tag"}
	}
	repo := parsed.Context()
	switch repo.RegistryStr() {
	case localRegistry:
		return strings.TrimPrefix(parsed.Name(), localRegistry+"/"), nil
	case name.DefaultRegistry:
		// Pull goes there for a name without a registry, so the two are one image.
		short := strings.TrimPrefix(parsed.Name(), name.DefaultRegistry+"/")
		return strings.TrimPrefix(short, "library/"), nil
	default:
		return parsed.Name(), nil
	}
}

// tagReference normalises a name that an image is to get; a digest will not do.
func tagReference(ref string) (string, error) {
	norm, err := Normalize(ref)
	if err != nil {
		return "", err
	}
	if strings.Contains(norm, "@") || validDigest(norm) {
		return "", &Error{Code: CodeReferenceInvalid, Text: fmt.Sprintf("image reference %q is a digest", clip(ref)),
			Hint: "give the image a name like name:tag"}
	}
	return norm, nil
}

// blobsOf returns the hexadecimal digests of the image's manifest,
// configuration and layers.
func (s *Store) blobsOf(rec *record) ([]string, error) {
	m, err := s.manifestOf(rec.Digest)
	if err != nil {
		return nil, err
	}
	blobs := []string{hexOf(rec.Digest), m.Config.Digest.Hex}
	for _, l := range m.Layers {
		blobs = append(blobs, l.Digest.Hex)
	}
	return blobs, nil
}

func (s *Store) manifestOf(digest string) (*v1.Manifest, error) {
	data, err := os.ReadFile(s.blobPath(hexOf(digest)))
	if err != nil {
		return nil, classify(err, CodeStoreCorrupt, "read manifest of stored image")
	}
	m := &v1.Manifest{}
	if err := json.Unmarshal(data, m); err != nil {
		return nil, &Error{Code: CodeStoreCorrupt, Text: "read manifest of stored image", Cause: err,
			Hint: "import the image again"}
	}
	return m, nil
}

func (s *Store) image(rec *record) Image {
	img := Image{
		Digest: rec.Digest, References: slices.Clone(rec.References), Created: rec.Created,
		Imported: rec.Imported, Config: rec.Config, BlobBytes: rec.BlobBytes,
	}
	path := s.rootfsPath(hexOf(rec.Digest))
	if info, err := os.Stat(path); err == nil {
		img.RootfsPath, img.Size = path, info.Size()
	}
	return img
}
