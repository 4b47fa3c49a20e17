package scenario

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// startsAtOnce is how many pods start at once when starts are measured.
const startsAtOnce = 20

// Starts measures what following births costs pods that start: the time until they run,
// and the CPU time, with births followed and without, in rounds that change the order. In
// each, alone pods one at a time, and startsAtOnce at once, twice. It judges nothing: a
// ratio is a matter of the machine.
func Starts(rounds, alone int) Scenario {
	return Scenario{Name: "starts of pods with births followed and without", Run: func(ctx context.Context, e *Env, seen *Seen) error {
		return measureStarts(ctx, e, seen, rounds, alone)
	}}
}

// way is a way to start pods: so many at once, so many times in a round.
type way struct {
	name     string
	n, size  int
	rounds   []map[bool]started // by whether births were followed
	programs time.Duration      // run time of the birth probe's programs for a pod, in the first round
}

// started is how long the pods of one round took until they ran, and what CPU time went
// into their life and end.
type started struct {
	took []time.Duration
	spent
}

func measureStarts(ctx context.Context, e *Env, seen *Seen, rounds, alone int) error {
	ways := []way{{name: "alone", n: alone, size: 1}, {name: fmt.Sprintf("%d at once", startsAtOnce), n: 2, size: startsAtOnce}}
	if _, err := e.started(ctx, "warm", 1); err != nil {
		return err
	}
	for round := range rounds {
		for w := range ways {
			ways[w].rounds = append(ways[w].rounds, map[bool]started{})
		}
		for _, follow := range []bool{round%2 == 0, round%2 != 0} {
			if err := e.follow(ctx, follow); err != nil {
				return err
			}
			for w := range ways {
				one, err := e.startWay(ctx, fmt.Sprintf("start-%d-%t-%d", round, follow, w), ways[w].n, ways[w].size)
				if err != nil {
					return err
				}
				ways[w].rounds[round][follow] = one
				if !follow || round > 0 {
					continue
				}
				programs, err := e.programs(ctx, fmt.Sprintf("account-%d-%d", round, w), ways[w].size)
				if err != nil {
					return err
				}
				ways[w].programs = programs
			}
		}
	}
	for _, w := range ways {
		w.tell(seen)
	}
	if load, err := os.ReadFile("/proc/loadavg"); err == nil {
		seen.Add("load of this machine at the end: %s", strings.Join(strings.Fields(string(load))[:3], " "))
	}
	return e.follow(ctx, true)
}

// startWay starts n times size pods.
func (e *Env) startWay(ctx context.Context, name string, n, size int) (started, error) {
	var s started
	before, err := e.spent(ctx)
	if err != nil {
		return s, err
	}
	for i := range n {
		took, err := e.started(ctx, fmt.Sprintf("%s-%d", name, i), size)
		if err != nil {
			return s, err
		}
		s.took = append(s.took, took...)
	}
	after, err := e.spent(ctx)
	s.spent = after.since(before, len(s.took))
	return s, err
}

func (w way) tell(seen *Seen) {
	all, more := map[bool][]time.Duration{}, map[string][]float64{}
	spent := map[bool]map[string][]time.Duration{true: {}, false: {}}
	for _, r := range w.rounds {
		for follow, s := range r {
			all[follow] = append(all[follow], s.took...)
			for who, d := range s.spent {
				spent[follow][who] = append(spent[follow][who], d)
			}
		}
		with, without := r[true], r[false]
		more["time"] = append(more["time"], percent(quantile(with.took, 0.5), quantile(without.took, 0.5)))
		more["CPU"] = append(more["CPU"], percent(with.spent[node], without.spent[node]))
	}
	with, without := all[true], all[false]
	seen.Add("%s: %d starts each, in the middle %s with births followed, %s without; in the middle of the rounds %+.1f %% (%s); quartiles %s and %s, %s and %s",
		w.name, len(with), ms(quantile(with, 0.5)), ms(quantile(without, 0.5)), quantile(more["time"], 0.5), signed(more["time"]),
		ms(quantile(with, 0.25)), ms(quantile(with, 0.75)), ms(quantile(without, 0.25)), ms(quantile(without, 0.75)))
	seen.Add("%s: CPU time of node and control plane for a pod's life, %s with, %s without; in the middle of the rounds %+.1f %% (%s)",
		w.name, ms(quantile(spent[true][node], 0.5)), ms(quantile(spent[false][node], 0.5)), quantile(more["CPU"], 0.5), signed(more["CPU"]))
	whole := quantile(spent[false][node], 0.5)
	var parts []string
	part := func(who string, d time.Duration) {
		parts = append(parts, fmt.Sprintf("%s %.1f ms (%.1f %%)", who, d.Seconds()*1000, 100*float64(d)/float64(whole)))
	}
	for _, who := range []string{exporter, operator} {
		part(who, quantile(spent[true][who], 0.5)-quantile(spent[false][who], 0.5))
	}
	part("the birth programs in the kernel", w.programs)
	seen.Add("%s: of it more for following births: %s", w.name, strings.Join(parts, ", "))
	parts = nil
	for who := range spent[true] {
		if who != node && who != exporter && who != operator {
			part(who, quantile(spent[true][who], 0.5)-quantile(spent[false][who], 0.5))
		}
	}
	slices.Sort(parts)
	seen.Add("%s: more by the processes of the control plane and the node: %s", w.name, strings.Join(parts, ", "))
}

func percent(with, without time.Duration) float64 { return 100 * (float64(with)/float64(without) - 1) }

func signed(all []float64) string {
	var out []string
	for _, x := range all {
		out = append(out, fmt.Sprintf("%+.1f", x))
	}
	return strings.Join(out, ", ")
}

// quantile is by nearest rank, in the middle the mean of the two where there are two.
func quantile[T time.Duration | float64](all []T, q float64) T {
	sorted := slices.Sorted(slices.Values(all))
	at := q * float64(len(sorted)-1)
	low, high := sorted[int(math.Floor(at))], sorted[int(math.Ceil(at))]
	return (low + high) / 2
}

// Who spends CPU time.
const (
	node     = "node"
	exporter = "the exporter"
	operator = "the operator"
)

// spent is CPU time by who spent it.
type spent map[string]time.Duration

func (s spent) since(before spent, pods int) spent {
	out := spent{}
	for who, d := range s {
		out[who] = (d - before[who]) / time.Duration(pods)
	}
	return out
}

// spent reads the accounts of the cgroups. The cluster's, the control plane included, is
// the one above this process's own.
func (e *Env) spent(ctx context.Context) (spent, error) {
	dir, file, err := clusterGroup()
	if err != nil {
		return nil, err
	}
	groups := map[string]string{node: dir}
	for who, at := range map[string][2]string{exporter: {Nodes, "kernel-gossip-exporter"}, operator: {System, "kernel-gossip-operator"}} {
		pods, err := e.Set.CoreV1().Pods(at[0]).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=" + at[1], FieldSelector: "status.phase=Running"})
		if err != nil {
			return nil, fmt.Errorf("finding %s: %w", who, err)
		}
		for _, p := range pods.Items {
			if err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
				if err == nil && d.IsDir() && d.Name() == "pod"+string(p.UID) {
					groups[who] = path
					return fs.SkipAll
				}
				if errors.Is(err, fs.ErrNotExist) { // it is gone meanwhile
					return nil
				}
				return err
			}); err != nil {
				return nil, fmt.Errorf("finding the cgroup of %s: %w", who, err)
			}
		}
		if groups[who] == "" {
			return nil, fmt.Errorf("%s has no cgroup below %s", who, dir)
		}
	}
	s := spent{}
	for who, group := range groups {
		raw, err := os.ReadFile(filepath.Join(group, file))
		if err != nil {
			return nil, fmt.Errorf("reading the CPU time of %s: %w", who, err)
		}
		unit := time.Nanosecond
		text := string(raw)
		if file == "cpu.stat" {
			text, unit = strings.TrimPrefix(text, "usage_usec "), time.Microsecond
		}
		n, err := strconv.ParseInt(strings.Fields(text)[0], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("reading the CPU time of %s: %w", who, err)
		}
		s[who] = time.Duration(n) * unit
	}
	return s, s.processes()
}

// processes adds those of this process's cgroup, which is the control plane's and the
// node's, by name.
func (s spent) processes() error {
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return err
	}
	mine, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return err
	}
	for _, file := range files {
		theirs, err := os.ReadFile(filepath.Join(filepath.Dir(file), "cgroup"))
		if err != nil || !bytes.Equal(mine, theirs) {
			continue
		}
		raw, err := os.ReadFile(file)
		if err != nil { // it has ended
			continue
		}
		// pid (name) state …: the 14th and 15th field are user and system time in ticks of 10 ms.
		name, rest, ok := strings.Cut(string(raw), ") ")
		fields := strings.Fields(rest)
		if !ok || len(fields) < 13 {
			return fmt.Errorf("%s has %q", file, raw)
		}
		_, name, _ = strings.Cut(name, "(")
		for _, field := range fields[11:13] {
			ticks, err := strconv.ParseInt(field, 10, 64)
			if err != nil {
				return fmt.Errorf("%s: %w", file, err)
			}
			s[name] += time.Duration(ticks) * 10 * time.Millisecond
		}
	}
	return nil
}

// clusterGroup is the directory of the cluster's cgroup, and the file in it that has its CPU time.
func clusterGroup() (dir, file string, err error) {
	raw, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", "", err
	}
	for line := range strings.Lines(string(raw)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 || path.Dir(f[2]) == "/" {
			continue
		}
		if f[1] == "" {
			dir, file = filepath.Join("/sys/fs/cgroup", path.Dir(f[2])), "cpu.stat"
		} else if slices.Contains(strings.Split(f[1], ","), "cpuacct") {
			return filepath.Join("/sys/fs/cgroup/cpuacct", path.Dir(f[2])), "cpuacct.usage", nil
		}
	}
	if dir == "" {
		return "", "", fmt.Errorf("this process is not in a cgroup of the cluster's: %q", raw)
	}
	return dir, file, nil
}

// programs is how long the birth probe's programs run for each of so many pods that start
// at once, by the kernel's account, which itself costs something and is kept for no longer.
func (e *Env) programs(ctx context.Context, name string, n int) (time.Duration, error) {
	stats, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	if err != nil {
		return 0, fmt.Errorf("having the kernel account for BPF programs: %w", err)
	}
	defer stats.Close()
	before, err := e.programTime(ctx)
	if err != nil {
		return 0, err
	}
	if _, err := e.started(ctx, name, n); err != nil {
		return 0, err
	}
	after, err := e.programTime(ctx)
	return (after - before) / time.Duration(n), err
}

// programTime is what the exporter tells next of its birth probe's programs: it looks now
// and then only, and they always run a little.
func (e *Env) programTime(ctx context.Context) (time.Duration, error) {
	first, total := -1.0, 0.0
	_, err := e.until(ctx, 2*time.Minute, "the run time of the birth probe's programs", func() error {
		s, err := e.scrape(ctx)
		if err != nil {
			return err
		}
		total = 0
		for _, m := range s.families["kernel_gossip_exporter_bpf_run_seconds_total"].GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == "probe" && l.GetValue() == "birth" {
					total += number(m)
				}
			}
		}
		if first < 0 {
			first = total
		}
		if total == first {
			return errors.New("it is as it was")
		}
		return nil
	})
	return time.Duration(total * float64(time.Second)), err
}

func ms(d time.Duration) string { return d.Round(time.Millisecond).String() }

// started starts so many pods at once, and tells how long after it was asked for each had
// its program write its first line, by the runtime's clock. They are gone afterwards.
func (e *Env) started(ctx context.Context, name string, n int) ([]time.Duration, error) {
	pods := make([]*corev1.Pod, n)
	asked := make([]time.Time, n)
	for i := range pods {
		p := e.place(pod(strings.ReplaceAll(fmt.Sprintf("%s-%d", name, i), "_", "-"), load("app", "500m", "-h")))
		p.Spec.RestartPolicy = corev1.RestartPolicyNever
		asked[i] = time.Now()
		if err := e.API.Create(ctx, p); err != nil {
			return nil, fmt.Errorf("making pod %s: %w", p.Name, err)
		}
		pods[i] = p
	}
	took := make([]time.Duration, n)
	for i, p := range pods {
		_, err := e.until(ctx, 3*time.Minute, "the first line of "+p.Name, func() error {
			raw, err := e.Set.CoreV1().Pods(p.Namespace).GetLogs(p.Name, &corev1.PodLogOptions{Container: "app", Timestamps: true}).DoRaw(ctx)
			if err != nil {
				return err
			}
			stamp, _, ok := strings.Cut(string(raw), " ")
			if !ok {
				return errors.New("there is none")
			}
			at, err := time.Parse(time.RFC3339Nano, stamp)
			took[i] = at.Sub(asked[i])
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return took, e.endAll(ctx, pods...)
}

// follow has the exporter follow births, or not, by its flag.
func (e *Env) follow(ctx context.Context, on bool) error {
	const off = "--no-collector.birth"
	set, err := e.Set.AppsV1().DaemonSets(Nodes).Get(ctx, "kernel-gossip-exporter", metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("finding the exporter: %w", err)
	}
	args := set.Spec.Template.Spec.Containers[0].Args
	if slices.Contains(args, off) != on {
		return nil
	}
	if args = slices.DeleteFunc(args, func(s string) bool { return s == off }); !on {
		args = append(args, off)
	}
	patch, err := json.Marshal([]map[string]any{{"op": "replace", "path": "/spec/template/spec/containers/0/args", "value": args}})
	if err != nil {
		return err
	}
	if _, err := e.Kubectl(ctx, "", "-n", Nodes, "patch", "daemonset", set.Name, "--type=json", "-p", string(patch)); err != nil {
		return err
	}
	if _, err := e.Kubectl(ctx, "", "-n", Nodes, "rollout", "status", "daemonset/"+set.Name, "--timeout=4m"); err != nil {
		return err
	}
	return e.WaitExporter(ctx)
}
