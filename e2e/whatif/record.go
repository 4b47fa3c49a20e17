package whatif

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kernel-gossip/kernel-gossip/bpf"
)

// PeriodLength is that of a bandwidth period, as Kubernetes sets it.
const PeriodLength = 100 * ms

const length = PeriodLength

// Recorder runs shapes in a cgroup of its own.
type Recorder struct {
	Tracer *bpf.Tracer
	Self   []string // command that runs a shape; see Child
	PerMS  int
	Log    *slog.Logger
}

// Run is one shape at one limit, as the probe and as cpu.stat saw it.
type Run struct {
	Shape              string
	Seed               uint64
	Limit              time.Duration // per period of 100 ms
	Periods, Throttled uint64        // cpu.stat, over the whole run
	Trace              []bpf.Period
}

// Record runs a shape for a while at each limit, in one cgroup whose limit is changed
// in place: so its period timer keeps its phase, to which each run of the shape is
// aligned. A burst that falls into one period or two decides whether it is throttled.
func (r *Recorder) Record(ctx context.Context, shape string, seed uint64, limits []time.Duration, run time.Duration) (_ []*Run, err error) {
	g, err := newGroup(limits[0])
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, g.remove()) }()
	defer r.Tracer.Forget(g.id)
	var out []*Run
	for _, limit := range limits {
		one, err := r.record(ctx, g, shape, seed, limit, run)
		if err != nil {
			return nil, err
		}
		out = append(out, one)
	}
	return out, nil
}

func (r *Recorder) record(ctx context.Context, g *group, shape string, seed uint64, limit, run time.Duration) (_ *Run, err error) {
	if err := g.limit(limit); err != nil {
		return nil, err
	}
	periods, throttled, err := g.stat()
	if err != nil {
		return nil, err
	}
	if _, err := r.Tracer.Demand(); err != nil { // what the last run left
		return nil, err
	}
	args := slices.Concat(r.Self[1:], []string{shape, strconv.FormatUint(seed, 10), strconv.Itoa(r.PerMS), run.String()})
	cmd := exec.CommandContext(ctx, r.Self[0], args...)
	cmd.Env = append(os.Environ(), "GOGC=off", "GOMAXPROCS=8")
	cmd.Stderr = os.Stderr
	start, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("preparing a shape: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting a shape: %w", err)
	}
	if err := os.WriteFile(filepath.Join(g.dir, "cgroup.procs"), []byte(strconv.Itoa(cmd.Process.Pid)), 0o644); err != nil {
		return nil, errors.Join(fmt.Errorf("moving a shape to its cgroup: %w", err), cmd.Process.Kill(), cmd.Wait())
	}
	if err := start.Close(); err != nil {
		return nil, fmt.Errorf("starting a shape: %w", err)
	}
	out := &Run{Shape: shape, Seed: seed, Limit: limit}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for running := true; running; {
		select {
		case err := <-ended:
			if err != nil {
				return nil, fmt.Errorf("running the shape %s: %w", shape, err)
			}
			time.Sleep(6 * length) // the last period closes
			running = false
		case <-time.After(time.Second):
		}
		all, err := r.Tracer.Demand()
		if err != nil {
			return nil, err
		}
		out.Trace = append(out.Trace, all[g.id]...)
	}
	out.Periods, out.Throttled, err = g.stat()
	out.Periods, out.Throttled = out.Periods-periods, out.Throttled-throttled
	out.Trace = slices.DeleteFunc(out.Trace, func(p bpf.Period) bool { return p.Quota != limit })
	return out, err
}

// Child is the process that runs a shape: when its input ends it is in its cgroup.
func Child(ctx context.Context, args []string) error {
	if len(args) != 4 {
		return fmt.Errorf("want shape, seed, iterations per millisecond and length, got %q", args)
	}
	shape, err := ByName(args[0])
	if err != nil {
		return err
	}
	seed, err1 := strconv.ParseUint(args[1], 10, 64)
	perMS, err2 := strconv.Atoi(args[2])
	run, err3 := time.ParseDuration(args[3])
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	shape.Run(ctx, seed, perMS, run)
	return nil
}

type group struct {
	dir string
	id  uint64
	v2  bool
}

func (g *group) write(file, value string) error {
	if err := os.WriteFile(filepath.Join(g.dir, file), []byte(value), 0o644); err != nil {
		return fmt.Errorf("limiting a cgroup: %w", err)
	}
	return nil
}

func (g *group) limit(limit time.Duration) error {
	if g.v2 {
		return g.write("cpu.max", fmt.Sprint(limit.Microseconds(), " ", length.Microseconds()))
	}
	return g.write("cpu.cfs_quota_us", strconv.FormatInt(limit.Microseconds(), 10))
}

// newGroup makes a cgroup of the cpu controller, v1 or v2, with a limit.
func newGroup(limit time.Duration) (*group, error) {
	root, v2, err := cpuRoot()
	if err != nil {
		return nil, err
	}
	g := &group{v2: v2, dir: filepath.Join(root, fmt.Sprintf("kernel-gossip-whatif-%d", os.Getpid()))}
	if v2 {
		if err := os.WriteFile(filepath.Join(root, "cgroup.subtree_control"), []byte("+cpu"), 0o644); err != nil {
			return nil, fmt.Errorf("turning the cpu controller on: %w", err)
		}
	}
	if err := os.Mkdir(g.dir, 0o755); err != nil {
		return nil, fmt.Errorf("making a cgroup: %w", err)
	}
	// The largest weight there is: what else runs on the machine hardly delays it.
	weight, value := "cpu.shares", "262144"
	if v2 {
		weight, value = "cpu.weight", "10000"
	}
	if err := errors.Join(g.write(weight, value), g.limit(limit)); err != nil {
		return nil, errors.Join(err, g.remove())
	}
	var st unix.Stat_t
	if err := unix.Stat(g.dir, &st); err != nil {
		return nil, errors.Join(fmt.Errorf("identifying a cgroup: %w", err), g.remove())
	}
	g.id = st.Ino
	return g, nil
}

func cpuRoot() (root string, v2 bool, err error) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return "", false, fmt.Errorf("finding the cpu controller: %w", err)
	}
	var unified string
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line)
		switch {
		case len(f) < 4:
		case f[2] == "cgroup" && slices.Contains(strings.Split(f[3], ","), "cpu"):
			return f[1], false, nil
		case f[2] == "cgroup2":
			unified = f[1]
		}
	}
	if unified == "" {
		return "", false, errors.New("no cgroup hierarchy with the cpu controller is mounted")
	}
	return unified, true, nil
}

func (g *group) remove() error {
	var err error
	for range 100 { // the last process may still be leaving
		if err = os.Remove(g.dir); err == nil {
			return nil
		}
		time.Sleep(20 * ms)
	}
	return fmt.Errorf("removing a cgroup: %w", err)
}

func (g *group) stat() (periods, throttled uint64, err error) {
	b, err := os.ReadFile(filepath.Join(g.dir, "cpu.stat"))
	if err != nil {
		return 0, 0, fmt.Errorf("reading a cgroup's figures: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		n, err := strconv.ParseUint(value, 10, 64)
		if err != nil {
			return 0, 0, fmt.Errorf("reading a cgroup's figures: %w", err)
		}
		switch name {
		case "nr_periods":
			periods = n
		case "nr_throttled":
			throttled = n
		}
	}
	return periods, throttled, nil
}

// Begin writes the head of a file of traces: the machine.
func Begin(w io.Writer, machine string) error {
	_, err := fmt.Fprintf(w, "# %s\n", machine)
	return err
}

// Write appends a run to a file of traces, a line each: shape, seed, limit in ms,
// nr_periods, nr_throttled, then for each period its number since the first,
// used and denied in µs, and a ! where it was throttled.
func (r *Run) Write(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %d %d %d %d", r.Shape, r.Seed, r.Limit.Milliseconds(), r.Periods, r.Throttled)
	for _, p := range r.Trace {
		slot := (p.Start - r.Trace[0].Start + p.Length/2) / p.Length
		fmt.Fprintf(&b, " %d:%d:%d", slot, p.Used.Microseconds(), p.Denied.Microseconds())
		if p.Throttled {
			b.WriteByte('!')
		}
	}
	b.WriteByte('\n')
	_, err := io.WriteString(w, b.String())
	return err
}

// Limits are those at which each shape runs, per period of 100 ms: each is at most 1.3
// times the one before, as far as what follows recommendations may end above the
// smallest that is enough.
func Limits() []time.Duration {
	return []time.Duration{20 * ms, 26 * ms, 33 * ms, 42 * ms, 54 * ms, 70 * ms, 91 * ms, 117 * ms, 150 * ms}
}
