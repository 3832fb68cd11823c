package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/volcano-sh/agentcube/api"
)

// maxPrepareAnswer bounds the steps of a preparation.
const maxPrepareAnswer = 4 << 20

// PrepareTemplate makes what the sandboxes of a template begin from, unless it
// is there, and returns when that is done; the first session has the same made in
// the background.
// It may take minutes and is bounded by ctx alone. progress, when not nil, is
// told each step in words. ErrUnsupported where there is nothing to prepare.
func (c *Client) PrepareTemplate(ctx context.Context, namespace, name string, progress func(step string)) error {
	for _, part := range []string{namespace, name} {
		if part == "" || part == "." || part == ".." {
			return fmt.Errorf("prepare template: %q is not the name of a template or namespace", part)
		}
	}
	ref := namespace + "/" + name
	in := call{
		method: http.MethodPost, base: c.manager,
		path: "/v1/templates/" + url.PathEscape(namespace) + "/" + url.PathEscape(name) + "/prepare",
	}
	resp, err := c.send(ctx, in)
	if err != nil {
		return fmt.Errorf("prepare template %s: %w", ref, err)
	}
	defer resp.Body.Close()
	if err := readSteps(io.LimitReader(resp.Body, maxPrepareAnswer), progress); err != nil {
		var refused *APIError
		switch {
		case ctx.Err() != nil:
			err = ctx.Err()
		case !errors.As(err, &refused):
			err = &ConnectError{URL: in.base.String(), Err: fmt.Errorf("read answer: %w", err)}
		}
		return fmt.Errorf("prepare template %s: %w", ref, err)
	}
	return nil
}

// readSteps reads lines up to the one that says it is the last.
func readSteps(r io.Reader, progress func(string)) error {
	dec := json.NewDecoder(r)
	for {
		var line api.PrepareStep
		err := dec.Decode(&line)
		switch {
		case errors.Is(err, io.EOF):
			return io.ErrUnexpectedEOF
		case err != nil:
			return err
		case line.Error != nil:
			return lateError(line.Error)
		case line.Step != "" && progress != nil:
			progress(line.Step)
		}
		if line.Done {
			return nil
		}
	}
}

// lateError is a failure that came after the status of the answer, which it
// would have had otherwise.
func lateError(e *api.Error) *APIError {
	status := http.StatusInternalServerError
	if e.Code == api.CodeDiskFull {
		status = http.StatusInsufficientStorage
	}
	return &APIError{Status: status, Code: e.Code, Text: e.Text, Hint: e.Hint, RequestID: e.RequestID}
}
