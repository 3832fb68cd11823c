package gvisor

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/volcano-sh/agentcube/internal/sandbox"
)

// declared is an image with nothing but what it declares.
type declared struct{ sandbox.Image }

func (i declared) Rootfs(context.Context, string) (sandbox.Image, error) { return i.Image, nil }

// TestOwnServerCommand: what a template leaves out of its server's command is the
// image's, by the rules of Kubernetes, and PicoD never takes its place.
func TestOwnServerCommand(t *testing.T) {
	t.Parallel()
	type words = []string
	full := declared{sandbox.Image{Entrypoint: words{"/enter"}, Cmd: words{"serve", "--all"}, WorkingDir: "/app"}}
	for name, tt := range map[string]struct {
		image         declared
		spec          sandbox.Spec
		command, args words
		dir           string
		err           error
	}{
		"the image's":            {image: full, spec: sandbox.Spec{OwnServer: true}, command: words{"/enter"}, args: words{"serve", "--all"}, dir: "/app"},
		"arguments alone":        {image: full, spec: sandbox.Spec{OwnServer: true, Args: words{"x"}}, command: words{"/enter"}, args: words{"x"}, dir: "/app"},
		"a command alone":        {image: full, spec: sandbox.Spec{OwnServer: true, Command: words{"y"}}, command: words{"y"}, dir: "/app"},
		"a folder of its own":    {image: full, spec: sandbox.Spec{OwnServer: true, WorkingDir: "/srv"}, command: words{"/enter"}, args: words{"serve", "--all"}, dir: "/srv"},
		"arguments of the image": {image: declared{sandbox.Image{Cmd: words{"serve"}}}, spec: sandbox.Spec{OwnServer: true}, args: words{"serve"}},
		"none":                   {spec: sandbox.Spec{OwnServer: true}, err: sandbox.ErrNoCommand},
		"PicoD":                  {image: full},
	} {
		d := &Driver{cfg: Config{Images: tt.image}}
		f, err := d.frame(t.Context(), tt.spec)
		if !errors.Is(err, tt.err) {
			t.Errorf("%s: error %v, want %v", name, err, tt.err)
		}
		if err != nil {
			continue
		}
		if !cmp.Equal(f.Command, tt.command) || !cmp.Equal(f.Args, tt.args) || f.Dir != tt.dir {
			t.Errorf("%s: %q %q in %q, want %q %q in %q", name, f.Command, f.Args, f.Dir, tt.command, tt.args, tt.dir)
		}
		if f.agent() == tt.spec.OwnServer {
			t.Errorf("%s: agent %t", name, f.agent())
		}
	}
}

// TestOwnServerUser: a server is unprivileged unless its template says otherwise.
func TestOwnServerUser(t *testing.T) {
	t.Parallel()
	d := &Driver{cfg: Config{Images: declared{sandbox.Image{Entrypoint: []string{"/enter"}}}}}
	for name, tt := range map[string]struct {
		spec sandbox.Spec
		want *sandbox.User
	}{
		"unsaid":  {sandbox.Spec{OwnServer: true}, &sandbox.User{UID: 1000, GID: 1000}},
		"root":    {sandbox.Spec{OwnServer: true, RunAsRoot: true}, nil},
		"another": {sandbox.Spec{OwnServer: true, User: &sandbox.User{UID: 7}}, &sandbox.User{UID: 7}},
		"PicoD":   {sandbox.Spec{}, nil}, // which becomes whom it is told
	} {
		f, err := d.frame(t.Context(), tt.spec)
		if err != nil || !cmp.Equal(f.User, tt.want) {
			t.Errorf("%s: user %v, %v, want %v", name, f.User, err, tt.want)
		}
	}
}
