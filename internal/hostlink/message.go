package hostlink

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// Op is what the host asks for.
type Op string

// The operations.
const (
	// OpConnect begins a trunk; Nonce is set. Streams of an earlier one end. A
	// Hostname, if there is one, becomes the sandbox's: gVisor restores that of the
	// process that a snapshot is restored in.
	OpConnect Op = "connect"
	// OpAssume makes the sandbox that of Identity: the session key, the tokens
	// seen and the names of who it was before are forgotten. The variables that
	// its session was given stay, as what is in its memory and files does.
	OpAssume Op = "assume"
	// OpPrepare is asked before a snapshot is taken: PicoD gives back memory that
	// it does not need, and listens for a host on the pipes that it was started
	// with. With Complete, it first waits for all that it keeps ready for commands.
	OpPrepare Op = "prepare"
	// OpContinue says that a snapshot was taken, or not, and that this sandbox
	// goes on.
	OpContinue Op = "continue"
)

// Identity is what tells sandboxes made from one snapshot apart.
type Identity struct {
	// SandboxID is what tokens for /init must name.
	SandboxID string `json:"sandboxId"`
	// BootstrapKey is the PEM public key whose holder may hand over the session
	// key; empty: nobody may.
	BootstrapKey string `json:"bootstrapKey,omitempty"`
	Hostname     string `json:"hostname"`
	// MachineID is 32 hexadecimal digits, see machine-id(5).
	MachineID string `json:"machineId"`
}

// Request is a message from the host.
type Request struct {
	Op       Op        `json:"op"`
	Nonce    []byte    `json:"nonce,omitempty"`
	Hostname string    `json:"hostname,omitempty"`
	Identity *Identity `json:"identity,omitempty"`
	Complete bool      `json:"complete,omitempty"`
}

// Reply answers a Request. Error is empty when it was done.
type Reply struct {
	Error string `json:"error,omitempty"`
}

// NonceBytes is the length of Request.Nonce.
const NonceBytes = 32

// maxMessage bounds a line in bytes.
const maxMessage = 64 << 10

// Deadliner is a pipe whose reads and writes can be given up, as an *os.File
// in non-blocking mode.
type Deadliner interface {
	io.ReadWriteCloser
	SetReadDeadline(t time.Time) error
	SetWriteDeadline(t time.Time) error
}

// Control is the host's side of the control line. It is safe for concurrent use.
type Control struct {
	mu   sync.Mutex
	pipe Deadliner
	in   *bufio.Reader
	dead error // set once an exchange was broken off
}

// NewControl takes over the pipe.
func NewControl(pipe Deadliner) *Control {
	return &Control{pipe: pipe, in: bufio.NewReaderSize(pipe, maxMessage)}
}

// Close ends the line.
func (c *Control) Close() error { return c.pipe.Close() }

// Call sends a request and waits for its answer. An exchange that ctx breaks
// off ends the line for good, as a late answer would be taken for the next one's.
func (c *Control) Call(ctx context.Context, req Request) error {
	line, err := json.Marshal(req)
	if err != nil {
		return fmt.Errorf("encode %s: %w", req.Op, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead != nil {
		return fmt.Errorf("ask the agent to %s: %w", req.Op, c.dead)
	}
	stop := context.AfterFunc(ctx, func() { c.pipe.Close() })
	reply, err := c.exchange(append(line, '\n'))
	if !stop() {
		err = ctx.Err()
	}
	if err != nil {
		c.dead = err
		return fmt.Errorf("ask the agent to %s: %w", req.Op, err)
	}
	if reply.Error != "" {
		return fmt.Errorf("ask the agent to %s: %w", req.Op, errors.New(reply.Error))
	}
	return nil
}

func (c *Control) exchange(line []byte) (reply Reply, err error) {
	if _, err := c.pipe.Write(line); err != nil {
		return reply, err
	}
	answer, err := c.in.ReadSlice('\n')
	if err != nil {
		return reply, err
	}
	return reply, json.Unmarshal(answer, &reply)
}

// Serve answers the requests that arrive on pipe until reading fails, and
// returns why.
func Serve(pipe io.ReadWriter, handle func(Request) error) error {
	in := bufio.NewReaderSize(pipe, maxMessage)
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return err
		}
		var req Request
		err = json.Unmarshal(line, &req)
		if err == nil {
			err = handle(req)
		}
		var reply Reply
		if err != nil {
			reply.Error = err.Error()
		}
		answer, err := json.Marshal(reply)
		if err != nil {
			return fmt.Errorf("encode answer: %w", err)
		}
		if _, err := pipe.Write(append(answer, '\n')); err != nil {
			return err
		}
	}
}
