package build

import (
	"fmt"

	"github.com/kernel-gossip/kernel-gossip/rules"
)

// self is what kernel-gossip costs and whether it can be believed.
func self() Dashboard {
	const (
		selector = `instance=~"$instance"`
		of       = "{" + selector + "}"
		rated    = of + "[$__rate_interval]"
		exporter = "kernel_gossip_exporter_"
		whisper  = "kernel_gossip_whisper_"
		operator = "kernel_gossip_operator_"
		ours     = " and on (job, instance) {__name__=~\"kernel_gossip_(exporter|operator)_build_info\", " + selector + "}"
	)
	spread := func(at float64, name string, labels string) string {
		by, le := "", " by (le)"
		if labels != "" {
			by, le = " by ("+labels+")", " by (le, "+labels+")"
		}
		return fmt.Sprintf("histogram_quantile(%s, sum%s(rate(%s%s))) or histogram_quantile(%s, sum%s(rate(%s_bucket%s)))", num(at), by, name, rated, num(at), le, name, rated)
	}
	return newDashboard(UIDSelf, "kernel-gossip / kernel-gossip itself",
		"What kernel-gossip costs, whether all of it works, and where events are lost. Figures that are absent elsewhere are explained here.",
		[]variable{instance(`{__name__=~"kernel_gossip_(exporter|operator)_build_info"}`)},
		[]annotation{alerts(selector)},
		section{"Now", []*Panel{
			stat(1, "Exporters", "short", "Exporters that are scraped: one a node.", "count("+exporter+"build_info"+of+")"),
			stat(2, "Probes not attached", "short",
				"BPF programs that a kernel refuses or that lack what they need, over all nodes. What rests on them is absent there; the table below says which, and `kernel-gossip-exporter doctor` on the node says why and what to do.",
				"count("+exporter+"probe_attached"+of+" == 0) or 0 * count("+exporter+"probe_attached"+of+")").lines(above(1, "orange")...),
			stat(3, "Collectors failing", "short", "Collectors that could not turn the last sample into metrics: their figures are absent.",
				"count("+exporter+"collector_success"+of+" == 0) or 0 * count("+exporter+"collector_success"+of+")").lines(above(1, "red")...),
			stat(4, "CPU of an exporter", cores, "CPU that the busiest exporter process uses, its BPF programs aside.",
				"max(rate(process_cpu_seconds_total"+rated+") and on (job, instance) "+exporter+"build_info"+of+")"),
			stat(5, "Memory of an exporter", "bytes", "Resident memory of the largest exporter process.",
				"max(process_resident_memory_bytes"+of+" and on (job, instance) "+exporter+"build_info"+of+")"),
			stat(6, "Series", "short", "Containers that have series, over all exporters.", "count(kernel_gossip_container_info"+of+")"),
		}},
		section{"Cost", []*Panel{
			series(7, "CPU of BPF programs", cores,
				"CPU time that the kernel spends in the programs that watch, by what they watch. It is charged to whoever happens to run, so no process shows it. Absent where the kernel keeps no such account (sysctl kernel.bpf_stats_enabled).",
				q("{{probe}}", "sum by (probe) (rate("+exporter+"bpf_run_seconds_total"+rated+"))")).stacked(),
			series(8, "Cost of one run", "s",
				"Mean time of one run of each BPF program. Runs happen on the kernel's hot paths; a run should stay below a few microseconds.",
				q("{{probe}} {{program}}", "sum by (probe, program) (rate("+exporter+"bpf_run_seconds_total"+rated+")) / sum by (probe, program) (rate("+exporter+"bpf_runs_total"+rated+") > 0)")),
			series(9, "CPU of processes", cores, "CPU of the exporters and of the operator.",
				q("{{job}} {{instance}}", "rate(process_cpu_seconds_total"+rated+")"+ours)),
			series(10, "Memory of processes", "bytes", "Resident memory of the exporters and of the operator.",
				q("{{job}} {{instance}}", "process_resident_memory_bytes"+of+ours)),
		}},
		section{"Exporter", []*Panel{
			table(11, "Probes", "What each node's kernel lets the exporter watch. A probe that is not attached costs only the figures that rest on it.",
				column{label: "instance", title: "Node"},
				column{label: "probe", title: "Probe"},
				column{title: "Attached", expr: "max by (instance, probe) (" + exporter + "probe_attached" + of + ")", unit: "bool_yes_no", lines: []step{{Color: "orange"}, {Color: "green", Value: ptr(1.0)}}},
			).size(12, 8),
			series(12, "Collectors", "s", "How long each collector takes to answer a scrape, on the slowest node. Collectors read memory only.",
				q("{{collector}}", "max by (collector) ("+exporter+"collector_duration_seconds"+of+")")),
			series(13, "Sampling", "s", "Time to read all cgroups once, which happens at most once a second whatever the scrapes do, on each node.",
				q("{{instance}}", "topk(10, "+exporter+"sample_duration_seconds"+of+")")),
			series(14, "Age of the last sample", "s", "Scrapes show the last sample. Older than 15 s, its collectors fail rather than repeat it.",
				q("{{instance}}", "topk(10, time() - "+exporter+"last_sample_timestamp_seconds"+of+")")).signed(),
			series(15, "Failed reads", "ops", "Reads of kernel files and BPF maps that failed. A cgroup that is gone is no failure.",
				q("{{reader}}", "sum by (reader) (rate("+exporter+"sample_errors_total"+rated+"))")),
			series(16, "Fill of BPF maps", "percentunit",
				fmt.Sprintf("Room for cgroups that is taken, on the fullest node. When a map is full, new containers are not counted by its programs. The line is where the alert speaks, %.0f %%.", 100*rules.MapFullRatio),
				q("{{map}}", "max by (map) ("+exporter+"map_entries"+of+" / "+exporter+"map_capacity"+of+")")).share().drawn(rules.MapFullRatio),
			series(17, "Events lost", "ops", "Kernel events that were not counted: the map was full, or the program was running on that CPU already. Figures that rest on the probe are too low by them.",
				q("{{probe}} {{reason}}", "sum by (probe, reason) (rate("+exporter+"events_lost_total"+rated+"))")),
			series(18, "Cgroups", "short", "alive: containers, pods and services that are watched. gone: kept for a moment so that their last figures are scraped. unowned: counted by the kernel, of no container or service, without series.",
				q("{{state}}", "sum by (state) ("+exporter+"cgroups"+of+")"),
				q("unowned", "sum("+exporter+"unowned_cgroups"+of+")")),
			series(19, "Discovery", "ops", "Full walks of the cgroup tree, and overflows of the kernel's queue of changes, each of which costs a walk.",
				q("walks", "sum(rate("+exporter+"cgroup_walks_total"+rated+"))"),
				q("overflows", "sum(rate("+exporter+"cgroup_watch_overflows_total"+rated+"))")),
			series(20, "Error of what-if figures", "percentunit", "Each time that a CPU limit changes, what was predicted for the new limit is compared with what came. The mean difference in throttled periods, and how many such checks there were. Only with --collector.whatif.",
				q("{{instance}} mean error", exporter+"whatif_error_ratio"+of),
				q("checks", "sum(increase("+exporter+"whatif_checks_total"+rated+"))")),
		}},
		section{"Events to the operator", []*Panel{
			series(21, "Events by end", "ops", "What became of the exporters' events: delivered, superseded by a newer one about the same container, or dropped.",
				q("{{result}}", "sum by (result) (rate("+whisper+"events_total"+rated+"))")),
			series(22, "Events dropped", "ops", "Events that the operator never got, by reason.",
				q("{{reason}}", "sum by (reason) (rate("+whisper+"events_dropped_total"+rated+"))")),
			series(23, "Requests", "reqps", "Requests of the exporters to the operator. A retry comes again later; a rejected event does not.",
				q("{{outcome}}", "sum by (outcome) (rate("+whisper+"requests_total"+rated+"))")),
			series(24, "Delivery and queue", "s", "From the kernel's figure to the operator's word that it is stored: the longest of a hundred.",
				q("p99", spread(0.99, whisper+"delivery_seconds", ""))),
			series(25, "Queue", "percentunit", "Room in the queue of events that is taken, on the fullest node.",
				q("queue", "max("+whisper+"queue_length"+of+" / "+whisper+"queue_capacity"+of+")")).share(),
		}},
		section{"Operator", []*Panel{
			series(26, "Events by door", "ops", "Events that came in by each door, and what became of them. failed ones are sent again by their sender.",
				q("{{door}} {{result}}", "sum by (door, result) (rate("+operator+"intake_events_total"+rated+"))")),
			series(27, "Time to answer", "s", "Time until a sender is told that its event is stored: the longest of a hundred.",
				q("{{door}}", spread(0.99, operator+"intake_request_duration_seconds", "door"))),
			series(28, "Signals", "ops", "What became of each signal in the store: stored; ignored, as the pod is no more; invalid; capped, as there are too many objects; failed.",
				q("{{result}}", "sum by (result) (rate("+operator+"store_signals_total"+rated+"))")),
			series(29, "Time to store", "s", "Time to write what waits for one object: the longest of a hundred.",
				q("p99", spread(0.99, operator+"store_duration_seconds", ""))),
			series(30, "Writes and conflicts", "ops", "Writes that landed, and those that another writer was ahead of, which are done again at once.",
				q("written {{part}}", "sum by (part) (rate("+operator+"store_writes_total"+rated+"))"),
				q("conflicts", "sum(rate("+operator+"store_conflicts_total"+rated+"))")),
			series(31, "Caps", "ops", "Objects refused because there are too many, in a namespace or in all; and alerts that Alertmanager left out of its notifications.",
				q("capped {{scope}}", "sum by (scope) (rate("+operator+"store_capped_total"+rated+"))"),
				q("truncated", "sum(rate("+operator+"intake_truncated_alerts_total"+rated+"))")),
		}},
	)
}
