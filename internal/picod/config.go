package picod

import (
	"crypto/rsa"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/volcano-sh/agentcube/internal/hostlink"
	"github.com/volcano-sh/agentcube/internal/httpguard"
)

// Version is what /health reports; clients of the original compare it.
const Version = "0.0.1"

// MaxBody is the largest body in bytes, except for multipart uploads.
const MaxBody = 32 << 20

// Config is everything a Server needs to know. DefaultConfig sets every default.
type Config struct {
	Port      int
	Host      *hostlink.Files // the line to the host; nil: TCP only
	Workspace string          // absolute; made if missing

	Bootstrap *rsa.PublicKey // key that may initialise; nil: there is no /init
	RouterKey *rsa.PublicKey // key that opens it without initialisation
	SandboxID string         // init tokens must name it; "": not checked
	SessionID string         // router tokens must name it; "": not checked
	StateDir  string         // where the session outlives the daemon; "": nowhere

	Env      []string // environment of commands, as KEY=value
	RunAs    *Account // user of commands; nil: the daemon's
	IsInit   bool     // the process is the sandbox's own: reap orphans
	Accounts string   // directory of passwd and group; "": leave them alone

	CgroupDir    string // where PicoD may mount control groups; "": none
	MaxProcesses int    // 0: no limit

	PythonZygote bool     // keep a started Python interpreter ready for runs of python3
	Preload      []string // modules that it has imported; what cannot be is left out

	MaxOutputBytes int // kept per stream
	MaxConcurrent  int // executions at a time
	MaxConnections int // at a time, besides the host's own
	MaxTimeout     time.Duration
	MaxUploadBytes int64
	Pace           httpguard.Pace // of clients; the zero value: httpguard.DefaultPace()
	Drain          time.Duration  // how long running requests may take at the end
}

// Account is a user that commands run as.
type Account struct {
	UID, GID uint32
}

// zygoteUser is the user that an interpreter kept ready would run as. Root, who
// can change any module at any time, is to have a fresh one each time.
func (c Config) zygoteUser() int {
	if c.RunAs != nil {
		return int(c.RunAs.UID)
	}
	return os.Geteuid()
}

// DefaultConfig returns a Config without keys and workspace.
func DefaultConfig() Config {
	return Config{
		Port:           8080,
		CgroupDir:      "/.agentcube/cgroup",
		MaxOutputBytes: 8 << 20,
		MaxConcurrent:  64,
		MaxConnections: 256,
		MaxTimeout:     8 * time.Hour,
		MaxUploadBytes: 4 << 30,
		Drain:          10 * time.Second,
	}
}

// Validate says what is wrong with c.
func (c Config) Validate() error {
	switch {
	case c.Port < 0 || c.Port > 65535:
		return fmt.Errorf("port %d is not between 0 and 65535", c.Port)
	case !filepath.IsAbs(c.Workspace):
		return fmt.Errorf("workspace %q is not an absolute path", c.Workspace)
	case c.Bootstrap == nil && c.RouterKey == nil && c.Host == nil:
		return fmt.Errorf("no key: give a bootstrap key or PICOD_AUTH_PUBLIC_KEY")
	case c.MaxProcesses < 0:
		return fmt.Errorf("max-processes %d is negative", c.MaxProcesses)
	case c.MaxOutputBytes <= 0:
		return fmt.Errorf("max-output-bytes %d is not positive", c.MaxOutputBytes)
	case c.MaxConcurrent <= 0:
		return fmt.Errorf("max-concurrent %d is not positive", c.MaxConcurrent)
	case c.MaxConnections <= 0:
		return fmt.Errorf("max-connections %d is not positive", c.MaxConnections)
	case c.MaxTimeout <= 0:
		return fmt.Errorf("max-timeout %s is not positive", c.MaxTimeout)
	case c.MaxUploadBytes <= 0:
		return fmt.Errorf("max-upload-bytes %d is not positive", c.MaxUploadBytes)
	}
	return nil
}
