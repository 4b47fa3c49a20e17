package kernels

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Runner boots kernels. It may boot several at once; Progress is written to by each.
type Runner struct {
	Cache     *Cache
	Initramfs Initramfs     // but for its modules, which differ with the kernel
	Modules   []string      // names of those that are loaded before the tests
	Logs      string        // directory for one console log per attempt
	Run       string        // which tests: go test's -run
	Silence   time.Duration // a guest that says nothing for so long hangs
	Timeout   time.Duration // of one attempt
	Single    bool          // emulate all CPUs on one thread, from the first attempt on
	Progress  io.Writer
}

// Attempt is one start of the emulator.
type Attempt struct {
	Threads string // of the emulator: multi or single
	Log     string // path of the console's log
	Took    time.Duration
	Console Console
	Fault   string // what went wrong with the emulator or the kernel; "" if the tests ran to their end
}

// Result is what came of a boot; the last attempt is the one that counts.
type Result struct {
	Boot     Boot
	Package  Package
	Attempts []Attempt
	Problems []string // why the boot is not a success
}

// Last is the attempt that counts.
func (r Result) Last() Attempt { return r.Attempts[len(r.Attempts)-1] }

// attempts are the emulator's thread modes, in the order tried.
func (r *Runner) attempts() []string {
	if r.Single {
		return []string{"single", "single", "single"}
	}
	return []string{"multi", "single", "single"}
}

// Do boots one kernel and runs the tests in it, again after a crash or a hang of the
// emulator. An error means that nothing could be run; what the tests and the kernel
// did is in the result.
func (r *Runner) Do(ctx context.Context, boot Boot) (Result, error) {
	image, p, err := r.Cache.Kernel(ctx, boot.Kernel)
	if err != nil {
		return Result{}, fmt.Errorf("fetching kernel %s: %w", boot.Kernel, err)
	}
	content := r.Initramfs
	if content.Modules, err = r.Cache.Modules(ctx, boot.Kernel, r.Modules...); err != nil {
		return Result{}, fmt.Errorf("fetching modules of kernel %s: %w", boot.Kernel, err)
	}
	initramfs := filepath.Join(r.Logs, fmt.Sprintf("initramfs.%d.%s", os.Getpid(), boot.Name))
	defer os.Remove(initramfs)
	if err := content.Write(initramfs); err != nil {
		return Result{}, err
	}
	result := Result{Boot: boot, Package: p}
	for n, threads := range r.attempts() {
		attempt, err := r.attempt(ctx, boot, image, initramfs, threads, n+1)
		if err != nil {
			return result, fmt.Errorf("booting %s: %w", boot.Name, err)
		}
		result.Attempts = append(result.Attempts, attempt)
		if attempt.Fault == "" {
			break
		}
		_, _ = fmt.Fprintf(r.Progress, "%s: attempt %d with %s-threaded TCG: %s (%s)\n", boot.Name, n+1, threads, attempt.Fault, attempt.Log)
	}
	result.Problems = problems(result, r.Run == "")
	return result, nil
}

func (r *Runner) attempt(ctx context.Context, boot Boot, image, initramfs, threads string, n int) (Attempt, error) {
	a := Attempt{Threads: threads, Log: filepath.Join(r.Logs, fmt.Sprintf("%s-%d.log", boot.Name, n))}
	log, err := os.Create(a.Log)
	if err != nil {
		return a, fmt.Errorf("making the console's log: %w", err)
	}
	defer log.Close()

	// The guest's own limit comes first, so that a stuck test tells its stacks.
	line := fmt.Sprintf("kg.cgroup=%s kg.timeout=%s kg.run=%s", boot.Cgroup(), r.Timeout*4/5, r.Run)
	if boot.NoBTF {
		line += " kg.btf=hidden"
	}
	began := time.Now()
	machine, err := Machine{
		Kernel: image, Initrd: initramfs, CommandLine: line, MemoryMiB: 1024, Threads: threads,
		Monitor: filepath.Join(r.Logs, fmt.Sprintf("monitor.%d.%s", os.Getpid(), boot.Name)),
		Silence: r.Silence, Timeout: r.Timeout, Log: log,
		Line: func(text string) {
			if a.Console.Line(text) {
				_, _ = fmt.Fprintf(r.Progress, "%7.1fs %s: %s\n", time.Since(began).Seconds(), boot.Name, Visible(text))
			}
		},
	}.Start(ctx)
	if err != nil {
		return a, err
	}
	err = machine.Wait()
	a.Took = time.Since(began)
	_, hung := errors.AsType[Hang](err)
	switch {
	case ctx.Err() != nil && !hung:
		return a, context.Cause(ctx)
	case a.Console.Crash != "" && !hung:
		a.Fault = "kernel crashed: " + a.Console.Crash
	case a.Console.Exited:
		// Whether the emulator then took its time to end does not matter.
	case err != nil:
		a.Fault = err.Error()
	default:
		a.Fault = "guest ended without a result"
	}
	return a, nil
}

// Visible drops the escape sequences that a firmware writes.
func Visible(s string) string {
	if n := strings.LastIndexByte(s, 0x1b); n >= 0 {
		if _, mark, ok := strings.Cut(s[n:], "KG-"); ok {
			return "KG-" + mark
		}
	}
	return s
}
