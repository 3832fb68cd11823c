package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/client"
	"github.com/volcano-sh/agentcube/internal/auth"
	"github.com/volcano-sh/agentcube/internal/bench"
	"github.com/volcano-sh/agentcube/internal/image"
	"github.com/volcano-sh/agentcube/internal/sandbox/gvisor/agent"
)

// benchFlags are the flags of bench that are not settings.
type benchFlags struct {
	samples     int
	concurrency []int
	only        []string
	preload     []string
	archive     string
	dir         string
	template    string
	warm        string
	limits      string
	file        string
	soak        time.Duration
	sleepers    int
}

const benchLong = `Bench starts an AgentCube of its own, in a temporary folder, measures what users
wait for, and beside each number a reference taken in the same run, in turns: a
stock start, checkpoint and restore of the same gVisor with the same image, a
native fork and exec from Python, a plain local HTTP server. A ratio below 1 is
faster, or smaller, than the reference. It needs root and takes minutes.

What is measured:
  create_hot, create_drained
      the create call, with a sandbox waiting in a warm pool, and with the pool
      empty, so that one is restored from the template's snapshot
  first_output_hot, first_output_drained
      from the beginning of that call to the output of print(1)
  exec_true, run_code_python
      a command that does nothing; print(1) as a script in a new interpreter
  exec_true_encrypted, sign_and_check
      what the security of a request costs, beside a command that does nothing
      without encryption: the same with it; a signature and two checks of it
  pause, resume, fork
      the calls, with a Python process that has imported the modules of --preload
  upload_64mib, download_64mib
      64 MiB through the Router
  idle_private_mib, idle_private_preloaded_mib
      memory that an idle session shares with nobody, and where that is

--soak uses sessions at random for a time instead, and checks what is in them.
--sleepers makes so many paused sessions instead and wakes random ones.
--limits compares ratios with those in a JSON file, measures those that are over
again, and fails when they still are.

With --server it measures that server instead of one of its own, as far as that
goes: hot only with --warm-template, memory and gVisor only as root on its machine
(with --data-dir).`

func newBench(a *app) *cobra.Command {
	var o benchFlags
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure AgentCube beside references on the same machine",
		Long:  benchLong,
		Example: `  agentcube bench
  agentcube bench --only create_hot,first_output_hot --concurrency 1,10,50
  agentcube bench --soak 10m --concurrency 8
  agentcube bench --sleepers 1000
  agentcube --server http://localhost:8080 bench --only exec_true`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.soak != 0 && o.sleepers != 0 || o.limits != "" && (o.soak != 0 || o.sleepers != 0) {
				return usageError(cmd, errors.New("--soak, --sleepers and --limits exclude each other"))
			}
			if o.soak < 0 || o.sleepers < 0 {
				return usageError(cmd, errors.New("--soak and --sleepers must not be negative"))
			}
			if a.server != "" {
				return a.benchServer(cmd, o)
			}
			return a.benchOwn(cmd, o)
		},
	}
	flags := cmd.Flags()
	flags.IntVarP(&o.samples, "samples", "n", 20, "samples of each quantity; fewer of what is large")
	flags.IntSliceVarP(&o.concurrency, "concurrency", "c", []int{1}, "how many at a time; a list, such as 1,10,50, gives a result for each")
	flags.StringSliceVar(&o.only, "only", nil, "measure only these `names`")
	flags.StringSliceVar(&o.preload, "preload", []string{"pandas", "matplotlib.pyplot"}, "`modules` that the preloaded template has imported")
	flags.StringVar(&o.archive, "image-archive", "", "import the default image from this `file` instead of taking it from the data folder")
	flags.StringVar(&o.dir, "dir", "", "make the temporary data `folder` in this one (default the system's)")
	flags.StringVarP(&o.template, "template", "t", client.DefaultTemplate, "with --server: template without a warm pool, as `name` or namespace/name")
	flags.StringVar(&o.warm, "warm-template", "", "with --server: template with a warm pool, as `name` or namespace/name")
	flags.DurationVar(&o.soak, "soak", 0, "use sessions at random for this time")
	flags.IntVar(&o.sleepers, "sleepers", 0, "make so many paused sessions and wake random ones")
	flags.StringVar(&o.limits, "limits", "", "fail when a ratio is above its limit in this JSON `file`")
	flags.StringVar(&o.file, "file", "", "write the JSON report to this `file`, too")
	a.cfg.BindFlags(flags, "dataDir", "templateDir", "platform", "defaultImage")
	a.completeFlag(cmd, "template", a.templateWords)
	a.completeFlag(cmd, "warm-template", a.templateWords)
	return cmd
}

// benchOwn measures a server that it starts and ends.
func (a *app) benchOwn(cmd *cobra.Command, o benchFlags) (err error) {
	if err := a.cfg.Validate(); err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return withHint(errors.New("start a server to measure: sandboxes need namespaces and control groups, which only root can make"),
			"sudo agentcube bench, or name a server that runs with --server")
	}
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find own program: %w", err)
	}
	if err := a.benchImage(o); err != nil {
		return err
	}
	srv := bench.NewServer(bench.ServerOptions{
		Program: program, Dir: o.dir, Images: a.cfg.ImageDir(), Archive: o.archive, Image: a.cfg.DefaultImage,
		Platform: platform(cmd.Context(), a.cfg.Platform), Preload: o.preload,
	})
	defer func() { err = errors.Join(err, srv.Stop()) }()
	a.benchNote("starting a server")
	if err := srv.Start(cmd.Context()); err != nil {
		return err
	}
	token, err := auth.ReadTokenFile(srv.TokenFile)
	if err != nil {
		return err
	}
	c, err := client.New(client.Config{BaseURL: srv.URL, LocalToken: token, UserAgent: "agentcube-bench/" + a.Version})
	if err != nil {
		return err
	}
	defer c.Close()
	store := image.New(image.Options{Dir: filepath.Join(srv.DataDir, "images")})
	img, err := store.Rootfs(cmd.Context(), a.cfg.DefaultImage)
	if err != nil {
		return err
	}
	err = a.bench(cmd.Context(), o, bench.Options{
		Client: c, Plain: srv.Plain(), Preloaded: srv.Preloaded(), Preload: o.preload, DataDir: srv.DataDir, Standby: a.cfg.Standby,
		Warm:    func(ctx context.Context, size int) (bench.Template, error) { return srv.Warm(ctx, c, size) },
		Program: program, Sidecar: benchSidecar(srv.DataDir), Rootfs: img.Rootfs,
		Platform: platform(cmd.Context(), a.cfg.Platform),
	})
	if log := srv.Log(); log != "" {
		fmt.Fprintf(a.Stderr, "agentcube: the server said:\n%s\n", log)
	}
	return err
}

// benchImage finds out early that there is no image.
func (a *app) benchImage(o benchFlags) error {
	path := o.archive
	if path == "" {
		path = filepath.Join(a.cfg.ImageDir(), "index.json")
	}
	_, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) && o.archive == "" {
		return withHint(fmt.Errorf("find image %s: there are no images in %s", a.cfg.DefaultImage, a.cfg.ImageDir()),
			"agentcube image import ARCHIVE "+a.cfg.DefaultImage+", or name the archive with --image-archive")
	}
	if err != nil {
		return fmt.Errorf("find image: %w", err)
	}
	return nil
}

// benchServer measures a server that runs.
func (a *app) benchServer(cmd *cobra.Command, o benchFlags) error {
	plain, err := benchTemplate(o.template)
	if err != nil {
		return err
	}
	c, err := a.connect()
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Health(cmd.Context()); err != nil {
		return err
	}
	opts := bench.Options{Client: c, Plain: plain, Platform: platform(cmd.Context(), a.cfg.Platform)}
	if o.warm != "" {
		warm, err := benchTemplate(o.warm)
		if err != nil {
			return err
		}
		opts.Warm = func(context.Context, int) (bench.Template, error) { return warm, nil }
	}
	if err := a.benchReferences(cmd.Context(), &opts); err != nil {
		return err
	}
	return a.bench(cmd.Context(), o, opts)
}

func benchTemplate(ref string) (bench.Template, error) {
	namespace, name, err := templateName(ref)
	return bench.Template{Namespace: namespace, Name: name}, err
}

func (a *app) benchNote(format string, args ...any) {
	if !a.noProgress {
		fmt.Fprintf(a.Stderr, "bench: "+format+"\n", args...)
	}
}

// benchReferences finds what there is to compare with, and says what is missing.
func (a *app) benchReferences(ctx context.Context, opts *bench.Options) error {
	if os.Geteuid() != 0 {
		a.benchNote("no comparison with stock gVisor, and no memory: not root")
		return nil
	}
	rootfs, err := a.rootfsOf(ctx, opts.Plain)
	if err != nil {
		a.benchNote("no comparison with stock gVisor, and no memory: %s", oneLine(err.Error()))
		return nil
	}
	if opts.Program, err = os.Executable(); err != nil {
		return fmt.Errorf("find own program: %w", err)
	}
	opts.Rootfs, opts.DataDir, opts.Standby, opts.Sidecar = rootfs, a.cfg.DataDir, a.cfg.Standby, benchSidecar(a.cfg.DataDir)
	return nil
}

// benchSidecar is where a server has unpacked gVisor's kernel: the stock
// sandboxes shall be no slower for want of it.
func benchSidecar(dataDir string) string {
	found, err := filepath.Glob(filepath.Join(dataDir, "agent", "sentry-*", agent.SentryFile))
	if err != nil || len(found) == 0 {
		return ""
	}
	return filepath.Dir(found[0])
}

// rootfsOf is the file that sandboxes of the template have as their root.
func (a *app) rootfsOf(ctx context.Context, of bench.Template) (string, error) {
	dir, err := templates(a.cfg, a.logger())
	if err != nil {
		return "", err
	}
	if err := dir.Load(ctx); err != nil {
		return "", err
	}
	t, err := dir.Get(api.KindCodeInterpreter, of.Namespace, of.Name)
	if err != nil {
		return "", err
	}
	store, err := a.images(ctx)
	if err != nil {
		return "", err
	}
	img, err := store.Rootfs(ctx, t.Image)
	return img.Rootfs, err
}

// bench runs what the flags ask for, and prints its report.
func (a *app) bench(ctx context.Context, o benchFlags, opts bench.Options) error {
	opts.N, opts.Concurrency, opts.Only = o.samples, o.concurrency, o.only
	python, err := exec.LookPath("python3")
	if err != nil {
		a.benchNote("no comparison with native commands: python3 is not installed")
	}
	opts.Python = python
	bar := a.progressSteps("bench", -1)
	opts.Step = func(done, total int) { bar.of(int64(done), int64(total)) }
	var report bench.Report
	switch {
	case o.soak > 0:
		report, err = bench.Soak(ctx, opts, o.soak)
	case o.sleepers > 0:
		report, err = bench.Sleepers(ctx, opts, o.sleepers)
	case o.limits != "":
		return a.benchLimits(ctx, o, opts, bar)
	default:
		report, err = bench.Run(ctx, opts)
	}
	bar.finish()
	// What was measured before a failure, or an interrupt, is worth keeping.
	if err == nil || len(report.Results) > 0 {
		err = errors.Join(err, a.printReport(report, o.file))
	}
	if err != nil {
		return err
	}
	if report.Soak != nil && !report.Soak.OK() {
		return errors.New("soak: something went wrong")
	}
	return nil
}

// benchLimits holds ratios against limits; what is over is measured once more,
// for machines are noisy.
func (a *app) benchLimits(ctx context.Context, o benchFlags, opts bench.Options, bar *progress) error {
	limits, err := bench.ReadLimits(o.limits)
	if err != nil {
		return err
	}
	if len(opts.Only) > 0 {
		limits = limits.Of(opts.Only)
	}
	opts.Only = limits.Names()
	var over []string
	for range 2 {
		report, err := bench.Run(ctx, opts)
		bar.finish()
		if err != nil {
			return err
		}
		if err := a.printReport(report, o.file); err != nil {
			return err
		}
		verdicts, err := limits.Check(report)
		if err != nil {
			return err
		}
		over = a.judge(verdicts)
		if len(over) == 0 {
			return nil
		}
		opts.Only, limits = over, limits.Of(over)
	}
	return fmt.Errorf("ratios above their limits, twice: %s", strings.Join(over, ", "))
}
