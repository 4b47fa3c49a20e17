package collector

import "github.com/kernel-gossip/kernel-gossip/bpf"

type exporter struct {
	attached, runTime, runs, entries, capacity, lost *Family
	sampleTime, sampleDuration, sampleErrors         *Family
	groups, unowned, walks, overflows                *Family
}

func newExporter() Collector {
	return &exporter{
		attached: newFamily(gauge, "exporter_probe_attached",
			"1 when the probe is attached, 0 when this kernel does not let it; the log and the doctor command say why.", "probe"),
		runTime: newFamily(counter, "exporter_bpf_run_seconds_total",
			"CPU time in seconds that the kernel spent in a BPF program. Absent while the kernel keeps no such account (sysctl kernel.bpf_stats_enabled).", "probe", "program"),
		runs: newFamily(counter, "exporter_bpf_runs_total",
			"Runs of a BPF program. Absent while the kernel keeps no such account (sysctl kernel.bpf_stats_enabled).", "probe", "program"),
		entries: newFamily(gauge, "exporter_map_entries",
			"Cgroups that a BPF map holds; of the birth probe's, processes and counters, and bytes of the ring of events; of the security probe's evidences and runtimes, events and processes.", "map"),
		capacity: newFamily(gauge, "exporter_map_capacity",
			"The same that a BPF map can hold.", "map"),
		lost: newFamily(counter, "exporter_events_lost_total",
			"Events that a probe could not count: map_full, the map had no room for the cgroup; ring_full, events came faster than they were read; skipped, the kernel did not run the program because it was running on that CPU already (5.12+).", "probe", "reason"),
		sampleTime: newFamily(gauge, "exporter_last_sample_timestamp_seconds",
			"When the last sample was taken, in seconds since the epoch."),
		sampleDuration: newFamily(gauge, "exporter_sample_duration_seconds",
			"How long the last sample of all cgroups took, in seconds."),
		sampleErrors: newFamily(counter, "exporter_sample_errors_total",
			"Failed reads by reader. A cgroup that is gone is no error.", "reader"),
		groups: newFamily(gauge, "exporter_cgroups",
			"Cgroups that hold a container, a pod or a service, alive or gone within the grace period.", "state"),
		unowned: newFamily(gauge, "exporter_unowned_cgroups",
			"Cgroups that the kernel counted and that belong to no container or service; they have no series."),
		walks: newFamily(counter, "exporter_cgroup_walks_total",
			"Full walks of the cgroup tree."),
		overflows: newFamily(counter, "exporter_cgroup_watch_overflows_total",
			"Times that the kernel's queue of cgroup changes overflowed; a full walk follows."),
	}
}

func (e *exporter) Families() []*Family {
	return []*Family{
		e.attached, e.runTime, e.runs, e.entries, e.capacity, e.lost,
		e.sampleTime, e.sampleDuration, e.sampleErrors, e.groups, e.unowned, e.walks, e.overflows,
	}
}

func (e *exporter) Update(out *Exposition) {
	snap := out.Snapshot
	for _, p := range snap.Probes {
		attached := 0.0
		if p.Attached {
			attached = 1
		}
		out.node(e.attached, attached, string(p.Probe))
	}
	for _, p := range snap.Programs {
		// An attached program that never ran in the kernel's account is one that the
		// account does not cover.
		if p.Runs > 0 {
			out.node(e.runTime, p.RunTime.Seconds(), string(p.Probe), p.Program)
			out.node(e.runs, float64(p.Runs), string(p.Probe), p.Program)
		}
	}
	lost := make(map[[2]string]uint64)
	for _, m := range snap.Maps {
		out.node(e.entries, float64(m.Entries), m.Map)
		out.node(e.capacity, float64(m.Capacity), m.Map)
		reason := "map_full"
		if m.Ring {
			reason = "ring_full"
		}
		lost[[2]string{string(m.Probe), reason}] += m.Lost
	}
	for key, n := range lost {
		out.node(e.lost, float64(n), key[0], key[1])
	}
	skipped := make(map[bpf.Probe]uint64)
	for _, p := range snap.Programs {
		skipped[p.Probe] += p.Missed
	}
	for probe, n := range skipped {
		out.node(e.lost, float64(n), string(probe), "skipped")
	}
	out.node(e.sampleTime, float64(snap.At.UnixNano())/1e9)
	out.node(e.sampleDuration, snap.Took.Seconds())
	for reader, n := range snap.Errors {
		out.node(e.sampleErrors, float64(n), reader)
	}
	if snap.Probes != nil {
		out.node(e.unowned, float64(snap.Unowned))
	}
	if t := snap.Tree; t != nil {
		out.node(e.groups, float64(t.Groups), "alive")
		out.node(e.groups, float64(t.Tombstones), "gone")
		out.node(e.walks, float64(t.Walks))
		out.node(e.overflows, float64(t.Overflows))
	}
}
