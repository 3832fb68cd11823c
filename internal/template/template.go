package template

import (
	"maps"
	"slices"
	"time"

	"github.com/volcano-sh/agentcube/internal/sandbox"
)

// AuthMode says whether PicoD serves the sandboxes of a template.
type AuthMode string

// The modes.
const (
	// AuthPicoD: PicoD is the first process and checks every request.
	AuthPicoD AuthMode = "picod"
	// AuthNone: the template's own command serves; AgentCube hands it no key
	// and signs nothing for it.
	AuthNone AuthMode = "none"
)

// Template is what sessions are made from, with every default filled in.
type Template struct {
	Kind      string // api.KindCodeInterpreter or api.KindAgentRuntime
	Namespace string
	Name      string

	// Image is the reference of the image, as written.
	Image string
	// Command and Args are the sandbox's first process. Both are empty when
	// AuthMode is picod, which means PicoD; otherwise what is left out is the
	// image's, as on Kubernetes.
	Command []string
	Args    []string
	// WorkingDir is where that process begins, an absolute path, or "", which means
	// where the image says. User is whom it runs as; nil means root with RunAsRoot,
	// else the user that commands run as. Only of templates whose AuthMode is none.
	WorkingDir string
	User       *sandbox.User
	Env        map[string]string
	// Resources bound a sandbox; no field is zero.
	Resources sandbox.Resources
	// RunAsRoot runs user code as root inside the sandbox.
	RunAsRoot bool
	// Workspace is the working directory, upload root and HOME of user code:
	// an absolute, clean path.
	Workspace string
	// Preload are the Python modules that user code finds imported already.
	Preload []string
	// MinIsolation is the least isolation that is accepted, or empty.
	MinIsolation string
	// Labels are those of the template's Pods.
	Labels map[string]string

	// IdleTimeout and MaxDuration are positive.
	IdleTimeout time.Duration
	MaxDuration time.Duration
	// PauseAfter is the idle time after which a session is paused by itself,
	// shorter than IdleTimeout; 0 means never.
	PauseAfter time.Duration
	// Ports has at least one element.
	Ports []Port
	// WarmPoolSize is how many sandboxes wait ready-made; 0 or more.
	WarmPoolSize int
	AuthMode     AuthMode
	// Strict sessions need a key of their creator, and requests that are signed for
	// themselves.
	Strict bool

	// Extras are what the template says to one sandbox driver alone: see
	// sandbox.Spec. What they point to is not changed by anybody.
	Extras any

	// Origin says where it was read from, as "file:line".
	Origin string
}

// Spec is what the template decides about its sandboxes: the same for all of them.
// bootstrapKey, in PEM, is whose holder may hand a PicoD its session key.
func (t Template) Spec(bootstrapKey string) sandbox.Spec {
	s := sandbox.Spec{
		Image: t.Image, Command: t.Command, Args: t.Args, Env: t.Env, Resources: t.Resources, RunAsRoot: t.RunAsRoot,
		Workspace: t.Workspace, MinIsolation: t.MinIsolation, Preload: t.Preload, Extras: t.Extras,
	}
	if t.AuthMode == AuthNone {
		s.OwnServer, s.WorkingDir, s.User = true, t.WorkingDir, t.User
	} else {
		s.BootstrapKey = bootstrapKey
	}
	return s
}

// Port is a port of a sandbox that requests are carried to.
type Port struct {
	Name string
	// Path is the prefix of invocation paths that go to this port; it begins
	// with a slash.
	Path string
	// Protocol is "HTTP" or "HTTPS".
	Protocol string
	Port     uint16
}

// clone copies t so deep that its holder may change it.
func (t Template) clone() Template {
	t.Command = slices.Clone(t.Command)
	t.Args = slices.Clone(t.Args)
	t.Env = maps.Clone(t.Env)
	t.Preload = slices.Clone(t.Preload)
	t.Labels = maps.Clone(t.Labels)
	t.Ports = slices.Clone(t.Ports)
	if t.User != nil {
		user := *t.User
		t.User = &user
	}
	return t
}
