// Package cgroup knows the cgroups of a machine that hold a container, a pod, a
// service or anything else worth naming, and reads what the kernel counts in them.
//
// # Where
//
// Everything hangs on the hierarchy that the cpu controller is in: cgroup v2, or v1's
// cpu hierarchy, also on hybrid machines that mount v2 beside it without controllers.
// On v1 the cpuacct and cpuset hierarchies are looked into at the same path. Mounts
// are taken from mountinfo, or recognised below a directory that is given.
//
// # What
//
// [Identify] reads a cgroup's path and nothing else. A container's own cgroup is a
// [Group], and so are pods (a pod-level quota throttles too), systemd units, and
// cgroups with none of these names. Containers and pods are always of interest, the
// others from their first process or quota on, until they are removed.
//
// A cgroup nested in a container or unit is no Group: usage is hierarchical, so it is
// in the owner's figures already. Events that the kernel keys by a nested cgroup's id
// are attributed with [Tree.Owner]. What folding loses is the throttling by a quota
// that someone set inside a container: nr_throttled counts a cgroup's own quota only.
//
// # When
//
// inotify on each directory tells of creation and removal, and, while a cgroup is not
// yet of interest, of writes to its files. A full walk every minute is the net; it
// follows a queue overflow at once, and comes every 5 seconds where directories are
// left that the watch limit does not allow. A removed Group stays listed as a
// tombstone (Gone is set) for a grace period, and so do the ids that it owned.
//
// An [ID] is a kernfs node id, the directory's inode number, as the BPF programs key
// their maps. A new directory with a known path or a known ID is a new Group.
//
// # How much
//
// [Reader] keeps the control files open and reads each with one pread; the steady
// state does not allocate, except 8 bytes when a hierarchical throttle time changes,
// and for memory's files a few hundred. A value that cannot be read is an error that
// names file and field, never a zero.
package cgroup
