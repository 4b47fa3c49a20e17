package kernels

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Runner boots kernels, one after the other.
type Runner struct {
	Cache     *Cache
	Initramfs string        // path
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

// Emulator is a version of QEMU.
type Emulator struct{ Major, Minor int }

// PatchesText tells whether several emulated CPUs may run while the kernel patches its
// own text, as each attached program makes it do. Before 8.1 QEMU could go on executing
// a breakpoint that was gone, and the guest crashed or hung in every third boot (fixed
// by its commit deba78709ae8, "accel/tcg: Always lock pages before translation").
func (e Emulator) PatchesText() bool { return e.Major > 8 || e.Major == 8 && e.Minor >= 1 }

func (e Emulator) String() string { return fmt.Sprintf("QEMU %d.%d", e.Major, e.Minor) }

// FindEmulator asks the installed QEMU for its version.
func FindEmulator(ctx context.Context) (Emulator, error) {
	out, err := exec.CommandContext(ctx, qemu, "--version").Output()
	if err != nil {
		return Emulator{}, fmt.Errorf("looking for the emulator: %w (Debian's package qemu-system-x86 has it)", err)
	}
	return parseEmulator(string(out))
}

const qemu = "qemu-system-x86_64"

func parseEmulator(said string) (Emulator, error) {
	var e Emulator
	_, version, _ := strings.Cut(said, "version ")
	if _, err := fmt.Sscanf(version, "%d.%d", &e.Major, &e.Minor); err != nil {
		first, _, _ := strings.Cut(said, "\n")
		return e, fmt.Errorf("reading the emulator's version out of %q: %w", first, err)
	}
	return e, nil
}

// Do boots one kernel and runs the tests in it, again after a crash or a hang of the
// emulator. An error means that nothing could be run; what the tests and the kernel
// did is in the result.
func (r *Runner) Do(ctx context.Context, boot Boot) (Result, error) {
	image, p, err := r.Cache.Kernel(ctx, boot.Kernel)
	if err != nil {
		return Result{}, fmt.Errorf("fetching kernel %s: %w", boot.Kernel, err)
	}
	result := Result{Boot: boot, Package: p}
	for n, threads := range r.attempts() {
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

	ctx, cancel := context.WithTimeoutCause(ctx, r.Timeout, fmt.Errorf("hung: no end after %s", r.Timeout))
	defer cancel()
	ctx, abort := context.WithCancelCause(ctx)
	defer abort(nil)
	socket := filepath.Join(r.Logs, fmt.Sprintf("monitor.%d", os.Getpid()))
	defer os.Remove(socket)
	silence := time.AfterFunc(r.Silence, func() {
		if err := askWhere(ctx, socket, log); err != nil {
			_, _ = fmt.Fprintln(log, "asking the emulator where the guest is:", err)
		}
		abort(fmt.Errorf("hung: silent for %s", r.Silence))
	})
	defer silence.Stop()

	// The guest's own limit comes first, so that a stuck test tells its stacks.
	line := fmt.Sprintf("console=ttyS0 loglevel=5 panic=-1 oops=panic unknown_nmi_panic softlockup_panic=1 softlockup_all_cpu_backtrace=1 kg.cgroup=%s kg.timeout=%s kg.run=%s", boot.Cgroup(), r.Timeout*4/5, r.Run)
	if boot.NoBTF {
		line += " kg.btf=hidden"
	}
	cmd := exec.CommandContext(ctx, qemu,
		"-accel", "tcg,thread="+threads, "-cpu", "max", "-smp", "2", "-m", "1024",
		"-nodefaults", "-nographic", "-no-reboot", "-serial", "stdio", "-monitor", "unix:"+socket+",server=on,wait=off",
		"-kernel", image, "-initrd", r.Initramfs, "-append", line)
	cmd.Stderr = log
	cmd.WaitDelay = 5 * time.Second
	console, err := cmd.StdoutPipe()
	if err != nil {
		return a, fmt.Errorf("connecting the console: %w", err)
	}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return a, fmt.Errorf("starting the emulator: %w", err)
	}
	scanner := bufio.NewScanner(console)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		silence.Reset(r.Silence)
		text := scanner.Text()
		_, _ = fmt.Fprintln(log, text)
		if a.Console.Line(text) {
			_, _ = fmt.Fprintf(r.Progress, "%7.1fs %s: %s\n", time.Since(began).Seconds(), boot.Name, visible(text))
		}
	}
	err = errors.Join(scanner.Err(), cmd.Wait())
	a.Took = time.Since(began)
	cause := context.Cause(ctx)
	switch {
	case errors.Is(cause, context.Canceled):
		return a, cause
	case a.Console.Crash != "" && cause == nil:
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

// askWhere writes to the log where a guest is that hangs: the registers of its CPUs,
// and, by a non-maskable interrupt that ends in a panic, the stack of one.
func askWhere(ctx context.Context, socket string, log io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return err
		}
	}
	if _, err := io.WriteString(conn, "info registers -a\nnmi\n"); err != nil {
		return err
	}
	// The monitor stays open: its answer ends with the deadline, or with the guest.
	if _, err := io.Copy(log, conn); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return nil
}

// visible drops the escape sequences that a firmware writes.
func visible(s string) string {
	if n := strings.LastIndexByte(s, 0x1b); n >= 0 {
		if _, mark, ok := strings.Cut(s[n:], "KG-"); ok {
			return "KG-" + mark
		}
	}
	return s
}
