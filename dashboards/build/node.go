package build

import (
	"fmt"

	"github.com/kernel-gossip/kernel-gossip/rules"
)

// node is everything on one machine.
func node() Dashboard {
	const (
		selector = `instance=~"$instance"`
		of       = "{" + selector + "}"
		rated    = of + "[$__rate_interval]"
		metric   = "kernel_gossip_cpu_"
		periods  = "sum by (" + by + ") (rate(" + metric + "periods_total" + rated + "))"
		ratio    = "sum by (" + by + ") (rate(" + metric + "throttled_periods_total" + rated + ")) / (" + periods + " > 0)"
		name     = "{{namespace}}/{{pod}} {{container}}"
		wait     = metric + "runqueue_wait_seconds"
	)
	waited := fmt.Sprintf("(sum by (%s) (histogram_sum(rate(%s%s))) or sum by (%s) (rate(%s_sum%s)))", by, wait, rated, by, wait, rated)
	gap := func(kind string) string {
		return "sum by (" + by + ") (" + metric + "gap_cores{" + selector + `, kind="` + kind + `"})`
	}
	return newDashboard(UIDNode, "kernel-gossip / Node",
		"All containers of a node: which are stopped by their limits, which wait for each other, and what the node's metrics do not tell.",
		[]variable{instance(usage)},
		[]annotation{alerts(selector)},
		section{"Now", []*Panel{
			stat(1, "Watched", "short", "Containers and services of the selected nodes that are watched.",
				"count(kernel_gossip_container_info"+of+")"),
			stat(2, "Throttled", "short",
				fmt.Sprintf("Containers that the kernel stops in more than %.0f %% of the periods in which they run.", 100*rules.ThrottledRatio),
				fmt.Sprintf("count((%s > %s) and %s >= %s) or 0 * count(%s)", ratio, num(rules.ThrottledRatio), periods, num(rules.ActivePeriods), periods)).
				lines(above(1, "orange")...),
			stat(3, "CPU used", cores, "CPU that the kernel counted, over all containers.", "sum(rate("+usage+rated+"))"),
			stat(4, "CPU denied", cores, "CPU that containers wanted and did not get: stopped by their limits, or waiting for each other.",
				"sum("+metric+"gap_cores{"+selector+`, kind=~"throttled|contended"})`),
			stat(5, "Limits", cores, "Sum of the CPU limits that the kernel enforces. More than the node's CPUs is usual: not all need theirs at the same time.",
				"sum("+metric+"limit_cores"+of+")"),
		}},
		section{"CPU", []*Panel{
			series(6, "Reported beside kernel", cores,
				"reported: what the cluster is told, over the containers for which it is told something. used: what the kernel counted for them. wanted: used and denied together.",
				q("reported", "sum(max by ("+by+") ("+metric+"reported_cores"+of+"))"),
				q("used", "sum(sum by ("+by+") (rate("+usage+rated+")) and on ("+by+") "+metric+"reported_cores"+of+")"),
				q("wanted", "sum("+metric+"demand_cores"+of+" and on ("+by+") "+metric+"reported_cores"+of+")")),
			series(7, "Throttled periods", "percentunit",
				fmt.Sprintf("The most throttled containers: share of the periods in which they ran that the kernel cut short. The line is where the alerts speak, %.0f %%.", 100*rules.ThrottledRatio),
				q(name, "topk(10, "+ratio+")")).share().drawn(rules.ThrottledRatio),
			series(8, "Denied by limits", cores, "CPU that limits kept from containers although the node may have had it.",
				q(name, "topk(10, "+gap("throttled")+")")).stacked(),
			series(9, "Denied by neighbours", cores,
				"CPU that containers waited for because others used it. When this is high, the node has more work than CPUs and limits are not the cause.",
				q(name, "topk(10, "+gap("contended")+")")).stacked(),
			series(10, "Threads waiting", "short",
				"How many threads, on average, could run and did not, the throttled included.",
				q(name, "topk(10, "+waited+")")).stacked(),
			series(11, "CPU used", cores, "The containers that use most CPU, as the kernel counts.",
				q(name, "topk(10, sum by ("+by+") (rate("+usage+rated+")))")).stacked(),
		}},
		section{"Memory and pressure", []*Panel{
			series(20, "Memory", "bytes", "The containers with the largest working sets, as the kernel counts: what they need, without the part of the file cache that lies idle.",
				q(name, "topk(10, sum by ("+by+") (kernel_gossip_memory_working_set_bytes"+of+"))")).stacked(),
			series(21, "Processes killed for memory", "ops", "Processes that the kernel killed because memory ran out, also those that are no container's first and that Kubernetes does not report.",
				q(name, "topk(10, sum by ("+by+") (rate(kernel_gossip_oom_kills_total"+rated+")))")),
			series(22, "Waiting for memory", "percentunit", "Time per second that allocations waited until the kernel had taken memory back, the containers with most first. memcg: at their own limit or an ancestor's. direct: because the node was short.",
				q(name+" {{kind}}", "topk(10, sum by ("+by+", kind) (histogram_sum(rate(kernel_gossip_memory_reclaim_stall_seconds"+rated+"))) or sum by ("+by+", kind) (rate(kernel_gossip_memory_reclaim_stall_seconds_sum"+rated+")))")),
			series(23, "Pressure", "percentunit", "Share of the time in which some task of a container stood still for want of a resource, the containers with most first. The kernel's own measure of scarcity (PSI); cgroup v1 keeps none by container.",
				q(name+" {{resource}}", `topk(10, sum by (`+by+`, resource) (rate(kernel_gossip_pressure_seconds_total{`+selector+`, kind="some"}[$__rate_interval])))`)).share(),
		}},
		section{"Network", []*Panel{
			series(24, "TCP segments sent again", "percentunit", fmt.Sprintf("The containers with the largest share of segments sent again, of the last 5 minutes. The line is where the alert speaks, %.0f %%.", 100*rules.NetworkRatio),
				q(name, "topk(10, container:kernel_gossip_network_retransmits:ratio_rate5m"+of+")")).share().drawn(rules.NetworkRatio),
			series(25, "Packets dropped, of no container", "ops", "Packets that the kernel dropped where the container can't be told: those without a socket in a network namespace that several share, as the node's own. By the kernel's own reason.",
				q("{{reason}}", "sum by (reason) (rate(kernel_gossip_node_network_drops_total"+rated+"))")),
		}},
		section{"Security", []*Panel{
			series(26, "What few containers should do", "short",
				"The containers with most security events of the last 10 minutes, by kind; attempts count, too. What is expected of a pod (--security.allow-file) is left out.",
				q(name+" {{event}}", "topk(10, sum by ("+by+", event) (container:kernel_gossip_security_events:increase10m"+of+") > 0)")).size(gridWidth, 7),
		}},
		section{"Containers", []*Panel{
			table(12, "Containers", "One row a container, the most throttled first. Open one for all that is known of it.",
				column{label: "namespace", title: "Namespace"},
				column{label: "pod", title: "Pod"},
				column{label: "container", title: "Container", link: toContainer()},
				column{label: "instance", title: "Node"},
				column{title: "Throttled periods", expr: ratio, unit: "percentunit", lines: throttledLines()},
				column{title: "Reported", expr: "max by (" + by + ") (" + metric + "reported_cores" + of + ")", unit: cores},
				column{title: "Used", expr: "sum by (" + by + ") (rate(" + usage + rated + "))", unit: cores},
				column{title: "Wanted", expr: "max by (" + by + ") (" + metric + "demand_cores" + of + ")", unit: cores},
				column{title: "Limit", expr: "max by (" + by + ") (" + metric + "limit_cores" + of + ")", unit: cores},
			),
		}},
	)
}
