// Package kernels boots Debian's kernels in QEMU and runs a static Go test binary
// in each, on two emulated CPUs and 1 GiB.
//
// The emulator is TCG, so that no KVM is needed: counts and agreement between
// figures mean something there, timing does not. Multi-threaded TCG now and then
// kills a kernel that patches its own text; such a boot is repeated, in the end on
// a single thread, and every failed attempt is told in the result.
package kernels

import (
	"fmt"
	"slices"
	"strings"
)

// Newest stands for the newest kernel that the suites offer.
const Newest = "newest"

// Boot is one kernel in one setting.
type Boot struct {
	Name   string
	Kernel string // major.minor as in 6.1, or Newest
	V1     bool   // cpu, cpuacct and memory controllers on cgroup v1, v2 beside them without
	NoBTF  bool   // /sys/kernel/btf is hidden by an empty mount: the kernel itself still has its BTF
}

// Matrix is every boot, oldest kernel first.
var Matrix = []Boot{
	{Name: "5.10", Kernel: "5.10"},
	{Name: "5.10-cgroup-v1", Kernel: "5.10", V1: true},
	{Name: "6.1", Kernel: "6.1"},
	{Name: "6.1-no-btf", Kernel: "6.1", NoBTF: true},
	{Name: "6.12", Kernel: "6.12"},
	{Name: "6.18", Kernel: "6.18"},
	{Name: Newest, Kernel: Newest},
}

// Select returns the boots named in a list separated by spaces or commas, in the
// matrix's order; all of them where the list is empty.
func Select(list string) ([]Boot, error) {
	names := strings.FieldsFunc(list, func(r rune) bool { return r == ' ' || r == ',' })
	if len(names) == 0 {
		return Matrix, nil
	}
	var known []string
	var boots []Boot
	for _, boot := range Matrix {
		known = append(known, boot.Name)
		if slices.Contains(names, boot.Name) {
			boots = append(boots, boot)
		}
	}
	for _, name := range names {
		if !slices.Contains(known, name) {
			return nil, fmt.Errorf("kernel %q is not one of %s", name, strings.Join(known, ", "))
		}
	}
	return boots, nil
}

// Cgroup names the hierarchy that the cpu controller is on.
func (b Boot) Cgroup() string {
	if b.V1 {
		return "v1"
	}
	return "v2"
}
