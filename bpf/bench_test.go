package bpf

import (
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// What the probes cost: compare within one run, the machine's noise is the same there.
// Each case is named for what is attached meanwhile; "none" and "empty" (the hook with
// a program that does nothing) are the yardsticks.

func BenchmarkSyscall(b *testing.B) {
	benchmark(b, ProbeSyscalls, syscallsProgSysEnterEmpty, "call %d")
}

// Each operation is two switches and two wake-ups.
func BenchmarkSwitch(b *testing.B) {
	benchmark(b, ProbeRunqueue, runqueueProgSchedSwitchEmpty, "pingpong %d")
}

func benchmark(b *testing.B, name Probe, empty, order string) {
	needRoot(b)
	h := examine("/proc")
	load, all := variants(name, h)
	slots, _ := newSlotTable([]string{"getppid"})
	all = append([]variant{{mode: "none"}, {mode: "empty", programs: []string{empty}}}, all...)
	for _, v := range all {
		b.Run(v.mode, func(b *testing.B) {
			p := &probe{status: Status{Probe: name}}
			if len(v.programs) > 0 {
				if err := p.try(load, v, slots, DefaultMaxGroups, h); err != nil {
					b.Skipf("this kernel does not have it: %v", err)
				}
			}
			b.Cleanup(func() { require.NoError(b, p.close()) })
			process := newGroup(b).start(b)
			process.order(b, "call 1") // makes the entry
			process.answer(b)
			b.ResetTimer()
			process.order(b, order, b.N)
			process.answer(b)
			b.StopTimer()
		})
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
