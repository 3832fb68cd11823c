package cli

import (
	"context"
	"sync"

	"github.com/volcano-sh/agentcube/internal/image"
	"github.com/volcano-sh/agentcube/internal/sandbox"
)

// heldImages gives the driver images that no other process can remove any more
// until release: between asking for an image and the record of the sandbox
// that is made from it, nothing else would tell that it is in use.
type heldImages struct {
	store *image.Store

	mu       sync.Mutex
	releases map[string]func() // by path of the EROFS file
}

func newHeldImages(store *image.Store) *heldImages {
	return &heldImages{store: store, releases: map[string]func(){}}
}

// Rootfs is what drivers ask for.
func (h *heldImages) Rootfs(ctx context.Context, ref string) (sandbox.Image, error) {
	img, err := h.store.Rootfs(ctx, ref)
	if err != nil {
		return sandbox.Image{}, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.releases[img.Rootfs] != nil {
		return img, nil
	}
	release, err := h.store.Hold(ctx, ref)
	if err != nil {
		return sandbox.Image{}, err
	}
	h.releases[img.Rootfs] = release
	return img, nil
}

func (h *heldImages) release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for path, release := range h.releases {
		release()
		delete(h.releases, path)
	}
}
