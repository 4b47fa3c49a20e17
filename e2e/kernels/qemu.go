package kernels

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// Runner boots kernels, one after the other.
type Runner struct {
	Cache     *Cache
	Initramfs string        // path
	Logs      string        // directory for one console log per attempt
	Run       string        // which tests: go test's -run
	UserSpace time.Duration // a guest that is not in user space by then hangs
	Timeout   time.Duration // of one attempt
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
var attempts = []string{"multi", "single", "single"}

// Do boots one kernel and runs the tests in it, again after a crash or a hang of the
// emulator. An error means that nothing could be run; what the tests and the kernel
// did is in the result.
func (r *Runner) Do(ctx context.Context, boot Boot) (Result, error) {
	image, p, err := r.Cache.Kernel(ctx, boot.Kernel)
	if err != nil {
		return Result{}, fmt.Errorf("fetching kernel %s: %w", boot.Kernel, err)
	}
	result := Result{Boot: boot, Package: p}
	for n, threads := range attempts {
		attempt, err := r.attempt(ctx, boot, image, threads, n+1)
		if err != nil {
			return result, fmt.Errorf("booting %s: %w", boot.Name, err)
		}
		result.Attempts = append(result.Attempts, attempt)
		if attempt.Fault == "" {
			break
		}
		_, _ = fmt.Fprintf(r.Progress, "%s: attempt %d with %s-threaded TCG: %s (%s)\n", boot.Name, n+1, threads, attempt.Fault, attempt.Log)
	}
	result.Problems = problems(result)
	return result, nil
}

func (r *Runner) attempt(ctx context.Context, boot Boot, image, threads string, n int) (Attempt, error) {
	a := Attempt{Threads: threads, Log: filepath.Join(r.Logs, fmt.Sprintf("%s-%d.log", boot.Name, n))}
	log, err := os.Create(a.Log)
	if err != nil {
		return a, fmt.Errorf("making the console's log: %w", err)
	}
	defer log.Close()

	hang := errors.New("hung before user space")
	ctx, cancel := context.WithTimeoutCause(ctx, r.Timeout, fmt.Errorf("hung: no end after %s", r.Timeout))
	defer cancel()
	ctx, abort := context.WithCancelCause(ctx)
	defer abort(nil)
	userSpace := time.AfterFunc(r.UserSpace, func() { abort(hang) })
	defer userSpace.Stop()

	// The guest's own limit comes first, so that a stuck test tells its stacks.
	line := fmt.Sprintf("console=ttyS0 quiet oops=panic panic=-1 kg.cgroup=%s kg.timeout=%s kg.run=%s", boot.Cgroup(), r.Timeout*4/5, r.Run)
	if boot.NoBTF {
		line += " kg.btf=hidden"
	}
	qemu := exec.CommandContext(ctx, "qemu-system-x86_64",
		"-accel", "tcg,thread="+threads, "-cpu", "max", "-smp", "2", "-m", "1024",
		"-nodefaults", "-nographic", "-no-reboot", "-serial", "stdio",
		"-kernel", image, "-initrd", r.Initramfs, "-append", line)
	qemu.Stderr = log
	qemu.WaitDelay = 5 * time.Second
	console, err := qemu.StdoutPipe()
	if err != nil {
		return a, fmt.Errorf("connecting the console: %w", err)
	}
	began := time.Now()
	if err := qemu.Start(); err != nil {
		return a, fmt.Errorf("starting the emulator: %w (Debian's package qemu-system-x86 has it)", err)
	}
	scanner := bufio.NewScanner(console)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		text := scanner.Text()
		_, _ = fmt.Fprintln(log, text)
		if a.Console.Line(text) {
			_, _ = fmt.Fprintf(r.Progress, "%7.1fs %s: %s\n", time.Since(began).Seconds(), boot.Name, text)
		}
		if a.Console.Release != "" {
			userSpace.Stop()
		}
	}
	err = errors.Join(scanner.Err(), qemu.Wait())
	a.Took = time.Since(began)
	cause := context.Cause(ctx)
	switch {
	case errors.Is(cause, context.Canceled):
		return a, cause
	case a.Console.Crash != "":
		a.Fault = "kernel crashed: " + a.Console.Crash
	case a.Console.Exited:
		// Whether the emulator then took its time to end does not matter.
	case cause != nil:
		a.Fault = cause.Error()
	case err != nil:
		a.Fault = fmt.Sprintf("emulator ended: %v", err)
	default:
		a.Fault = "guest ended without a result"
	}
	return a, nil
}
