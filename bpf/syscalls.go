package bpf

import (
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
)

const (
	// MaxSyscallNames is how many system calls can be counted by name.
	MaxSyscallNames = syscallSlots - 1
	// OtherSyscalls is the name of the slot that takes the rest, and all calls that
	// a 32-bit program makes.
	OtherSyscalls = "other"

	syscallSlots   = 64  // SLOTS in syscalls.bpf.c
	syscallNumbers = 512 // NUMBERS there
)

// KnownSyscall tells whether this architecture has a system call of that name.
func KnownSyscall(name string) bool {
	n, ok := syscallNumber(name)
	return ok && n < syscallNumbers
}

// slotTable folds system call numbers into the slots that are counted.
type slotTable struct {
	names  []string // slot order, OtherSyscalls last
	slotOf [syscallNumbers]uint8
}

// newSlotTable gives each name a slot, and returns those it could not: unknown to
// this architecture, or past MaxSyscallNames. A repeated name gets one slot.
func newSlotTable(names []string) (t slotTable, left []string) {
	for _, name := range names {
		switch {
		case slices.Contains(t.names, name) || name == OtherSyscalls:
		case !KnownSyscall(name) || len(t.names) == MaxSyscallNames:
			left = append(left, name)
		default:
			t.names = append(t.names, name)
		}
	}
	other := uint8(len(t.names))
	for i := range t.slotOf {
		t.slotOf[i] = other
	}
	for slot, name := range t.names {
		n, _ := syscallNumber(name)
		t.slotOf[n] = uint8(slot)
	}
	t.names = append(t.names, OtherSyscalls)
	return t, left
}

func (t slotTable) install(spec *ebpf.CollectionSpec) error {
	if err := spec.Variables[syscallsVarSlotOf].Set(t.slotOf); err != nil {
		return fmt.Errorf("setting the table of system calls: %w", err)
	}
	if err := spec.Variables[syscallsVarOther].Set(uint32(len(t.names) - 1)); err != nil {
		return fmt.Errorf("setting the slot of other system calls: %w", err)
	}
	return nil
}

// SyscallNames are the names of the slots of Syscalls, in order; the last is
// OtherSyscalls. Names that this architecture does not have are left out.
func (t *Tracer) SyscallNames() []string { return slices.Clone(t.slots.names) }

// Syscalls returns the system calls entered by the threads of each cgroup since
// attach, by slot.
func (t *Tracer) Syscalls() (map[uint64][]uint64, error) {
	coll, err := t.attached(ProbeSyscalls)
	if err != nil {
		return nil, err
	}
	counts := make(map[uint64][]uint64)
	err = readIndexed(coll, coll.Maps[syscallsMapSyscalls], func(id uint64, cpus []syscallsCounts) {
		sum := make([]uint64, len(t.slots.names))
		for _, cpu := range cpus {
			for slot := range sum {
				sum[slot] += cpu.N[slot]
			}
		}
		counts[id] = sum
	})
	if err != nil {
		return nil, fmt.Errorf("reading system call counts: %w", err)
	}
	return counts, nil
}
