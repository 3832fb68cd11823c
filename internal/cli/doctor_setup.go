package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/volcano-sh/agentcube/internal/auth"
	"github.com/volcano-sh/agentcube/internal/config"
	"github.com/volcano-sh/agentcube/internal/httpserve"
	"github.com/volcano-sh/agentcube/internal/image"
)

func parent(path string) string { return filepath.Dir(path) }

func (a *app) checkSettings(context.Context) []check {
	const name = "settings"
	var checks []check
	var wrong *config.Error
	if err := a.cfg.Validate(); errors.As(err, &wrong) {
		for _, problem := range wrong.Problems {
			checks = append(checks, fail(name, problem, wrong.Hint()))
		}
	} else if err != nil {
		checks = append(checks, fail(name, err.Error(), ""))
	}
	for _, warning := range a.cfg.Warnings() {
		checks = append(checks, warn(name, warning, ""))
	}
	if len(checks) > 0 {
		return checks
	}
	if a.cfg.File() == "" {
		return []check{pass(name, "valid; there is no configuration file")}
	}
	return []check{pass(name, "valid, from %s", a.cfg.File())}
}

func (a *app) checkDataDir(context.Context) []check {
	const name = "data folder"
	dir := existingParent(a.cfg.DataDir)
	info, err := os.Stat(dir)
	if err != nil {
		return []check{fail(name, fmt.Sprintf("%s: %v", dir, reason(err)), "choose another folder with --data-dir")}
	}
	if !info.IsDir() {
		return []check{fail(name, dir+" is not a folder", "choose another folder with --data-dir")}
	}
	if err := unix.Access(dir, unix.W_OK|unix.X_OK); err != nil {
		return []check{fail(name, fmt.Sprintf("%s cannot be written: %v", dir, err), "run as root, or choose another folder with --data-dir")}
	}
	if dir != a.cfg.DataDir {
		return []check{pass(name, "%s can be made", a.cfg.DataDir)}
	}
	return []check{pass(name, "%s can be written", a.cfg.DataDir)}
}

func (a *app) checkToken(context.Context) []check {
	const name = "token"
	_, err := auth.ReadTokenFile(a.cfg.TokenFile)
	var bad *auth.FileError
	switch {
	case err == nil:
		return []check{pass(name, "%s is readable by its owner only", a.cfg.TokenFile)}
	case errors.Is(err, fs.ErrNotExist):
		return []check{pass(name, "%s is made at the first start", a.cfg.TokenFile)}
	case errors.As(err, &bad):
		return []check{fail(name, bad.Error(), bad.Hint())}
	}
	return []check{fail(name, err.Error(), "choose another file with --token-file")}
}

func (a *app) checkTemplates(ctx context.Context) []check {
	const name = "templates"
	dir, err := templates(a.cfg, slog.New(slog.DiscardHandler))
	if err == nil {
		err = dir.Load(ctx)
	}
	if err != nil {
		return []check{fail(name, err.Error(), "choose another folder with --template-dir")}
	}
	var checks []check
	for _, p := range dir.Problems() {
		checks = append(checks, fail(name, p.String(), "mend the file; `agentcube template check` checks it again"))
	}
	if len(checks) > 0 {
		return checks
	}
	names := make([]string, 0)
	for _, t := range dir.List() {
		names = append(names, t.Namespace+"/"+t.Name)
	}
	return []check{pass(name, "%s", strings.Join(names, ", "))}
}

// checkImage looks for the default image without making a store where there is none.
func (a *app) checkImage(ctx context.Context) []check {
	const name = "image"
	missing := fail(name, a.cfg.DefaultImage+" is missing", "`agentcube image import ARCHIVE "+a.cfg.DefaultImage+"` brings it in")
	if _, err := os.Stat(a.cfg.ImageDir()); errors.Is(err, fs.ErrNotExist) {
		return []check{missing}
	}
	store, err := openImages(ctx, a.cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		return []check{fail(name, err.Error(), "")}
	}
	img, err := store.Get(ctx, a.cfg.DefaultImage)
	if image.CodeOf(err) == image.CodeNotFound {
		return []check{missing}
	}
	if err != nil {
		return []check{fail(name, err.Error(), "")}
	}
	return []check{pass(name, "%s (%s)", a.cfg.DefaultImage, size(img.Size))}
}

func (a *app) checkPort(ctx context.Context) []check {
	const name = "address"
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	web := &httpserve.Server{Addr: a.cfg.Listen}
	err := web.Listen(ctx)
	var inUse *httpserve.AddrInUseError
	switch {
	case err == nil:
		if cerr := unlisten(web); cerr != nil {
			return []check{fail(name, cerr.Error(), "")}
		}
		return []check{pass(name, "%s is free", a.cfg.Listen)}
	case errors.As(err, &inUse) && inUse.AgentCube:
		return []check{pass(name, "%s: AgentCube is running there (process %d)", a.cfg.Listen, inUse.PID)}
	}
	return []check{fail(name, err.Error(), "stop what is there, or choose another address with --listen")}
}
