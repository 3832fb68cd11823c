package image

import (
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/types"
)

// TestHostileFileSizes: files are as large as the limits say, one by one and all
// together, also where a few bytes of the archive stand for them.
func TestHostileFileSizes(t *testing.T) {
	sparse := func(size int64) packed {
		l := sparseTar(t, size)
		return packed{l, l, types.OCIUncompressedLayer}
	}
	limits := small
	limits.FileBytes, limits.Bytes = 3<<20, 5<<20
	for name, tt := range map[string]struct {
		layers []packed
		ok     bool
	}{
		"within both":   {[]packed{sparse(2 << 20), sparse(2 << 20)}, true},
		"one file":      {[]packed{sparse(4 << 20)}, false},
		"both together": {[]packed{sparse(2 << 20), sparse(3 << 20), sparse(1 << 20)}, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t, Options{Limits: limits})
			_, err := s.Import(t.Context(), "x", archiveFile(t, "x", tt.layers...), nil)
			if tt.ok {
				if err != nil {
					t.Errorf("refused: %v", err)
				}
				return
			}
			wantCode(t, err, CodeTooLarge)
			wantContents(t, s, 0, 0)
		})
	}
}
