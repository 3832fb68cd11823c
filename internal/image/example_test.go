package image_test

import (
	"context"
	"fmt"

	"github.com/volcano-sh/agentcube/internal/image"
)

func Example() {
	ctx := context.Background()
	store := image.New(image.Options{Dir: "/var/lib/agentcube/images"})
	if err := store.Open(ctx); err != nil {
		fmt.Println("open:", err)
		return
	}
	_, err := store.Import(ctx, "agentcube/python:latest", "python.oci.tar", func(p image.Progress) {
		fmt.Println(p.Stage, p.Done, p.Total)
	})
	if err != nil {
		fmt.Println("import:", image.CodeOf(err), err)
		return
	}
	img, err := store.Rootfs(ctx, "agentcube/python:latest")
	fmt.Println(img.Rootfs, img.Env, err)
}
