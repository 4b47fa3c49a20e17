package bpf

import (
	"fmt"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/stretchr/testify/require"
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
