package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	record "github.com/volcano-sh/agentcube/api/audit"
	"github.com/volcano-sh/agentcube/internal/audit"
	"github.com/volcano-sh/agentcube/internal/config"
)

func newAudit(a *app) *cobra.Command {
	cmd := newGroup("audit", "Check and export the record of what was done",
		newAuditVerify(a), newAuditExport(a))
	cmd.Long = "AgentCube records who made, used and ended which session, in files below the data\n" +
		"folder, of which each line holds the hash of the one before. These commands read them, with\n" +
		"or without a server, and change nothing."
	a.cfg.BindFlags(cmd.PersistentFlags(), "dataDir")
	return cmd
}

// openAudit opens the record of what is done from now on, if it is wanted.
func openAudit(ctx context.Context, cfg *config.Config, log *slog.Logger) (audit.Recorder, func() error, error) {
	if !cfg.Audit {
		return audit.Nothing{}, nil, nil
	}
	record := audit.New(audit.Config{Dir: cfg.AuditDir(), MaxSize: int64(cfg.AuditMaxSize), Logger: log})
	if err := record.Open(ctx); err != nil {
		if errors.Is(err, audit.ErrDamaged) {
			err = withHint(err, "`agentcube audit verify` says more; move the folder away to begin a new record")
		}
		return nil, nil, err
	}
	return record, record.Close, nil
}

// auditDir is the folder of the record, which has to be there.
func (a *app) auditDir() (string, error) {
	dir := a.cfg.AuditDir()
	switch _, err := os.ReadDir(dir); {
	case errors.Is(err, fs.ErrNotExist):
		return "", &cliError{code: exitNotFound, err: fmt.Errorf("there is no audit record in %s", dir),
			hint: "--data-dir says where AgentCube keeps its data"}
	case errors.Is(err, fs.ErrPermission):
		return "", withHint(fmt.Errorf("read audit record: %w", err), "only root may read it: use sudo")
	case err != nil:
		return "", fmt.Errorf("read audit record: %w", err)
	}
	return dir, nil
}

func newAuditVerify(a *app) *cobra.Command {
	var expect []string
	var file, session string
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Check that the record is whole, and say where it is not",
		Long: "Verify checks that each line follows the one before, that what is gone was removed as\n" +
			"recorded, and that the seals of sessions are signed by their sandboxes.\n\n" +
			"Whoever may write the files could write all of them anew, or cut off their end. To see\n" +
			"that, keep the head that verify prints somewhere else, and give it to the next --expect.\n\n" +
			"With --record it checks the record of one session, as its owner has fetched it from\n" +
			"the session, against what the sandbox has signed and what the server has recorded of it.",
		Example: "  agentcube audit verify\n" +
			"  agentcube audit verify --expect 1204:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\n" +
			"  agentcube audit verify --record session.jsonl --session SESSION",
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if (file == "") != (session == "") {
				return usageError(cmd, errors.New("--record and --session go together"))
			}
			dir, err := a.auditDir()
			if err != nil {
				return err
			}
			if file != "" {
				return a.verifySession(cmd, dir, file, session)
			}
			var heads []record.Head
			for _, text := range expect {
				h, err := record.ParseHead(text)
				if err != nil {
					return usageError(cmd, err)
				}
				heads = append(heads, h)
			}
			report, err := audit.Verify(cmd.Context(), dir, heads...)
			if err != nil {
				return withHint(fmt.Errorf("the audit record is not whole: %w", err),
					fmt.Sprintf("up to line %d it is; keep a copy of %s as it is", report.Last.Seq, dir))
			}
			return a.print(report, func(w io.Writer) { printReport(w, report) })
		},
	}
	flags := cmd.Flags()
	flags.StringArrayVar(&expect, "expect", nil, "a `head` of before that has to be in the record; may be repeated")
	flags.StringVar(&file, "record", "", "check this `file` with a session's own record")
	flags.StringVar(&session, "session", "", "the `session` of --record")
	return cmd
}

func printReport(w io.Writer, r audit.Report) {
	first := ""
	if r.First.Seq > 0 {
		first = fmt.Sprintf("%d, as older ones were removed", r.First.Seq+1)
	}
	missing := ""
	if r.Missing > 0 {
		missing = fmt.Sprintf("%d events could not be written", r.Missing)
	}
	fields(w, "Whole", "yes", "Lines", strconv.FormatUint(r.Events, 10), "First", first,
		"Seals", fmt.Sprintf("%d valid, %d missing", r.Seals, r.Unsealed), "Missing", missing, "Head", r.Last.String())
}

// verifySession checks the record of a session.
func (a *app) verifySession(cmd *cobra.Command, dir, file, session string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("read session record: %w", err)
	}
	var certificate string
	var seals []string
	_, _, err = audit.Read(cmd.Context(), dir, func(_ record.Line, e record.Event) error {
		if e.Session == session && e.Certificate != "" {
			certificate = e.Certificate
		}
		if e.Session == session && e.Seal != nil && e.Seal.Statement != "" {
			seals = append(seals, e.Seal.Statement)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("the audit record is not whole: %w", err)
	}
	if certificate == "" {
		return &cliError{code: exitNotFound, err: fmt.Errorf("the audit record knows no session %s that keeps a record of its own", printable(session))}
	}
	rec, err := record.ParseRecord(text, certificate, session)
	if err != nil {
		return err
	}
	out := struct {
		Session string      `json:"session"`
		Lines   int         `json:"lines"`
		Head    record.Head `json:"head"`
		Seals   int         `json:"seals"` // that agree with the record
	}{Session: session, Lines: len(rec.Entries), Head: rec.Statement.Head}
	for _, seal := range seals {
		s, err := record.ParseStatement(seal, certificate, session)
		if err != nil {
			return err
		}
		if s.Head.Seq <= rec.Before.Seq || s.Head.Seq > rec.Statement.Head.Seq {
			continue // of lines that the file does not have
		}
		if !slices.Contains(rec.Heads, s.Head) {
			return fmt.Errorf("the record is not the one that was sealed: they differ up to line %d", s.Head.Seq)
		}
		out.Seals++
	}
	return a.print(out, func(w io.Writer) {
		fields(w, "Session", session, "Whole", "yes", "Lines", strconv.Itoa(out.Lines),
			"Seals", fmt.Sprintf("%d agree", out.Seals), "Head", out.Head.String())
	})
}

func newAuditExport(a *app) *cobra.Command {
	var session, owner, since, until string
	var actions []string
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Print the record, or a part of it, as JSON Lines",
		Long: "Export prints lines as they are in the record, oldest first, after it has checked each of them.\n" +
			"Times are RFC 3339, as 2026-05-01T00:00:00Z, or how long ago, as 24h.",
		Example: "  agentcube audit export --session SESSION\n" +
			"  agentcube audit export --since 24h --action request.refused | jq .from",
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			from, err := parseMoment(since)
			if err != nil {
				return usageError(cmd, fmt.Errorf("--since: %w", err))
			}
			to, err := parseMoment(until)
			if err != nil {
				return usageError(cmd, fmt.Errorf("--until: %w", err))
			}
			dir, err := a.auditDir()
			if err != nil {
				return err
			}
			_, _, err = audit.Read(cmd.Context(), dir, func(l record.Line, e record.Event) error {
				switch {
				case session != "" && e.Session != session && e.Parent != session,
					owner != "" && e.Owner != owner && e.Actor != owner,
					len(actions) > 0 && !slices.Contains(actions, string(e.Action)),
					!from.IsZero() && e.Time.Before(from), !to.IsZero() && !e.Time.Before(to):
					return nil
				}
				if _, err := a.Stdout.Write(append(l.Text, '\n')); err != nil {
					return fmt.Errorf("write output: %w", err)
				}
				return nil
			})
			return err
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&session, "session", "", "only what is about this `session`, or made from it")
	flags.StringVar(&owner, "owner", "", "only what this `owner` has, or has done")
	flags.StringArrayVar(&actions, "action", nil, "only this `action`, as session.created; may be repeated")
	flags.StringVar(&since, "since", "", "only from this `time` on")
	flags.StringVar(&until, "until", "", "only before this `time`")
	return cmd
}

// parseMoment reads a time, or how long ago it was. "" is the zero time.
func parseMoment(text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		return time.Now().Add(-ago), nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return at, fmt.Errorf("%q is neither a time nor a duration", text)
	}
	return at, nil
}
