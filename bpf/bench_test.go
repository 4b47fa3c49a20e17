package bpf

import (
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
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
// which other people's load disturbs less. Both are of one call of one thread.

func BenchmarkSyscall(b *testing.B) {
	needRoot(b)
	const names = 17 // calls that a container makes, as the default of --syscalls.names and other
	for _, threads := range []int{1, max(2, runtime.NumCPU())} {
		for _, crowd := range []int{1, 500} {
			for _, c := range []struct {
				name   string
				attach func(b *testing.B)
			}{
				{"none", func(*testing.B) {}},
				{"empty", func(b *testing.B) {
					attachOurs(b, ProbeSyscalls, variant{programs: []string{syscallsProgSysEnterEmpty}})
				}},
				{"ours", func(b *testing.B) {
					m := attachBest(b, ProbeSyscalls).Maps[syscallsMapSyscalls]
					zero := make([]syscallsCounts, ebpf.MustPossibleCPU())
					for id := range crowd - 1 {
						require.NoError(b, m.Put(uint64(1)<<40+uint64(id), zero))
					}
				}},
				{"usual", func(b *testing.B) { fill(b, attachRivals(b, rivals.Usual).Maps[rivals.PerCPU], crowd-1, names) }},
				{"tracepoint-empty", func(b *testing.B) { attachRivals(b, rivals.TracepointEmpty) }},
				{"bpftrace", func(b *testing.B) { fill(b, attachRivals(b, rivals.Bpftrace).Maps[rivals.PerCPU], crowd-1, names) }},
				{"bcc", func(b *testing.B) { fill(b, attachRivals(b, rivals.BCC).Maps[rivals.Shared], crowd-1, names) }},
			} {
				b.Run(fmt.Sprintf("threads=%d/cgroups=%d/attached=%s", threads, crowd, c.name), func(b *testing.B) {
					c.attach(b)
					measure(b, threads, false, fmt.Sprintf("calls %d %%d", threads), "calls 1 1")
				})
			}
		}
	}
}

// Each operation is two switches and two wake-ups.
func BenchmarkSwitch(b *testing.B) {
	needRoot(b)
	runqueue, demand := rivals.EmptyScheduler()
	for _, c := range []struct {
		name   string
		attach func(b *testing.B)
	}{
		{"none", func(*testing.B) {}},
		{"empty", func(b *testing.B) { attachRivals(b, append(runqueue, demand)...) }},
		{"ours", func(b *testing.B) { attachBest(b, ProbeRunqueue); attachBest(b, ProbeDemand) }},
		{"empty-runqueue", func(b *testing.B) { attachRivals(b, runqueue...) }},
		{"ours-runqueue", func(b *testing.B) { attachBest(b, ProbeRunqueue) }},
		{"ours-runqueue-5.10", func(b *testing.B) {
			_, all := variants(ProbeRunqueue, examine("/proc"))
			attachOurs(b, ProbeRunqueue, all[len(all)-1])
		}},
		{"runqlat", func(b *testing.B) { attachRivals(b, rivals.Runqlat()...) }},
	} {
		b.Run("attached="+c.name, func(b *testing.B) {
			c.attach(b)
			measure(b, 1, true, "pingpong %d", "pingpong 1")
		})
	}
}

// measure has a process in a cgroup of its own carry out an order of b.N operations on
// each of its threads, after one that makes the entries in maps. Pinned to one CPU
// each wake-up is a switch; on two it may be an interrupt to an idle one, which costs
// more than all that is measured.
func measure(b *testing.B, threads int, pinned bool, order, first string) {
	g := newGroup(b)
	process := g.start(b)
	if pinned {
		tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", process.pid))
		require.NoError(b, err)
		var one unix.CPUSet
		one.Set(runtime.NumCPU() - 1)
		for _, task := range tasks {
			tid, err := strconv.Atoi(task.Name())
			require.NoError(b, err)
			require.NoError(b, unix.SchedSetaffinity(tid, &one))
		}
	}
	process.order(b, "%s", first)
	process.answer(b)
	before := g.stat(b).used
	b.ResetTimer()
	process.order(b, order, b.N)
	process.answer(b)
	b.StopTimer()
	b.ReportMetric(float64(g.stat(b).used-before)/float64(b.N*threads), "cpu-ns/op")
}

// attachBest attaches a probe in the best way of this kernel.
func attachBest(b *testing.B, name Probe) *ebpf.Collection {
	p := &probe{status: Status{Probe: name}}
	slots, _ := newSlotTable([]string{"getppid"})
	if err := p.open(slots, DefaultMaxGroups, examine("/proc")); err != nil {
		b.Skipf("this kernel does not have it: %v", err)
	}
	b.Cleanup(func() { require.NoError(b, p.close()) })
	return p.coll
}

func attachOurs(b *testing.B, name Probe, v variant) {
	h := examine("/proc")
	load, _ := variants(name, h)
	p := &probe{status: Status{Probe: name}}
	slots, _ := newSlotTable([]string{"getppid"})
	if err := p.try(load, v, slots, DefaultMaxGroups, h); err != nil {
		b.Skipf("this kernel does not have it: %v", err)
	}
	b.Cleanup(func() { require.NoError(b, p.close()) })
}

func attachRivals(b *testing.B, programs ...string) *ebpf.Collection {
	spec, err := rivals.Load()
	require.NoError(b, err)
	sections := map[string]string{}
	for name, program := range spec.Programs {
		if sections[name] = program.SectionName; !slices.Contains(programs, name) {
			delete(spec.Programs, name)
		}
	}
	coll, err := ebpf.NewCollection(spec)
	require.NoError(b, err)
	b.Cleanup(coll.Close)
	for _, name := range programs {
		var l link.Link
		if group, event, perf := strings.Cut(strings.TrimPrefix(sections[name], "tracepoint/"), "/"); strings.HasPrefix(sections[name], "tracepoint/") && perf {
			l, err = link.Tracepoint(group, event, coll.Programs[name], nil)
		} else {
			l, err = link.AttachTracing(link.TracingOptions{Program: coll.Programs[name]})
		}
		if err != nil {
			b.Skipf("this kernel does not have it: %v", err)
		}
		b.Cleanup(func() { require.NoError(b, l.Close()) })
	}
	return coll
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

// What the program of the demand probe takes of an event beside an empty one on the
// same hook, by the kernel's own account of both at once: ns/event. The work is of a
// cgroup with a limit that it does not reach, and of one without.
func BenchmarkDemand(b *testing.B) {
	needRoot(b)
	h := examine("/proc")
	stats, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, stats.Close()) })
	for _, limited := range []bool{true, false} {
		b.Run(fmt.Sprintf("limited=%t", limited), func(b *testing.B) {
			p := &probe{status: Status{Probe: ProbeDemand}}
			v := variant{programs: []string{demandProgSchedStatRuntimeEmpty, demandProgSchedStatRuntime}}
			require.NoError(b, p.try(loadDemand, v, slotTable{}, DefaultMaxGroups, h))
			b.Cleanup(func() { require.NoError(b, p.close()) })
			g := newGroup(b)
			if limited {
				g.limit(b, 400*time.Millisecond, 100*time.Millisecond)
			}
			process := g.start(b)
			account := func(program string) (ns, runs float64) {
				s, err := p.coll.Programs[program].Stats()
				require.NoError(b, err)
				return float64(s.Runtime), float64(s.RunCount)
			}
			for b.Loop() {
				b.StopTimer()
				emptyNS, emptyRuns := account(demandProgSchedStatRuntimeEmpty)
				ns, runs := account(demandProgSchedStatRuntime)
				b.StartTimer()
				process.order(b, "pingpong %d", 20_000)
				process.answer(b)
				b.StopTimer()
				emptyNSThen, emptyRunsThen := account(demandProgSchedStatRuntimeEmpty)
				nsThen, runsThen := account(demandProgSchedStatRuntime)
				b.ReportMetric((emptyNSThen-emptyNS)/(emptyRunsThen-emptyRuns), "ns/event-empty")
				b.ReportMetric((nsThen-ns)/(runsThen-runs), "ns/event-demand")
				b.StartTimer()
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
			const length = 100_000_000
			first := uint64(length)
			var d demandDemand
			put := func(to uint64) {
				size := uint64(len(d.Ring))
				for i := to - size; i < to; i++ {
					d.Ring[i%size] = demandPeriod{Start: first + i*length, Used: i * 1000, NrPeriods: uint32(i), Quota: length, Length: length} //nolint:gosec // small
				}
				for id := range groups {
					require.NoError(b, m.Update(uint64(1)<<40+uint64(id), &d, ebpf.UpdateAny)) //nolint:gosec // small
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
			cpus, err := ebpf.PossibleCPU()
			require.NoError(b, err)
			m := tracer.probes[0].coll.Maps[syscallsMapSyscalls]
			for id := range groups {
				require.NoError(b, m.Update(uint64(1)<<40+uint64(id), make([]syscallsCounts, cpus), ebpf.UpdateAny))
			}
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
