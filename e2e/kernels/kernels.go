// Package kernels boots Debian's kernels in QEMU and runs a static Go test binary
// in each, on two emulated CPUs and 1 GiB.
//
// The emulator is TCG, so that no KVM is needed: counts and agreement between
// figures mean something there, timing does not. A boot in which the emulator crashes
// or hangs the guest is repeated, and every failed attempt is told in the result.
package kernels

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// Newest stands for the newest kernel that the suites offer.
const Newest = "newest"

// TestModules are those that the tests' stimuli take: a container's file system, a link
// that loses packets, and a disk.
func TestModules() []string { return []string{"overlay", "veth", "sch_netem", "brd"} }

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
// matrix's order; all of them where the list is empty. Oldest, middle and newest name
// the matrix's kernels by age, and stay valid when these change. A series that the
// matrix does not have, as 6.17, is booted as it is, after the others.
func Select(list string) ([]Boot, error) {
	names := strings.FieldsFunc(list, func(r rune) bool { return r == ' ' || r == ',' })
	if len(names) == 0 {
		return Matrix, nil
	}
	plain := slices.DeleteFunc(slices.Clone(Matrix), func(b Boot) bool { return b.V1 || b.NoBTF })
	known := map[string]Boot{"oldest": plain[0], "middle": plain[len(plain)/2]}
	for _, boot := range Matrix {
		known[boot.Name] = boot
	}
	var boots, others []Boot
	for _, name := range names {
		boot, ok := known[name]
		switch {
		case ok:
			boots = append(boots, boot)
		case series.MatchString(name):
			others = append(others, Boot{Name: name, Kernel: name})
		default:
			return nil, fmt.Errorf("kernel %q is not one of %s, nor a series such as 6.17", name, strings.Join(slices.Sorted(maps.Keys(known)), ", "))
		}
	}
	slices.SortStableFunc(boots, func(a, b Boot) int { return slices.Index(Matrix, a) - slices.Index(Matrix, b) })
	return slices.Compact(append(boots, others...)), nil
}

var series = regexp.MustCompile(`^\d+\.\d+$`)

// Cgroup names the hierarchy that the cpu controller is on.
func (b Boot) Cgroup() string {
	if b.V1 {
		return "v1"
	}
	return "v2"
}
