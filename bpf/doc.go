// Package bpf loads kernel-gossip's eBPF programs, attaches them and reads what they
// counted.
//
// Each probe has a C file, an object and a collection of its own, so that a hook the
// kernel refuses costs that probe alone. All maps are keyed by the cgroup id: the
// kernfs id of the task's cgroup in the cpu controller's hierarchy, v1 or v2, which
// is the inode number of its directory there. The root cgroup is not counted. A
// nested cgroup has an entry of its own; its ancestors' do not include it, except
// for Demand, which charges a limited ancestor for all below it as the kernel does.
// Births are followed by process instead, and told one by one (see Births).
//
// Entries come into being in the kernel with the first event of a cgroup and live
// until Forget; what a full map could not take is counted (see Tracer.Maps).
package bpf
