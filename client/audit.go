package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/volcano-sh/agentcube/api/audit"
)

// maxRecord bounds a session's record in bytes; PicoD keeps 4 MiB of it.
const maxRecord = 8 << 20

// AuditRecord is a session's own record: what it holds, and the text of it, which
// `agentcube audit verify --record` checks against the server's.
type AuditRecord struct {
	*audit.Record
	Text []byte
}

// AuditRecord fetches the record that the session's PicoD keeps of the requests that
// reached it encrypted, which nobody else could read, and checks it: the lines are a
// chain, and the holder of the session's certificate has signed where it ends. Of
// lines up to and with the number after nothing is sent; 0 asks for all that are
// kept. ErrUnsupported when the session has no certificate, ErrNotFound when its
// PicoD is too old.
func (s *Session) AuditRecord(ctx context.Context, after uint64) (*AuditRecord, error) {
	if s.Info.Secure == nil {
		return nil, fmt.Errorf("get audit record: the session has no certificate, and keeps none: %w", ErrUnsupported)
	}
	ctx, cancel := control(ctx)
	defer cancel()
	in := s.invocation(http.MethodGet, "api/audit")
	in.query = url.Values{"after": {strconv.FormatUint(after, 10)}}
	resp, err := s.c.send(ctx, in)
	if err != nil {
		return nil, fmt.Errorf("get audit record: %w", err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxRecord+1))
	if err == nil && len(text) > maxRecord {
		err = errors.New("it is too long")
	}
	if err != nil {
		return nil, fmt.Errorf("get audit record: %w", err)
	}
	rec, err := audit.ParseRecord(text, s.Info.Secure.Certificate, s.ID)
	if err != nil {
		return nil, fmt.Errorf("get audit record: %w", err)
	}
	return &AuditRecord{Record: rec, Text: text}, nil
}
