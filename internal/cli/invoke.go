package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/volcano-sh/agentcube/client"
)

// maxShownAnswer bounds an answer that becomes part of a JSON document, in bytes.
const maxShownAnswer = 64 << 20

// invocation is what the flags of invoke say.
type invocation struct {
	payload, session, path, method string
	headers                        []string
	keep                           bool
	timeout                        time.Duration
}

func newInvoke(a *app) *cobra.Command {
	in := invocation{}
	cmd := &cobra.Command{
		Use:   "invoke AGENT",
		Short: "Send a request to an agent and print its answer",
		Long: "Invoke sends a request to the server of an agent, a template of kind AgentRuntime, and\n" +
			"prints the answer while it comes. Without --session a session is made for it, which\n" +
			"ends afterwards, or with --keep goes on; its id is printed to standard error.",
		Example: "  agentcube invoke my-agent --payload '{\"prompt\": \"hello\"}'\n" +
			"  agentcube invoke my-agent --session $id --path chat --payload @question.json",
		Args: args(cobra.ExactArgs(1)),

		ValidArgsFunction: a.complete(1, a.agentWords),
		RunE: func(cmd *cobra.Command, list []string) error {
			namespace, name, err := templateName(list[0])
			if err != nil {
				return err
			}
			if in.timeout <= 0 {
				return &cliError{code: exitUsage, err: fmt.Errorf("--timeout %s is not above zero", in.timeout)}
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), in.timeout)
			defer cancel()
			req, err := a.agentRequest(ctx, in)
			if err != nil {
				return err
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			defer c.Close()
			return a.invoke(ctx, c, c.Agent(namespace, name, in.session), req, in)
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&in.payload, "payload", "p", "", "body of the request: `JSON`, @FILE, or - for standard input")
	flags.StringVar(&in.session, "session", "", "use this session, of its `id`")
	flags.BoolVar(&in.keep, "keep", false, "leave the session that is made for the request")
	flags.StringVar(&in.path, "path", "/", "path and query at the agent's server")
	flags.StringVarP(&in.method, "method", "X", "", "method of the request (default POST with a payload, else GET)")
	flags.StringArrayVarP(&in.headers, "header", "H", nil, "header of the request, as `NAME: VALUE`; may be repeated")
	flags.DurationVar(&in.timeout, "timeout", 5*time.Minute, "gives up after this time")
	a.completeFlag(cmd, "session", a.sessionWords(living()...))
	return cmd
}

// agentRequest makes the request of an invocation.
func (a *app) agentRequest(ctx context.Context, in invocation) (*http.Request, error) {
	wrong := func(err error) error { return &cliError{code: exitUsage, err: err} }
	var body io.Reader
	switch file, isFile := strings.CutPrefix(in.payload, "@"); {
	case in.payload == "-":
		body = a.Stdin
	case isFile:
		f, err := os.Open(file)
		if err != nil {
			return nil, fmt.Errorf("read payload: %w", err)
		}
		body = f // closed with the request
	case in.payload != "":
		body = strings.NewReader(in.payload)
	}
	method := in.method
	if method == "" {
		if method = http.MethodGet; body != nil {
			method = http.MethodPost
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://agent/"+strings.TrimLeft(in.path, "/"), body)
	if err != nil {
		return nil, wrong(err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for _, h := range in.headers {
		name, value, found := strings.Cut(h, ":")
		if !found || name == "" {
			return nil, wrong(fmt.Errorf("--header %q is not of the form NAME: VALUE", h))
		}
		req.Header.Set(name, strings.TrimSpace(value))
	}
	return req, nil
}

// invoke sends the request, prints the answer, and ends the session if it was made
// for this alone.
func (a *app) invoke(ctx context.Context, c *client.Client, agent *client.Agent, req *http.Request, in invocation) (err error) {
	resp, err := agent.RoundTrip(req)
	if made := agent.SessionID(); made != "" && in.session == "" {
		if in.keep {
			fmt.Fprintln(a.Stderr, "session", made)
		} else {
			defer func() { err = errors.Join(err, endSession(ctx, c, made)) }()
		}
	}
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode >= http.StatusBadRequest {
		body, err := client.ReadError(resp)
		if err != nil {
			return err
		}
		if _, err := a.Stdout.Write(body); err != nil {
			return err
		}
		return &cliError{code: exitFailure, err: fmt.Errorf("the agent answered %s", resp.Status)}
	}
	return a.printAnswer(resp, agent.SessionID())
}

// endSession ends a session also when the invocation was interrupted.
func endSession(ctx context.Context, c *client.Client, id string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), deleteTimeout)
	defer cancel()
	err := c.DeleteSession(ctx, id)
	if errors.Is(err, client.ErrNotFound) || errors.Is(err, client.ErrSessionEnded) {
		return nil
	}
	return err
}

func (a *app) printAnswer(resp *http.Response, session string) error {
	if a.output == outputTable {
		_, err := io.Copy(a.Stdout, resp.Body)
		return err
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxShownAnswer+1))
	if err == nil && len(body) > maxShownAnswer {
		err = fmt.Errorf("the answer is longer than %d bytes: leave --output json out", maxShownAnswer)
	}
	if err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	shown := struct {
		SessionID string          `json:"sessionId"`
		Status    int             `json:"status"`
		Answer    json.RawMessage `json:"answer"`
	}{session, resp.StatusCode, body}
	if !json.Valid(body) {
		if shown.Answer, err = json.Marshal(string(body)); err != nil {
			return err
		}
	}
	return a.print(shown, nil)
}
