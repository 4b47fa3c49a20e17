// Package birth makes a certificate of what it took to bring a pod, or off-cluster a
// container, to life, out of the kernel's events. It is pure: events and counters in,
// certificates out; time is what the events say.
//
// Whose an event is follows from its process. A process belongs to a container because a
// runtime's arguments name it (runc create … ID, a shim's -id ID), to a pod because a CNI
// plugin's environment names it (CNI_ARGS: K8S_POD_UID), or to what its parent belongs to;
// a container belongs to the pod whose cgroup it is put into. The three agree in practice;
// where one is missing the others do.
//
// What is counted: every system call of these processes, from the first until the last
// entrypoint is executed. Processes that end by themselves (runc, CNI plugins) are counted
// until they end; those that stay (a shim, conmon, runc run) until that entrypoint.
// Set-up system calls leave out what a process does for itself wherever it runs: its threads,
// signals, memory and waiting, which in Go programs varies with the machine's load.
//
// The daemons' own work (containerd, kubelet) can be told for one pod only where a path names it;
// all else is what the daemons did between birth and entrypoint for all births in flight. It
// is shown as that, with their number, and never divided.
//
// What is uncertain: a hook that a runtime runs inside of a container with the host's PID
// namespace looks like its entrypoint. A container that shares another's PID namespace is
// told by its parent being outside.
package birth
