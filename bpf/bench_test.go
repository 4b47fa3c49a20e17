package bpf

import (
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/kernel-gossip/kernel-gossip/bpf/internal/rivals"
)

// What the probes cost, and what the usual ways to the same figures do: compare within
// one run, the machine's noise is the same there. Names are for benchstat:
//
//	attached  none; empty, the hooks with programs that do nothing: the floor; ours, as
//	          this kernel lets it attach; and the rivals of package rivals
//	threads   of one cgroup, on as many CPUs as there are, all calling
//	cgroups   that the maps hold
//
// ns/op is wall time, cpu-ns/op the CPU time that the kernel charged to the cgroup,
// which other people's load disturbs less. Both are of one call of one thread. After that
// the same is done once more with the kernel's BPF statistics on: HOOK-ns/run is what the
// programs of one hook took on average, two readings of the clock included.

func BenchmarkSyscall(b *testing.B) {
	needRoot(b)
	const names = 17 // calls that a container makes, as the default of --syscalls.names and other
	for _, threads := range []int{1, max(2, runtime.NumCPU())} {
		for _, crowd := range []int{1, 500} {
			filled := func(program, inMap string) func(b *testing.B) []hooked {
				return func(b *testing.B) []hooked {
					coll, programs := attachRivals(b, program)
					fill(b, coll.Maps[inMap], crowd-1, names)
					return programs
				}
			}
			for _, c := range []struct {
				name   string
				attach func(b *testing.B) []hooked
			}{
				{"none", func(*testing.B) []hooked { return nil }},
				{"empty", func(b *testing.B) []hooked {
					return attachOurs(b, ProbeSyscalls, variant{programs: []string{syscallsProgSysEnterEmpty}})
				}},
				{"ours", func(b *testing.B) []hooked {
					coll, programs := attachBest(b, ProbeSyscalls)
					occupy(b, coll, crowd-1)
					return programs
				}},
				{"usual", filled(rivals.Usual, rivals.PerCPU)},
				{"tracepoint-empty", func(b *testing.B) []hooked {
					_, programs := attachRivals(b, rivals.TracepointEmpty)
					return programs
				}},
				{"bpftrace", filled(rivals.Bpftrace, rivals.PerCPU)},
				{"bcc", filled(rivals.BCC, rivals.Shared)},
			} {
				b.Run(fmt.Sprintf("threads=%d/cgroups=%d/attached=%s", threads, crowd, c.name), func(b *testing.B) {
					measure(b, c.attach(b), threads, fmt.Sprintf("calls %d %%d", threads), "calls 1 1")
				})
			}
		}
	}
}

// Each operation is two switches and two wake-ups, in a cgroup with a limit that it does
// not reach, on one CPU: on two a wake-up may be an interrupt to an idle one, which costs
// more than all that is measured, as does much else that a switch brings about. So only
// the programs themselves are measured, by the kernel's BPF statistics, and of all
// switches of the machine: HOOK-runs/switch, HOOK-ns/run and HOOK-ns/switch, all with what
// the statistics cost, two readings of the clock a run.
func BenchmarkSwitch(b *testing.B) {
	needRoot(b)
	runqueue, demand := rivals.EmptyScheduler()
	for _, c := range []struct {
		name   string
		attach func(b *testing.B) []hooked
	}{
		{"empty", func(b *testing.B) []hooked {
			_, programs := attachRivals(b, append(runqueue, demand)...)
			return programs
		}},
		{"ours", func(b *testing.B) []hooked {
			_, programs := attachBest(b, ProbeRunqueue)
			_, more := attachBest(b, ProbeDemand)
			return append(programs, more...)
		}},
		{"ours-5.10", func(b *testing.B) []hooked {
			_, all := variants(ProbeRunqueue, examine("/proc"))
			return attachOurs(b, ProbeRunqueue, all[len(all)-1])
		}},
		{"runqlat", func(b *testing.B) []hooked {
			_, programs := attachRivals(b, rivals.Runqlat()...)
			return programs
		}},
	} {
		b.Run("attached="+c.name, func(b *testing.B) {
			programs := c.attach(b)
			g := newGroup(b)
			g.limit(b, 400*time.Millisecond, 100*time.Millisecond)
			process := g.start(b)
			process.pin(b)
			process.order(b, "pingpong 1")
			process.answer(b)
			b.ResetTimer()
			took := account(b, programs, func() {
				process.order(b, "pingpong %d", b.N)
				process.answer(b)
			})
			switches := float64(took["sched_switch"].RunCount)
			for hook, t := range took {
				if t.RunCount > 0 {
					b.ReportMetric(float64(t.RunCount)/switches, hook+"-runs/switch")
					b.ReportMetric(float64(t.Runtime)/float64(t.RunCount), hook+"-ns/run")
					b.ReportMetric(float64(t.Runtime)/switches, hook+"-ns/switch")
				}
			}
		})
	}
}

// hooked is an attached program.
type hooked struct {
	hook    string
	program *ebpf.Program
}

// account is what the programs of each hook took while something was done.
func account(b *testing.B, programs []hooked, do func()) map[string]ebpf.ProgramStats {
	stats, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	require.NoError(b, err)
	defer func() { require.NoError(b, stats.Close()) }()
	sum := func() map[string]ebpf.ProgramStats {
		all := make(map[string]ebpf.ProgramStats)
		for _, p := range programs {
			s, err := p.program.Stats()
			require.NoError(b, err)
			t := all[p.hook]
			t.Runtime += s.Runtime
			t.RunCount += s.RunCount
			all[p.hook] = t
		}
		return all
	}
	before := sum()
	do()
	took := sum()
	for hook, t := range took {
		t.Runtime -= before[hook].Runtime
		t.RunCount -= before[hook].RunCount
		took[hook] = t
	}
	return took
}

// measure has a process in a cgroup of its own carry out an order of b.N operations on
// each of its threads, after one that makes the entries in maps.
func measure(b *testing.B, programs []hooked, threads int, order, first string) {
	g := newGroup(b)
	process := g.start(b)
	process.order(b, "%s", first)
	process.answer(b)
	before := g.stat(b).used
	b.ResetTimer()
	process.order(b, order, b.N)
	process.answer(b)
	b.StopTimer()
	b.ReportMetric(float64(g.stat(b).used-before)/float64(b.N*threads), "cpu-ns/op")
	took := account(b, programs, func() {
		process.order(b, order, b.N)
		process.answer(b)
	})
	for hook, t := range took {
		b.ReportMetric(float64(t.Runtime)/float64(t.RunCount), hook+"-ns/run")
	}
}

// attachBest attaches a probe in the best way of this kernel.
func attachBest(b *testing.B, name Probe) (*ebpf.Collection, []hooked) {
	p := &probe{status: Status{Probe: name}}
	slots, _ := newSlotTable([]string{"getppid"})
	if err := p.open(slots, DefaultMaxGroups, examine("/proc")); err != nil {
		b.Skipf("this kernel does not have it: %v", err)
	}
	b.Cleanup(func() { require.NoError(b, p.close()) })
	return p.coll, hooks(b, p)
}

func attachOurs(b *testing.B, name Probe, v variant) []hooked {
	h := examine("/proc")
	load, _ := variants(name, h)
	p := &probe{status: Status{Probe: name}}
	slots, _ := newSlotTable([]string{"getppid"})
	if err := p.try(load, v, slots, DefaultMaxGroups, h); err != nil {
		b.Skipf("this kernel does not have it: %v", err)
	}
	b.Cleanup(func() { require.NoError(b, p.close()) })
	return hooks(b, p)
}

func hooks(b *testing.B, p *probe) (all []hooked) {
	load, _ := variants(p.status.Probe, host{})
	spec, err := load()
	require.NoError(b, err)
	for name, program := range p.coll.Programs {
		all = append(all, hooked{spec.Programs[name].AttachTo, program})
	}
	return all
}

func attachRivals(b *testing.B, programs ...string) (coll *ebpf.Collection, all []hooked) {
	spec, err := rivals.Load()
	require.NoError(b, err)
	for name := range spec.Programs {
		if !slices.Contains(programs, name) {
			delete(spec.Programs, name)
		}
	}
	coll, err = ebpf.NewCollection(spec)
	require.NoError(b, err)
	b.Cleanup(coll.Close)
	for _, name := range programs {
		var l link.Link
		s := spec.Programs[name]
		if s.Type == ebpf.TracePoint {
			group, event, _ := strings.Cut(s.AttachTo, "/")
			l, err = link.Tracepoint(group, event, coll.Programs[name], nil)
		} else {
			l, err = link.AttachTracing(link.TracingOptions{Program: coll.Programs[name]})
		}
		if err != nil {
			b.Skipf("this kernel does not have it: %v", err)
		}
		b.Cleanup(func() { require.NoError(b, l.Close()) })
		all = append(all, hooked{filepath.Base(s.AttachTo), coll.Programs[name]})
	}
	return coll, all
}

// occupy gives other cgroups an index.
func occupy(b *testing.B, coll *ebpf.Collection, cgroups int) (indexes []uint32) {
	for id := range cgroups {
		var index uint32
		require.NoError(b, coll.Maps[unusedMap].LookupAndDelete(nil, &index))
		require.NoError(b, coll.Maps[indexMap].Put(uint64(1)<<40+uint64(id), index)) //nolint:gosec // small
		indexes = append(indexes, index)
	}
	return indexes
}

// fill gives other cgroups an entry for each call that they make.
func fill(b *testing.B, m *ebpf.Map, cgroups, numbers int) {
	var value any = uint64(1)
	if m.Type() == ebpf.PerCPUHash {
		value = make([]uint64, ebpf.MustPossibleCPU())
	}
	for id := range cgroups {
		for n := range numbers {
			require.NoError(b, m.Put(rivals.Key{Cgroup: uint64(1)<<40 + uint64(id), Number: uint64(n)}, value))
		}
	}
}

// What the program of the demand probe takes of an event more than an empty one on the
// same hook, by the kernel's own account of both at once: ns/event. The work is of a
// cgroup with a limit that it does not reach, of one whose pod has a limit too, and of
// one without. B/cgroup is what the map takes, whether or not there is one.
func BenchmarkDemand(b *testing.B) {
	needRoot(b)
	h := examine("/proc")
	for _, limits := range []struct {
		name           string
		pod, container bool
	}{{"container", false, true}, {"pod+container", true, true}, {"none", false, false}} {
		b.Run("limited="+limits.name, func(b *testing.B) {
			p := &probe{status: Status{Probe: ProbeDemand}}
			v := variant{programs: []string{demandProgSchedStatRuntimeEmpty, demandProgSchedStatRuntime}}
			require.NoError(b, p.try(loadDemand, v, slotTable{}, DefaultMaxGroups, h))
			b.Cleanup(func() { require.NoError(b, p.close()) })
			pod := newGroup(b)
			container := newGroupIn(b, pod)
			if limits.pod {
				pod.limit(b, 400*time.Millisecond, 100*time.Millisecond)
			}
			if limits.container {
				container.limit(b, 400*time.Millisecond, 100*time.Millisecond)
			}
			process := container.start(b)
			process.pin(b)
			took := account(b, []hooked{
				{"empty", p.coll.Programs[demandProgSchedStatRuntimeEmpty]}, {"demand", p.coll.Programs[demandProgSchedStatRuntime]},
			}, func() {
				for b.Loop() {
					process.order(b, "pingpong %d", 20_000)
					process.answer(b)
				}
			})
			each := func(of string) float64 { return float64(took[of].Runtime) / float64(took[of].RunCount) }
			b.ReportMetric(each("empty"), "ns/event-empty")
			b.ReportMetric(each("demand"), "ns/event-demand")
			b.ReportMetric(each("demand")-each("empty"), "ns/event-more")
			info, err := p.coll.Maps[demandMapDemands].Info()
			require.NoError(b, err)
			if bytes, ok := info.Memlock(); ok {
				b.ReportMetric(float64(bytes)/float64(info.MaxEntries), "B/cgroup")
			}
		})
	}
}

// Reading the periods of all limited cgroups, once a second in the exporter; none is
// lost, each time ten more closed.
func BenchmarkReadDemand(b *testing.B) {
	for _, groups := range []int{10, 100, 1000} {
		b.Run(fmt.Sprint(groups, " cgroups"), func(b *testing.B) {
			tracer := open(b, Config{Probes: []Probe{ProbeDemand}})
			require.True(b, tracer.Status()[0].Attached, tracer.Status()[0].Reason)
			m := tracer.probes[0].coll.Maps[demandMapDemands]
			indexes := occupy(b, tracer.probes[0].coll, groups)
			const length = 100_000_000
			first := uint64(length)
			var d demandDemand
			put := func(to uint64) {
				size := uint64(len(d.Ring))
				for i := to - size; i < to; i++ {
					d.Ring[i%size] = demandPeriod{Start: first + i*length, Used: i * 1000, NrPeriods: uint32(i), Quota: length, Length: length} //nolint:gosec // small
				}
				for _, index := range indexes {
					require.NoError(b, m.Update(index, &d, ebpf.UpdateAny))
				}
			}
			b.ReportAllocs()
			at := uint64(len(d.Ring))
			put(at)
			_, err := tracer.Demand()
			require.NoError(b, err)
			for b.Loop() {
				b.StopTimer()
				at += 10
				put(at)
				b.StartTimer()
				periods, err := tracer.Demand()
				require.NoError(b, err)
				for id := range groups {
					require.GreaterOrEqual(b, len(periods[uint64(1)<<40+uint64(id)]), 10) //nolint:gosec // small
				}
			}
		})
	}
}

// Reading the counts of all cgroups, once a second in the exporter.
func BenchmarkReadSyscalls(b *testing.B) {
	for _, groups := range []int{10, 100, 900} {
		b.Run(fmt.Sprint(groups, " cgroups"), func(b *testing.B) {
			tracer := open(b, Config{Probes: []Probe{ProbeSyscalls}})
			require.True(b, tracer.Status()[0].Attached, tracer.Status()[0].Reason)
			occupy(b, tracer.probes[0].coll, groups)
			b.ReportAllocs()
			for b.Loop() {
				counts, err := tracer.Syscalls()
				require.NoError(b, err)
				require.GreaterOrEqual(b, len(counts), groups)
			}
		})
	}
}

// What a system call costs more while a birth is in flight: of a process that has nothing
// to do with one, and of one that belongs to it.
func BenchmarkBirthSyscall(b *testing.B) {
	needRoot(b)
	for _, bench := range []struct {
		name         string
		probe, count bool
		as           string
	}{
		{"none", false, false, "app"}, {"at rest", true, false, "app"},
		{"in flight, unrelated", true, true, "app"}, {"in flight, in lineage", true, true, "runc"},
	} {
		b.Run(bench.name, func(b *testing.B) {
			if bench.probe {
				tracer := Open(b.Context(), Config{Log: slog.New(slog.DiscardHandler), Probes: []Probe{ProbeBirth}})
				b.Cleanup(func() { require.NoError(b, tracer.Close()) })
				births, err := tracer.Births()
				if err != nil {
					b.Skipf("this kernel does not have it: %s", tracer.Status()[0].Reason)
				}
				require.NoError(b, births.Count(bench.count))
			}
			binary, err := os.Executable()
			require.NoError(b, err)
			name := filepath.Join(b.TempDir(), bench.as)
			require.NoError(b, os.Symlink(binary, name))
			cmd := exec.Command(name)
			cmd.Env = append(os.Environ(), asChild+"=orders")
			p := newGroup(b).run(b, cmd)
			p.order(b, "call 1000")
			p.answer(b)
			b.ResetTimer()
			p.order(b, "call %d", b.N)
			p.answer(b)
		})
	}
}

// What following security events costs a container: calls that are not looked at, those
// that are and turn out harmless, files opened, an event each, and processes begun.
func BenchmarkSecurity(b *testing.B) {
	needRoot(b)
	file := filepath.Join(b.TempDir(), "file")
	require.NoError(b, os.WriteFile(file, nil, 0o644))
	for _, order := range []string{"call %d", "harmless %d", "read %d " + file, "write %d " + file, "ptrace %d", "exec %d /bin/true"} {
		what, _, _ := strings.Cut(order, " ")
		for _, c := range []struct {
			name   string
			attach func(b *testing.B)
		}{
			{"none", func(*testing.B) {}},
			{"empty", func(b *testing.B) {
				attachOurs(b, ProbeSyscalls, variant{programs: []string{syscallsProgSysEnterEmpty}})
			}},
			{"ours", func(b *testing.B) { attachBest(b, ProbeSecurity) }},
		} {
			b.Run(fmt.Sprintf("%s/attached=%s", what, c.name), func(b *testing.B) {
				c.attach(b)
				g, p := container(b)
				p.do(b, order, 10)
				before := g.stat(b).used
				b.ResetTimer()
				p.do(b, order, b.N)
				b.StopTimer()
				b.ReportMetric(float64(g.stat(b).used-before)/float64(b.N), "cpu-ns/op")
			})
		}
	}
}
