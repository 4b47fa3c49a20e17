// Package rivals holds programs that count and time the way others do, to be measured
// beside ours. Only tests load it; nothing that is shipped imports it.
package rivals

import "github.com/cilium/ebpf"

//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -cc clang-14 -strip llvm-strip-14 -cflags "-O2 -g -Wall -Werror" -target amd64,arm64 rivals rivals.bpf.c

// The programs, each alone on its hook.
const (
	Usual           = rivalsProgUsual
	Bpftrace        = rivalsProgBpftrace
	BCC             = rivalsProgBcc
	TracepointEmpty = rivalsProgTracepointEmpty
)

// Runqlat are programs that are attached together.
func Runqlat() []string {
	return []string{rivalsProgRunqlatWakeup, rivalsProgRunqlatWakeupNew, rivalsProgRunqlatSwitch}
}

// EmptyScheduler are programs that do nothing on the scheduler's hooks: those of the
// run queue, and the one of demand.
func EmptyScheduler() (runqueue []string, demand string) {
	return []string{rivalsProgEmptyWakeup, rivalsProgEmptySwitch}, rivalsProgEmptyRuntime
}

// PerCPU and Shared are the maps that count, by Key.
const (
	PerCPU = rivalsMapPerCpu
	Shared = rivalsMapShared
)

// Key of PerCPU and Shared.
type Key struct{ Cgroup, Number uint64 }

// Load returns all programs and maps.
func Load() (*ebpf.CollectionSpec, error) { return loadRivals() }
