package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/volcano-sh/agentcube/internal/config"
	"github.com/volcano-sh/agentcube/internal/template"
)

func newTemplate(a *app) *cobra.Command {
	cmd := newGroup("template", "List, check and prepare templates",
		newTemplateLs(a), newTemplateCheck(a), newTemplatePrepare(a))
	a.cfg.BindFlags(cmd.PersistentFlags(), "dataDir", "templateDir", "defaultImage")
	return cmd
}

// templates makes the source of the configured folder, not loaded yet.
func templates(cfg *config.Config, log *slog.Logger) (*template.Directory, error) {
	shipped, err := template.Shipped()
	if err != nil {
		return nil, err
	}
	return template.NewDirectory(template.Options{
		Dir: cfg.TemplateDir, DefaultImage: cfg.DefaultImage, Base: shipped, Log: log,
	}), nil
}

// templateRow is a template as `template ls` shows it.
type templateRow struct {
	Kind      string  `json:"kind"`
	Namespace string  `json:"namespace"`
	Name      string  `json:"name"`
	Image     string  `json:"image"`
	CPUMillis int64   `json:"cpuMillis"`
	Memory    int64   `json:"memoryBytes"`
	Disk      int64   `json:"diskBytes"`
	Idle      float64 `json:"idleTimeoutSeconds"`
	Life      float64 `json:"maxSessionSeconds"`
	Origin    string  `json:"origin"`
	idle      string
	life      string
}

func newTemplateRow(t template.Template) templateRow {
	return templateRow{
		Kind: t.Kind, Namespace: t.Namespace, Name: t.Name, Image: t.Image,
		CPUMillis: t.Resources.CPUMillis, Memory: t.Resources.MemoryBytes, Disk: t.Resources.DiskBytes,
		Idle: t.IdleTimeout.Seconds(), Life: t.MaxDuration.Seconds(), Origin: t.Origin,
		idle: t.IdleTimeout.String(), life: t.MaxDuration.String(),
	}
}

func newTemplateLs(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List the templates of this machine, those inside the program included",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := a.cfg.Validate(); err != nil {
				return err
			}
			// Problems are reported below, not in the log.
			dir, err := templates(a.cfg, slog.New(slog.DiscardHandler))
			if err != nil {
				return err
			}
			if err := dir.Load(cmd.Context()); err != nil {
				return err
			}
			rows := []templateRow{}
			for _, t := range dir.List() {
				rows = append(rows, newTemplateRow(t))
			}
			err = a.print(struct {
				Templates []templateRow `json:"templates"`
			}{rows}, func(w io.Writer) { templateTable(w, rows) })
			if err == nil && len(dir.Problems()) > 0 {
				fmt.Fprintf(a.Stderr, "agentcube: warning: %d problems in %s; `agentcube template check` lists them\n",
					len(dir.Problems()), a.cfg.TemplateDir)
			}
			return err
		},
	}
}

func templateTable(w io.Writer, rows []templateRow) {
	cells := make([][]string, 0, len(rows))
	for _, r := range rows {
		cells = append(cells, []string{
			r.Namespace + "/" + r.Name, r.Kind, r.Image, strconv.FormatFloat(float64(r.CPUMillis)/1000, 'g', -1, 64),
			size(r.Memory), size(r.Disk), r.idle, r.life, r.Origin,
		})
	}
	table(w, []string{"TEMPLATE", "KIND", "IMAGE", "CPU", "MEMORY", "DISK", "IDLE", "LIFE", "FROM"}, cells)
}

// templateCheck is what `template check` found.
type templateCheck struct {
	Templates []string           `json:"templates"`
	Problems  []template.Problem `json:"problems"`
}

func newTemplateCheck(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "check [FILE|FOLDER...]",
		Short: "Check template files, and say line and field of every mistake",
		Long:  "Check reads files and folders, by default the configured template folder, as the\nserver would, and fails when anything in them is wrong.",
		RunE: func(cmd *cobra.Command, paths []string) error {
			if err := a.cfg.Validate(); err != nil {
				return err
			}
			if len(paths) == 0 {
				paths = []string{a.cfg.TemplateDir}
			}
			found := templateCheck{Templates: []string{}, Problems: []template.Problem{}}
			for _, path := range paths {
				if err := found.add(cmd.Context(), path, a.cfg.DefaultImage, len(paths) == 1 && path == a.cfg.TemplateDir); err != nil {
					return err
				}
			}
			err := a.print(found, func(w io.Writer) {
				for _, t := range found.Templates {
					fmt.Fprintf(w, "ok  %s\n", printable(t))
				}
				for _, p := range found.Problems {
					fmt.Fprintf(w, "bad %s\n", printable(p.String()))
				}
			})
			if err == nil && len(found.Problems) > 0 {
				err = fmt.Errorf("check templates: %d problems in %s", len(found.Problems), strings.Join(paths, ", "))
			}
			return err
		},
	}
}

// add checks one file or folder; one that is missing is an error unless it may be.
func (c *templateCheck) add(ctx context.Context, path, defaultImage string, mayBeMissing bool) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && mayBeMissing:
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return &cliError{code: exitNotFound, err: fmt.Errorf("read template %s: %w", path, reason(err))}
	case err != nil:
		return fmt.Errorf("read template %s: %w", path, reason(err))
	}
	var list []template.Template
	if info.IsDir() {
		dir := template.NewDirectory(template.Options{
			Dir: path, DefaultImage: defaultImage, Log: slog.New(slog.DiscardHandler),
		})
		if err := dir.Load(ctx); err != nil {
			return err
		}
		list = dir.List()
		c.Problems = append(c.Problems, dir.Problems()...)
	} else {
		data, err := readBounded(path, template.MaxFileBytes+1)
		if err != nil {
			return fmt.Errorf("read template %s: %w", path, reason(err))
		}
		var problems template.Problems
		if list, err = template.Parse(path, data, defaultImage); errors.As(err, &problems) {
			c.Problems = append(c.Problems, problems...)
		} else if err != nil {
			return err
		}
	}
	for _, t := range list {
		c.Templates = append(c.Templates, fmt.Sprintf("%s %s/%s (%s)", t.Kind, t.Namespace, t.Name, t.Origin))
	}
	return nil
}

func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit))
}
