// Command kernels boots the kernel matrix and runs the BPF tests in each kernel.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/kernel-gossip/kernel-gossip/e2e/kernels"
	"github.com/kernel-gossip/kernel-gossip/e2e/libraries"
	"github.com/kernel-gossip/kernel-gossip/e2e/stages"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := matrix(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "kernels:", err)
		stop()
		os.Exit(1) //nolint:gocritic // stop has been called
	}
}

func matrix(ctx context.Context) error {
	var (
		names    = flag.String("kernels", os.Getenv("KERNELS"), "boots to run, separated by spaces or commas: names of the matrix, oldest, middle, newest, or another series (default: $KERNELS, or all of the matrix)")
		markdown = flag.String("markdown", "", "file to write the tables to, as Markdown")
		pkg      = flag.String("package", "./bpf", "package of the root module whose tests run in the guests")
		tests    = flag.String("run", "", "which tests: go test's -run, without spaces")
		mirror   = flag.String("mirror", "", "root of Debian's main archive, as it stands before /dists in apt's sources (default: what this machine's apt has)")
		security = flag.String("security-mirror", "", "the same of Debian's security archive")
		silence  = flag.Duration("silence", 90*time.Second, "how long a guest may say nothing before it counts as hung")
		timeout  = flag.Duration("timeout", 15*time.Minute, "how long one attempt at a boot may take")
		fetch    = flag.Bool("fetch", false, "fetch the kernels and leave: then a boot needs no network for a week")
		threads  = flag.String("threads", "auto", "single: emulate both CPUs on one thread; multi: each on its own, on one after a crash; auto: multi from QEMU 8.1 on")
		parallel = flag.Int("parallel", 0, "how many boots at once (default: as many as the machine has CPUs for)")
		logs     = flag.String("logs", "", "directory for the console logs (default .cache/kernels in e2e)")
	)
	flag.Parse()
	boots, err := kernels.Select(*names)
	if err != nil {
		return err
	}
	if strings.ContainsAny(*tests, " \t") {
		return fmt.Errorf("-run %q has spaces, which a kernel command line does not keep", *tests)
	}
	emulator, err := kernels.FindEmulator(ctx)
	if err != nil {
		return err
	}
	single := *threads == "single" || *threads == "auto" && !emulator.PatchesText()
	if !slices.Contains([]string{"auto", "single", "multi"}, *threads) {
		return fmt.Errorf("-threads %q is not one of auto, single, multi", *threads)
	}
	log := stages.New(os.Stderr, time.Now())

	here, err := exec.CommandContext(ctx, "go", "list", "-f", "{{.Module.Dir}}", "github.com/kernel-gossip/kernel-gossip/e2e/kernels").Output()
	if err != nil {
		return fmt.Errorf("finding the e2e module (run this from within it): %w", err)
	}
	root := filepath.Dir(strings.TrimSpace(string(here)))
	if *logs == "" {
		*logs = filepath.Join(root, "e2e", ".cache", "kernels")
	}
	if err := os.MkdirAll(*logs, 0o755); err != nil {
		return fmt.Errorf("making the log directory: %w", err)
	}
	fetched := log.Begin("looking up kernels, fetching those not cached")
	cache, err := kernels.UserCache(ctx, kernels.Mirrors{Main: strings.Fields(*mirror), Security: strings.Fields(*security)}, os.Stderr)
	if err != nil {
		return err
	}
	busybox, err := cache.Busybox(ctx)
	if err != nil {
		return fmt.Errorf("fetching busybox: %w", err)
	}
	for _, boot := range boots {
		if _, _, err := cache.Kernel(ctx, boot.Kernel); err != nil {
			return fmt.Errorf("fetching kernel %s: %w", boot.Kernel, err)
		}
		if _, err := cache.Modules(ctx, boot.Kernel, kernels.TestModules()...); err != nil {
			return fmt.Errorf("fetching modules of kernel %s: %w", boot.Kernel, err)
		}
	}
	stress, err := libraries.With("stress-ng")
	if err != nil {
		return fmt.Errorf("%w (Debian's package stress-ng has it)", err)
	}
	fetched()
	if *fetch {
		return nil
	}
	built := log.Begin("building the tests of " + *pkg)
	test := filepath.Join(*logs, "guest.test")
	build := exec.CommandContext(ctx, "go", "test", "-c", "-o", test, *pkg)
	build.Dir, build.Stderr = root, os.Stderr
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if err := build.Run(); err != nil {
		return fmt.Errorf("building the tests of %s: %w", *pkg, err)
	}
	built()
	initramfs := kernels.Initramfs{Busybox: busybox, Test: test, Files: stress}
	if data := filepath.Join(root, *pkg, "testdata"); isDir(data) {
		initramfs.Data = data
	}
	runner := &kernels.Runner{
		Cache: cache, Initramfs: initramfs, Modules: kernels.TestModules(), Logs: *logs, Run: *tests,
		Silence: *silence, Timeout: *timeout, Single: single, Progress: os.Stderr,
	}
	if *parallel <= 0 {
		*parallel = min(runtime.NumCPU(), 4) // a GiB each
		if !single {
			*parallel = max(1, *parallel/2)
		}
	}
	results, err := run(ctx, runner, boots, *parallel, log)
	if err != nil {
		return err
	}
	var failed []string
	for _, result := range results {
		if len(result.Problems) > 0 {
			failed = append(failed, result.Boot.Name)
		}
	}
	log.Say("done")
	if err := log.Text(os.Stderr); err != nil {
		return err
	}
	fmt.Println()
	if err := kernels.Text(os.Stdout, results); err != nil {
		return err
	}
	if *markdown != "" {
		if err := write(*markdown, emulator, results, log); err != nil {
			return err
		}
	}
	if len(failed) > 0 {
		return fmt.Errorf("%d of %d boots failed: %s; console logs in %s", len(failed), len(boots), strings.Join(failed, ", "), *logs)
	}
	return nil
}

// run runs the boots, so many at once, and returns their results in their order.
func run(ctx context.Context, runner *kernels.Runner, boots []kernels.Boot, parallel int, log *stages.Log) ([]kernels.Result, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results, errs := make([]kernels.Result, len(boots)), make([]error, len(boots))
	free := make(chan struct{}, parallel)
	var all sync.WaitGroup
	for i, boot := range boots {
		free <- struct{}{}
		all.Go(func() {
			defer func() { <-free }()
			booted := log.Begin(fmt.Sprintf("boot %d of %d: %s (cgroup %s)", i+1, len(boots), boot.Name, boot.Cgroup()))
			if results[i], errs[i] = runner.Do(ctx, boot); errs[i] != nil {
				cancel()
				return
			}
			booted()
			if r := results[i]; len(r.Problems) > 0 {
				log.Say("%s: %s; see %s", boot.Name, strings.Join(r.Problems, "; "), r.Last().Log)
			}
		})
	}
	all.Wait()
	return results, errors.Join(errs...)
}

func write(path string, emulator kernels.Emulator, results []kernels.Result, log *stages.Log) error {
	file, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("writing the Markdown tables: %w", err)
	}
	defer file.Close()
	if err := kernels.Markdown(file, emulator, results, time.Now()); err != nil {
		return err
	}
	if _, err := io.WriteString(file, "\nThe stages of that run, failed attempts and downloads included:\n\n"); err != nil {
		return fmt.Errorf("writing the Markdown tables: %w", err)
	}
	if err := log.Markdown(file); err != nil {
		return err
	}
	return file.Close()
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}
