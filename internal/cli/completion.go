package cli

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/client"
	"github.com/volcano-sh/agentcube/internal/image"
)

// completionPatience is how long a shell waits for what may come next. What is
// not found by then is not offered.
const completionPatience = time.Second

// maxOffered bounds the sessions that are offered.
const maxOffered = 100

// words finds what may come next on a command line: each is a word and, after a
// tab, what it is.
type words func(ctx context.Context) ([]string, error)

// anyNumber of arguments may be offered words.
const anyNumber = -1

// complete offers words for the first arguments, up to a number, and nothing for
// those after them. Where words cannot be found, because no server runs for
// example, none are offered, and nothing is said: nobody has asked yet.
func (a *app) complete(number int, find words) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
		if number != anyNumber && len(args) >= number {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return a.offer(cmd.Context(), find, args, begun), cobra.ShellCompDirectiveNoFileComp
	}
}

// offer is what can follow what was begun, without the words that are there.
func (a *app) offer(ctx context.Context, find words, there []string, begun string) []string {
	// The flags of the line were read after the settings, and some settings
	// depend on others.
	if a.cfg.Load() != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, completionPatience)
	defer cancel()
	found, err := find(ctx)
	if err != nil {
		return nil
	}
	return slices.DeleteFunc(found, func(offered string) bool {
		word, _, _ := strings.Cut(offered, "\t")
		return !strings.HasPrefix(word, begun) || slices.Contains(there, word)
	})
}

// completeFlag offers words for the value of a flag.
func (a *app) completeFlag(cmd *cobra.Command, flag string, find words) {
	err := cmd.RegisterFlagCompletionFunc(flag, func(cmd *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
		return a.offer(cmd.Context(), find, nil, begun), cobra.ShellCompDirectiveNoFileComp
	})
	if err != nil {
		panic("cli: " + err.Error()) // the flag does not exist, or has one already
	}
}

// sessionWords are the ids of sessions in some of the states, or in all.
func (a *app) sessionWords(states ...api.State) words {
	return func(ctx context.Context) ([]string, error) {
		c, err := a.connect()
		if err != nil {
			return nil, err
		}
		defer c.Close()
		page, err := c.ListSessions(ctx, client.ListOptions{States: states, Limit: maxOffered})
		out := make([]string, 0, len(page.Sessions))
		for _, s := range page.Sessions {
			out = append(out, s.SessionID+"\t"+s.Namespace+"/"+s.Name+", "+string(s.State))
		}
		return out, err
	}
}

// completeCopy offers the sessions from or to which files can be copied; local
// files the shell offers itself.
func (a *app) completeCopy(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	if len(args) >= 2 || strings.Contains(begun, ":") {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	found := a.offer(cmd.Context(), a.sessionWords(living()...), nil, begun)
	for i, offered := range found {
		word, what, _ := strings.Cut(offered, "\t")
		found[i] = word + ":\t" + what
	}
	return found, cobra.ShellCompDirectiveNoSpace
}

// checkpointWords are the names of checkpoints.
func (a *app) checkpointWords(ctx context.Context) ([]string, error) {
	c, err := a.connect()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	list, err := c.Checkpoints(ctx)
	out := make([]string, 0, len(list))
	for _, kept := range list {
		out = append(out, kept.Name+"\t"+kept.Namespace+"/"+kept.TemplateName)
	}
	return out, err
}

// templateWords are the names of the templates of this machine, and agentWords those
// of its agents.
func (a *app) templateWords(ctx context.Context) ([]string, error) {
	return a.wordsOf(ctx, api.KindCodeInterpreter)
}

func (a *app) agentWords(ctx context.Context) ([]string, error) {
	return a.wordsOf(ctx, api.KindAgentRuntime)
}

func (a *app) wordsOf(ctx context.Context, kind string) ([]string, error) {
	dir, err := templates(a.cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	err = dir.Load(ctx)
	var out []string
	for _, t := range dir.List() {
		if t.Kind != kind {
			continue
		}
		word := t.Namespace + "/" + t.Name
		if t.Namespace == client.DefaultNamespace {
			word = t.Name
		}
		out = append(out, word+"\t"+t.Image)
	}
	return out, err
}

// imageWords are the names of the images of this machine, and the digests of
// those that have none. Nothing is made or swept where there are none.
func (a *app) imageWords(ctx context.Context) ([]string, error) {
	list, err := image.New(image.Options{Dir: a.cfg.ImageDir()}).List(ctx)
	var out []string
	for _, img := range list {
		names := img.References
		if len(names) == 0 {
			names = []string{img.Digest}
		}
		for _, name := range names {
			out = append(out, name+"\t"+size(img.Size))
		}
	}
	return out, err
}
