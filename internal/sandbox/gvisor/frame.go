package gvisor

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/volcano-sh/agentcube/internal/sandbox"
)

// frame is everything that a snapshot and the sandboxes restored from it have
// in common: what gVisor compares, and what the guest would see change. What
// tells sandboxes apart, PicoD is told when it already runs.
type frame struct {
	Image string `json:"image"`
	// ImagePath and AgentPath are EROFS files; their names come from their content.
	ImagePath string   `json:"imagePath"`
	ImageEnv  []string `json:"imageEnv,omitempty"`
	AgentPath string   `json:"agentPath"`
	Command   []string `json:"command,omitempty"`
	Args      []string `json:"args,omitempty"`
	// Dir and User are of a program in PicoD's place: "" is the root, nil is root.
	Dir       string            `json:"dir,omitempty"`
	User      *sandbox.User     `json:"user,omitempty"`
	Env       map[string]string `json:"env,omitempty"`
	Resources sandbox.Resources `json:"resources"`
	RunAsRoot bool              `json:"runAsRoot,omitempty"`
	Workspace string            `json:"workspace"`
	Preload   []string          `json:"preload,omitempty"`
}

// agent reports whether the first process is PicoD.
func (f frame) agent() bool { return len(f.Command)+len(f.Args) == 0 }

// key tells frames apart, and engines: a snapshot with another key is foreign.
func (f frame) key(engine string) string {
	text, err := json.Marshal(struct {
		Engine string
		Frame  frame
	}{engine, f})
	if err != nil {
		panic("gvisor: frame does not marshal: " + err.Error()) // strings and numbers always do
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:12])
}

// frame resolves the image of a spec.
func (d *Driver) frame(ctx context.Context, s sandbox.Spec) (frame, error) {
	image, err := d.cfg.Images.Rootfs(ctx, s.Image)
	if err != nil {
		return frame{}, fmt.Errorf("find image %s: %w", s.Image, err)
	}
	f := frame{
		Image: s.Image, ImagePath: image.Rootfs, ImageEnv: image.Env, AgentPath: d.agent,
		Command: s.Command, Args: s.Args, Env: s.Env, Resources: s.Resources,
		RunAsRoot: s.RunAsRoot, Workspace: s.Workspace, Preload: s.Preload,
	}
	if !s.OwnServer {
		return f, nil
	}
	if len(f.Command) == 0 {
		f.Command = image.Entrypoint
		if len(f.Args) == 0 {
			f.Args = image.Cmd
		}
	}
	if f.agent() {
		return frame{}, fmt.Errorf("%w: %s", sandbox.ErrNoCommand, s.Image)
	}
	f.Dir, f.User = cmp.Or(s.WorkingDir, image.WorkingDir), s.User
	if f.User == nil && !s.RunAsRoot {
		f.User = &sandbox.User{UID: userID, GID: groupID}
	}
	return f, nil
}

// engineFormat goes up when snapshots that were made before cannot be used any
// more for a reason that nothing else in their key shows.
const engineFormat = 1

// engineName is what a snapshot needs to be restored besides its frame: gVisor
// in the same version, on the same platform and the same kind of processor.
func engineName(platform string) string {
	version := "unknown"
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == "gvisor.dev/gvisor" {
				version = m.Version
			}
		}
	}
	sum := sha256.Sum256(cpuFeatures())
	return fmt.Sprintf("format %d, gVisor %s, %s, %s %s", engineFormat, version, platform, runtime.GOARCH, hex.EncodeToString(sum[:8]))
}

// cpuFeatures is what the first processor of /proc/cpuinfo says it can do.
func cpuFeatures() []byte {
	data, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return nil
	}
	var out []byte
	for line := range bytes.Lines(data) {
		name, value, _ := strings.Cut(string(line), ":")
		switch strings.TrimSpace(name) {
		case "flags", "Features", "vendor_id", "cpu family", "model":
			words := strings.Fields(value)
			slices.Sort(words)
			out = append(out, strings.Join(words, " ")+"\n"...)
		case "":
			return out // the next processor
		}
	}
	return out
}
