package build

import (
	"fmt"

	"github.com/kernel-gossip/kernel-gossip/rules"
)

// container is all that is known of one container.
func container() Dashboard {
	const (
		whispered = `namespace=~"$namespace", pod=~"$pod", container="$container"`
		selector  = `instance=~"$instance", ` + whispered
		metric    = "kernel_gossip_cpu_"
		of        = "{" + selector + "}"
		rated     = of + "[$__rate_interval]"
		limit     = "max(" + metric + "limit_cores" + of + ")"
		wait      = metric + "runqueue_wait_seconds"
	)
	ratio := "sum(rate(" + metric + "throttled_periods_total" + rated + ")) / sum(rate(" + metric + "periods_total" + rated + "))"
	used := "sum(rate(" + metric + "usage_seconds_total" + rated + "))"
	// A native histogram where one was scraped, else classic buckets.
	either := func(of func(name, by string) string, name string) string {
		return of(name, "") + " or " + of(name+"_bucket", " by (le)")
	}
	spread := func(name, by string) string { return "sum" + by + "(rate(" + name + rated + "))" }
	quantile := func(at float64, name string) string {
		return either(func(name, by string) string {
			return fmt.Sprintf("histogram_quantile(%s, %s)", num(at), spread(name, by))
		}, name)
	}
	whatIf := func(end string) string {
		return "avg by (limit_multiple) (" + metric + "whatif_throttle_ratio" + end + of + ")"
	}
	waited := "(sum(histogram_sum(rate(" + wait + rated + "))) or sum(rate(" + wait + "_sum" + rated + ")))"

	pod := choice("pod", "Pod", usage+`{instance=~"$instance", namespace=~"$namespace"}`, ".*")
	return newDashboard(UIDContainer, "kernel-gossip / Container",
		"One container: what the cluster is told of it beside what the kernel does to it. Where several pods are chosen, figures are sums over them.",
		[]variable{instance(usage), namespace(), pod,
			choice("container", "Container", usage+`{instance=~"$instance", namespace=~"$namespace", pod=~"$pod"}`, "")},
		[]annotation{whispers(whispered), alerts(selector)},
		section{"Now", []*Panel{
			stat(1, "Reported, of limit", "percentunit",
				"CPU use as the cluster is told (kubectl top), over the CPU limit. It is a mean over 15 s or more and says nothing of what happened within.",
				"max("+metric+"reported_cores"+of+") / "+limit),
			stat(2, "Throttled", "percentunit",
				"Share of the periods, usually of 100 ms, in which the container used up its CPU limit and the kernel stopped it until the next period.",
				ratio).lines(throttledLines()...),
			stat(3, "CPU denied", cores,
				"CPU that the container wanted and did not get, in cores.",
				"sum("+metric+`gap_cores{`+selector+`, kind=~"throttled|contended"})`),
			stat(4, "Limit", cores,
				"The CPU limit that the kernel enforces now (cpu.max), whatever the pod's specification says. After an in-place resize this is the truth.",
				limit),
			stat(5, "Recommended limit", cores,
				"Smallest limit that is expected to throttle at most 1 % of periods. An estimate, only with --collector.whatif; not measured where the container was seen too briefly or is stopped so often that its demand can't be told.",
				"max("+metric+"recommended_limit_cores"+of+")"),
			stat(6, "Burst", cores,
				"CPU that the container may use beyond its limit out of quota it saved before (cpu.max.burst). Kubernetes does not set it by itself.",
				"max("+metric+"burst_cores"+of+")"),
		}},
		section{"The gap", []*Panel{
			series(7, "Reported beside kernel", cores,
				"reported: what the cluster is told. used: what the kernel counted. wanted: used and denied together. limit: what the kernel enforces. A reported line far below the limit beside a wanted line above it is the lie.",
				q("reported ({{source}})", "max by (source) ("+metric+"reported_cores"+of+")"),
				q("used", used),
				q("wanted", "sum("+metric+"demand_cores"+of+")"),
				q("limit", "sum("+metric+"limit_cores"+of+")")),
			series(panelThrottled, "Throttled periods", "percentunit",
				fmt.Sprintf("Share of the periods in which the container ran that the kernel cut short, because the limit was used up. The line is where the alerts speak, %.0f %%.", 100*rules.ThrottledRatio),
				q("throttled", ratio)).share().drawn(rules.ThrottledRatio),
			series(9, "Where the gap comes from", cores,
				"throttled: stopped by the limit. contended: waiting for a CPU that others use. averaging: the busiest second minus the mean that is reported. accounting: the kernel's figure minus the reported one over the same time; it may be negative.",
				q("{{kind}}", "sum by (kind) ("+metric+"gap_cores"+of+")")).signed(),
			series(10, "Age of the reported figure", "s",
				"How old the figure is that the cluster is told: now minus the end of the time that it averages.",
				q("{{source}}", "max by (source) ("+metric+"reported_age_seconds"+of+")")),
		}},
		section{"Throttling", []*Panel{
			heat(11, "How long it is stopped", "s",
				"Each column is a moment, each row a length of time: the brighter, the more often. Where the kernel allows it this is the length of each stop on a CPU; elsewhere it is the CPU time denied in each throttled period. A request that meets a stop is at least so much slower.",
				q("", either(spread, metric+"throttle_duration_seconds")+" or "+either(spread, metric+"denied_period_seconds"))),
			series(12, "Time stopped", "s",
				"Seconds stopped per second, summed over CPUs, so that more than 1 is possible. by any limit: also that of the pod or of what it is in, which the container's own counters do not show (kernel 6.6 and later).",
				q("by its own limit", "sum(rate("+metric+"throttled_seconds_total"+rated+"))"),
				q("by any limit", "sum(rate("+metric+"hierarchical_throttled_seconds_total"+rated+"))")),
			curve(13, "What if the limit were another", "percentunit",
				fmt.Sprintf("Throttled periods that are expected if the CPU limit were so many times what it is, from the limit's half to its double. The band is where the true share likely lies, the dot at 1 is what is measured now, and the line is where the alerts speak, %.0f %%. An estimate, only with --collector.whatif; only the dot is shown where it can't be told, which the table beside it explains.", 100*rules.ThrottledRatio),
				axis{label: "limit_multiple", title: "Times the limit"},
				estimate{
					low: whatIf("_low"), best: whatIf(""), high: whatIf("_high"),
					// A panel of which no query answers tells of a field that it can't find: where not
					// even this is measured, the point is not drawn.
					measured: "label_replace(avg(" + metric + "throttle_ratio" + of + `) or vector(NaN), "limit_multiple", "1", "", "")`,
				}).drawn(rules.ThrottledRatio),
			table(20, "What the estimate rests on",
				"predicted: there is an answer. too_short: observe longer. saturated: the container is stopped so often that its demand can't be told; raise the limit, then look again. Periods: how many periods at the present limit were observed.",
				column{label: "pod", title: "Pod"},
				column{label: "outcome", title: "Outcome"},
				column{label: "confidence", title: "Confidence"},
				column{title: "Periods", expr: "max by (pod, outcome, confidence) (" + metric + "whatif_outcome" + of + " * on (" + by + ") group_left () " + metric + "whatif_periods" + of + ")", unit: "short"},
			).size(12, 8),
		}},
		section{"Waiting for a CPU", []*Panel{
			series(panelStarved, "Share of wanted time spent waiting", "percentunit",
				fmt.Sprintf("Time that threads were ready to run and did not run, over that time and the CPU time used. It includes the time throttled. The line is where the alert KernelGossipCPUStarved speaks, %.0f %%, if the container is not throttled.", 100*rules.StarvedRatio),
				q("waiting", waited+" / ("+waited+" + "+used+")")).share().drawn(rules.StarvedRatio),
			heat(15, "How long a thread waits", "s",
				"Each column is a moment, each row the time from when a thread could run to when it did: the brighter, the more often. Throttling shows as a band of tens of milliseconds, a crowded node as a smear up to a few.",
				q("", either(spread, wait))),
			series(16, "Wait of a thread", "s",
				"Half of the waits are shorter than p50, one of a hundred is longer than p99.",
				q("p50", quantile(0.5, wait)), q("p99", quantile(0.99, wait))).size(gridWidth, 7),
		}},
		section{"Memory and pressure", []*Panel{
			series(30, "Memory", "bytes",
				"reported: what the cluster is told. working set: the same figure, read from the kernel now. charged: all that counts against the limit, the cache of files included, which the kernel takes back when memory is short. limit: what the kernel enforces.",
				q("reported ({{source}})", "sum by (source) (kernel_gossip_memory_reported_bytes"+of+")"),
				q("working set", "sum(kernel_gossip_memory_working_set_bytes"+of+")"),
				q("charged", "sum(kernel_gossip_memory_usage_bytes"+of+")"),
				q("limit", "sum(kernel_gossip_memory_limit_bytes"+of+")")),
			series(panelKilled, "Limits hit and processes killed", "ops",
				"high: slowed down at memory.high. max, or failcnt on cgroup v1: at the limit, the kernel had to take memory back first. oom: nothing could be taken back. killed: processes that the kernel chose to kill for it, also those below the container's first process, which Kubernetes does not report. group counts what is below the container's cgroup, too.",
				q("{{event}} ({{scope}})", "sum by (event, scope) (rate(kernel_gossip_memory_events_total"+rated+"))"),
				q("killed", "sum(rate(kernel_gossip_oom_kills_total"+rated+"))")),
			series(panelMemoryStalled, "Time lost waiting for memory", "percentunit",
				fmt.Sprintf("Share of the last 5 minutes in which some task stood still for memory, by the kernel's own account, or on cgroup v1 by the waits of its threads. The line is where the alert speaks, %.0f %%. A usage below the limit does not show it.", 100*rules.StalledRatio),
				q("waiting", "max(container:kernel_gossip_memory_stalled:ratio_rate5m"+of+")")).share().drawn(rules.StalledRatio),
			heat(32, "How long an allocation waits for memory", "s",
				"An allocation that finds no free memory must take some back first, and waits. Each column is a moment, each row a wait: the brighter, the more often. No usage metric shows these waits; requests are slower by them.",
				q("", either(spread, "kernel_gossip_memory_reclaim_stall_seconds"))),
			series(33, "Page faults", "ops",
				"all: pages that were touched and not mapped, which is usual and cheap. major: those that waited for a disk. refault: pages that were evicted while they were in use; a container that refaults needs more memory, whatever its usage says.",
				q("{{kind}}", "sum by (kind) (rate(kernel_gossip_memory_page_faults_total"+rated+"))"),
				q("refault", "sum(rate(kernel_gossip_memory_refaults_total"+rated+"))")),
			series(34, "Pressure", "percentunit",
				"Share of the time in which work stood still for want of CPU, memory or disk: some of the container's tasks (some), or all that had something to do (full). This is the kernel's own measure of scarcity (PSI); cgroup v1 keeps none by container.",
				q("{{resource}}, {{kind}}", "avg by (resource, kind) (rate(kernel_gossip_pressure_seconds_total"+rated+"))")).share(),
		}},
		section{"Network", []*Panel{
			series(panelNetwork, "Traffic that goes wrong", "percentunit",
				fmt.Sprintf("Shares of the last 5 minutes. sent again: of the TCP segments sent. turned away: of the connections, because the accept queue was full; the clients wait a second and more. refused: of the connections, by a peer where nobody listens. dropped: of the packets that were seen. The line is where the alerts speak, %.0f %%.", 100*rules.NetworkRatio),
				q("sent again", "max(container:kernel_gossip_network_retransmits:ratio_rate5m"+of+")"),
				q("turned away", "max(container:kernel_gossip_network_accept_overflows:ratio_rate5m"+of+")"),
				q("refused", "max(container:kernel_gossip_network_refused:ratio_rate5m"+of+")"),
				q("dropped", "max(container:kernel_gossip_network_drops:ratio_rate5m"+of+")")).share().drawn(rules.NetworkRatio),
			series(panelDrops, "Packets dropped", "ops",
				"Packets of the container that the kernel dropped, by its own reason. not_specified need not be a loss, and is all that a kernel before 5.17 tells; no_socket is for a port where nobody listens.",
				q("{{reason}}", "sum by (reason) (rate(kernel_gossip_network_drops_total"+rated+"))")),
			series(42, "TCP segments", "ops",
				"The traffic that the shares are of: segments of the container's sockets, those that are sent again included.",
				q("{{direction}}", "sum by (direction) (rate(kernel_gossip_network_tcp_segments_total"+rated+"))"),
				q("sent again", "sum(rate(kernel_gossip_network_tcp_retransmits_total"+rated+"))")),
			series(43, "TCP connections", "ops",
				"established: either way. turned away: by a full accept queue of the container's. The rest are resets: refused in answer to its own attempts, received on a connection, or sent.",
				q("established", "sum(rate(kernel_gossip_network_tcp_connections_total"+rated+"))"),
				q("turned away", "sum(rate(kernel_gossip_network_accept_queue_overflows_total"+rated+"))"),
				q("{{kind}}", "sum by (kind) (rate(kernel_gossip_network_tcp_resets_total"+rated+"))")),
		}},
		section{"Security", []*Panel{
			series(panelSecurity, "What few containers should do", "short",
				"Events of the last 10 minutes, by kind: namespaces entered or made, mounts, traces, modules, BPF, files executed that are not the image's, privileges gained, release_agent or core_pattern opened for writing. Attempts count, too. Who did it is in the KernelWhisper and on the exporter's page.",
				q("{{event}}", "sum by (event) (container:kernel_gossip_security_events:increase10m"+of+")")),
			series(51, "Allowed", "ops",
				"The same where it is expected of the pod (--security.allow-file): counted, and not told.",
				q("{{event}}", `sum by (event) (rate(kernel_gossip_security_events_total{`+selector+`, allowed="true"}[$__rate_interval]))`)),
		}},
		section{"System calls", []*Panel{
			series(17, "System calls", "ops",
				"What the container asks of the kernel, by name. Many futex calls are threads that wait for each other; sched_yield is a thread that spins. Names not in --syscalls.names are other.",
				q("{{syscall}}", "sum by (syscall) (rate(kernel_gossip_syscalls_total"+rated+"))")).stacked().size(gridWidth, 8),
		}},
		section{"Identity", []*Panel{
			table(18, "Containers shown", "The pods, cgroups and nodes that the figures above are of.",
				column{label: "namespace", title: "Namespace"},
				column{label: "pod", title: "Pod"},
				column{label: "container", title: "Container"},
				column{label: "instance", title: "Node", link: toNode()},
				column{label: "qos", title: "QoS"},
				column{label: "uid", title: "Pod UID"},
				column{label: "container_id", title: "Container ID"},
				column{label: "cgroup", title: "Cgroup"},
				column{title: "Series", expr: "count by (" + by + ", qos, uid, container_id, cgroup) (kernel_gossip_container_info" + of + ")", unit: "short"},
			).size(gridWidth, 5),
		}},
	)
}
