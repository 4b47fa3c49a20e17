// Command performance runs the benchmarks in rounds, so that every way meets the same
// noise, and writes docs/performance.md. As root, from within e2e/.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"github.com/kernel-gossip/kernel-gossip/e2e/performance"
)

func main() {
	rounds := flag.Int("rounds", 5, "how often each benchmark is run")
	benchtime := flag.String("benchtime", "300ms", "how long each run of a benchmark lasts, or how many operations it is (100000x)")
	out := flag.String("markdown", "../docs/performance.md", "where to write the document")
	from := flag.String("from", "", "make the document of what an earlier run on this machine printed, and run nothing")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *rounds, *benchtime, *out, *from); err != nil {
		fmt.Fprintln(os.Stderr, "performance:", err)
		stop()
		os.Exit(1) //nolint:gocritic // stop has been called
	}
}

func run(ctx context.Context, rounds int, benchtime, out, from string) error {
	if from != "" {
		return again(from, benchtime, out)
	}
	if os.Geteuid() != 0 {
		return errors.New("benchmarks attach BPF programs and make cgroups: run as root")
	}
	dir, err := os.MkdirTemp("", "kernel-gossip-performance-")
	if err != nil {
		return fmt.Errorf("making a directory: %w", err)
	}
	defer os.RemoveAll(dir)
	binary := filepath.Join(dir, "bpf.test")
	build := exec.CommandContext(ctx, "go", "test", "-c", "-o", binary, "./bpf")
	build.Dir, build.Stderr = "..", os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("building the benchmarks: %w", err)
	}
	var runs []performance.Run
	for i := range rounds {
		var printed bytes.Buffer
		// Perf tracepoints are found in tracefs, which need not be mounted here.
		cmd := exec.CommandContext(ctx, "sh", "-c", `[ -d /sys/kernel/tracing/events ] || mount -t tracefs tracefs /sys/kernel/tracing; exec "$@"`,
			"sh", binary, "-test.run=^$", "-test.bench=^Benchmark(Syscall|Switch)$", "-test.benchtime="+benchtime)
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
		cmd.Stdout, cmd.Stderr = &printed, os.Stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("round %d: %w\n%s", i+1, err, printed.String())
		}
		fmt.Print(printed.String())
		r, err := performance.Parse(&printed)
		if err != nil {
			return fmt.Errorf("round %d: %w", i+1, err)
		}
		runs = append(runs, r)
	}
	return write(out, runs, benchtime)
}

// again makes the document of output that was kept; each round begins with goos.
func again(from, benchtime, out string) error {
	printed, err := os.ReadFile(from)
	if err != nil {
		return fmt.Errorf("reading an earlier run: %w", err)
	}
	var runs []performance.Run
	for i, round := range strings.Split(string(printed), "goos: ")[1:] {
		r, err := performance.Parse(strings.NewReader(round))
		if err != nil {
			return fmt.Errorf("round %d: %w", i+1, err)
		}
		runs = append(runs, r)
	}
	return write(out, runs, benchtime)
}

func write(out string, runs []performance.Run, benchtime string) error {
	doc := document(runs, benchtime)
	before, err := os.ReadFile(out)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("reading what other commands wrote into the document: %w", err)
	}
	for _, heading := range performance.Sections() {
		if section := performance.Section(string(before), heading); section != "" {
			doc += "\n" + strings.TrimSpace(section) + "\n"
		}
	}
	if err := os.WriteFile(out, []byte(doc), 0o644); err != nil {
		return fmt.Errorf("writing the document: %w", err)
	}
	return nil
}

func document(runs []performance.Run, benchtime string) string {
	syscalls := []performance.Way{
		{Attached: "empty", Words: "a program that does nothing: the floor"},
		{Attached: "ours", Words: "**ours**", Floor: "empty"},
		{Attached: "usual", Words: "per-CPU hash by cgroup and number", Floor: "empty"},
		{Attached: "tracepoint-empty", Words: "a perf tracepoint's floor"},
		{Attached: "bpftrace", Words: "bpftrace's `count()`", Floor: "tracepoint-empty"},
		{Attached: "bcc", Words: "bcc's shared hash", Floor: "tracepoint-empty"},
	}
	threads := max(2, runtime.NumCPU())
	var b strings.Builder
	fmt.Fprintf(&b, `# Performance

Written by `+"`make bench`"+`: %d rounds of %s each, on %s. Run it on your machine, and compare only figures
of one run.

"adds" is the median, over the rounds, of the CPU time that one operation takes more than with nothing attached, as
the kernel charges it to the cgroup; "from – to" are the least and the most of the rounds. Where they are far apart
the machine was busy with something else; where they reach below nothing in more than a quarter of the rounds, there
is no ratio. "times its floor" is the cost in those of a program that does nothing on the same hook, "ours to it" our
cost as a share of the row's. The rivals are written anew from their published design, without what is
not counting, which favours them: [rivals.bpf.c](../bpf/internal/rivals/rivals.bpf.c).

The goals are: a system call at most 1.3 times the floor and half of the usual way or less; a switch at most 1.5 times
the floor and half of the hash by thread ID or less. Read below whether they are met. What a look-up of the cgroup in a hash
takes was most of each program here, so none does it in the usual case: a cgroup has an index into an array, and each CPU
remembers the last it found by the serial number of the cgroup's state ([index.h](../bpf/headers/index.h)). Prototypes of each, side by side on Linux 6.18,
by the kernel's BPF statistics and with their two readings of the clock in each figure, the medians of eight turns: a system call, nothing to
do 64 ns, a per-CPU hash 128, storage that hangs on the thread 110, remembered by cgroup id 95, by serial number 83. A switch of
the run queue: 72, and 194 by the hash, 139 so. A charge of demand for a container with a limit: 70, and 230 by the hash
and the clock, 145 with neither clock nor division in the usual case, 116 without the hash as well; where the pod has a limit too 75, 246, 207 and 126.
Storage that hangs on the cgroup itself (BPF_MAP_TYPE_CGRP_STORAGE, kernel 6.2) is not used: the verifier trusts
the pointer to a task's cgroup of v2's hierarchy alone (kernel/bpf/verifier.c, css_set.dfl_cgrp) and not that of the cpu
controller on v1; user space reads it by a descriptor of each cgroup, in place of one call for many; and what a
cgroup counted since it was last read would go with it.

## A system call
`, len(runs), benchtime, performance.Machine())
	for _, n := range []int{1, threads} {
		for _, crowd := range []int{1, 500} {
			fmt.Fprintf(&b, "\n### %s, %s\n\n", count(n, "thread"), count(crowd, "cgroup"))
			b.WriteString(performance.Table(runs, fmt.Sprintf("BenchmarkSyscall/threads=%d/cgroups=%d/attached=", n, crowd), syscalls))
		}
	}
	b.WriteString(`
## A context switch

Two threads wake each other on one CPU, in a container with a limit that they do not reach. A switch costs much more than
the programs on it, and not the same each time: what the programs add is lost in that. So this is the kernel's own account
of each program's run time (BPF statistics), over all switches of the machine: the programs of a hook take "ns a run", and
for each switch they run so many times. The statistics read the clock before and after each run. That is in all figures, is
most of what a program that does nothing seems to take, and is subtracted nowhere.

`)
	b.WriteString(performance.Programs(runs, "BenchmarkSwitch/attached=", []performance.Way{
		{Attached: "empty", Words: "programs that do nothing: the floor"},
		{Attached: "ours", Words: "**ours**", Floor: "empty"},
		{Attached: "ours-5.10", Words: "ours as on kernels before 5.13", Floor: "empty"},
		{Attached: "runqlat", Words: "bcc's runqlat: a hash by thread ID", Floor: "empty"},
	}, []performance.Hooks{
		{Words: "`sched_switch`", Names: []string{"sched_switch"}},
		{Words: "`sched_wakeup`, `_new`", Names: []string{"sched_wakeup", "sched_wakeup_new"}},
		{Words: "run queue: both", Names: []string{"sched_switch", "sched_wakeup", "sched_wakeup_new", "sched_process_free"}},
		{Words: "demand: `sched_stat_runtime`", Names: []string{"sched_stat_runtime"}},
	}))
	b.WriteString("\nAll of ours, beside one that times the run queue alone:\n\n")
	b.WriteString(performance.Programs(runs, "BenchmarkSwitch/attached=", []performance.Way{
		{Attached: "empty", Words: "programs that do nothing: the floor"},
		{Attached: "ours", Words: "**ours: run queue and demand**", Floor: "empty"},
		{Attached: "runqlat", Words: "bcc's runqlat: a hash by thread ID"},
	}, []performance.Hooks{
		{Words: "all", Names: []string{"sched_switch", "sched_wakeup", "sched_wakeup_new", "sched_stat_runtime"}},
	}))
	return b.String()
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
