package build

import (
	"fmt"

	"github.com/kernel-gossip/kernel-gossip/rules"
)

// lying is the way in: which containers' metrics hide the most, and what it costs.
func lying() Dashboard {
	const (
		selector = `instance=~"$instance", namespace=~"$namespace"`
		record   = "container:kernel_gossip_cpu_"
		ratio    = record + "throttled_periods:ratio_rate5m{" + selector + "}"
		reported = record + "reported_cores:avg5m{" + selector + "}"
		used     = record + "usage_cores:rate5m{" + selector + "}"
		asked    = "max by (" + by + ") (kernel_gossip_cpu_request_cores{" + selector + "})"
		limit    = record + "limit_cores:max{" + selector + "}"
		share    = record + "reported:ratio_limit_avg5m{" + selector + "}"
		periods  = record + "periods:rate5m{" + selector + "}"
		demand   = "max by (" + by + ") (kernel_gossip_cpu_demand_cores{" + selector + "})"
		denied   = "sum by (" + by + ") (kernel_gossip_cpu_gap_cores{" + selector + `, kind=~"throttled|contended"})`
		advice   = "max by (" + by + ") (kernel_gossip_cpu_recommended_limit_cores{" + selector + "})"
		stalled  = "container:kernel_gossip_memory_stalled:ratio_rate5m{" + selector + "}"
		// How much of the limit looks free, times how often the kernel says it is not.
		lie = ratio + " * clamp(1 - " + share + ", 0, 1)"
	)
	active := fmt.Sprintf("%s >= %s", periods, num(rules.ActivePeriods))
	liars := fmt.Sprintf("(%s > %s and %s < %s and %s)", ratio, num(rules.ThrottledRatio), share, num(rules.ReportedRatio), active)
	// One figure of the containers that lie most.
	worst := func(expr string) string {
		return fmt.Sprintf("%s and on (%s) topk(50, %s)", expr, by, lie)
	}
	perNamespace := func(expr string) string { return "sum by (namespace) (" + expr + ")" }

	return newDashboard(UIDLying, "kernel-gossip / Who is lying",
		"Containers that look healthy in the usual metrics and that the kernel holds back: how far apart the two are, and what it costs. Open a container from its row.",
		[]variable{instance(usage), namespace()},
		[]annotation{whispers(`namespace=~"$namespace"`), alerts(selector)},
		section{"Now", []*Panel{
			stat(1, "Lying containers", "short",
				fmt.Sprintf("Containers whose reported CPU use is under %.0f %% of their limit while the kernel stops them in more than %.0f %% of the periods in which they run: the condition of the alert KernelGossipMetricsLie.", 100*rules.ReportedRatio, 100*rules.ThrottledRatio),
				// 0 only where something was measured.
				fmt.Sprintf("count(%s) or 0 * count(%s)", liars, periods)).lines(above(1, "red")...),
			stat(2, "CPU denied", cores,
				"CPU that containers wanted and did not get, in cores: stopped by their own limit (throttled) or waiting for a busy CPU (contended). No usage metric shows it, because what is not used is not counted.",
				"sum("+denied+")"),
			stat(3, "Throttled periods", "percentunit",
				"The kernel hands out a CPU limit in slices, usually of 100 ms. A period is throttled when the container used up its slice and was stopped until the next. This is the share of all periods over the last 5 minutes.",
				"sum("+ratio+" * "+periods+") / sum("+periods+")").lines(throttledLines()...),
			stat(4, "CPU reported", cores,
				"CPU use of the containers with a reported figure, as kubectl top would add it up.",
				"sum("+reported+")"),
			stat(5, "CPU wanted", cores,
				"What the same containers wanted: used, throttled and contended. The difference from CPU reported is what the cluster does not know about.",
				"sum("+demand+" and on ("+by+") "+reported+")"),
			stat(14, "Short of memory", "short",
				fmt.Sprintf("Containers whose tasks stood still for memory in more than %.0f %% of the last 5 minutes: the condition of the alert KernelGossipMemoryStalled. A usage below the limit does not show it.", 100*rules.StalledRatio),
				fmt.Sprintf("count(%s > %s) or 0 * count(%s)", stalled, num(rules.StalledRatio), stalled)).lines(above(1, "orange")...),
			stat(15, "Killed for memory", "short",
				"Processes that the kernel killed in the last 10 minutes because memory ran out. Kubernetes reports only those that were a container's first.",
				"sum(container:kernel_gossip_oom_kills:increase10m{"+selector+"})").lines(above(1, "red")...),
			stat(6, "Nodes watched", "short",
				"Exporters that are scraped. Containers on other nodes are not on this page.",
				`count(count by (instance) (kernel_gossip_exporter_build_info{instance=~"$instance"}))`),
		}}.each(3, 4),
		section{"The gap", []*Panel{
			table(7, "Biggest liars",
				"One row a container, the biggest lie first. Lie is the share of the limit that looks free, times the share of periods in which the kernel stopped the container: 0 when metrics and kernel agree, 1 when an idle-looking container is stopped all the time. All figures are of the last 5 minutes.",
				column{label: "namespace", title: "Namespace"},
				column{label: "pod", title: "Pod"},
				column{label: "container", title: "Container", link: toContainer()},
				column{label: "instance", title: "Node", link: toNode()},
				column{title: "Lie", expr: "topk(50, " + lie + ")", unit: "percentunit"},
				column{title: "Reported, of limit", expr: worst(share), unit: "percentunit"},
				column{title: "Throttled periods", expr: worst(ratio), unit: "percentunit", lines: throttledLines()},
				column{title: "Reported", expr: worst(reported), unit: cores},
				column{title: "Used", expr: worst(used), unit: cores},
				column{title: "Wanted", expr: worst(demand), unit: cores},
				column{title: "Limit", expr: worst(limit), unit: cores},
			),
			series(8, "Reported beside kernel", cores,
				"The sum over the selected containers of what the cluster is told (reported), what the kernel counted (used) and what the containers wanted (wanted). Used above reported is a late or averaged figure; wanted above used is CPU that was denied.",
				q("reported", "sum("+reported+")"),
				q("used", "sum("+used+" and on ("+by+") "+reported+")"),
				q("wanted", "sum("+demand+" and on ("+by+") "+reported+")")),
			series(9, "Where the gap comes from", cores,
				"Parts of the gap. throttled: stopped by the limit. contended: waiting for a CPU that others use. averaging: the busiest second minus the mean that is reported. accounting: the kernel's figure minus the reported one over the same time; near 0 when metrics are honest, and it may be negative.",
				q("{{kind}}", "sum by (kind) (kernel_gossip_cpu_gap_cores{"+selector+"})")).signed(),
			series(10, "Most throttled containers", "percentunit",
				fmt.Sprintf("Share of the periods in which the container ran and was stopped, over 5 minutes. The line is where the alerts speak, %.0f %%.", 100*rules.ThrottledRatio),
				q("{{namespace}}/{{pod}} {{container}}", "topk(10, "+ratio+")")).share().drawn(rules.ThrottledRatio).size(gridWidth, 9),
		}},
		section{"What it costs", []*Panel{
			table(11, "Cores by namespace",
				"What is paid for and what is had, over the containers that have a CPU limit. Asked: their requests, which the scheduler sets aside; only on Kubernetes. Granted: their limits. Reported: what usage metrics say. Used: what the kernel counted. Denied: wanted and not given. Recommended: limits that would throttle at most 1 % of periods; only with --collector.whatif, and only over containers for which it can be told.",
				column{label: "namespace", title: "Namespace"},
				column{title: "Asked", expr: perNamespace(asked + " and on (" + by + ") " + limit), unit: cores},
				column{title: "Granted", expr: perNamespace(limit), unit: cores},
				column{title: "Reported", expr: perNamespace(reported + " and on (" + by + ") " + limit), unit: cores},
				column{title: "Used", expr: perNamespace(used + " and on (" + by + ") " + limit), unit: cores},
				column{title: "Denied", expr: perNamespace(denied + " and on (" + by + ") " + limit), unit: cores},
				column{title: "Recommended", expr: perNamespace(advice), unit: cores},
			).size(gridWidth, 8),
			series(12, "Asked, granted, used, denied", cores,
				"Sums over the containers that have a CPU limit: their requests (asked), their limits (granted), what they used and what they were denied. Much asked and little used is set aside for nothing. Much granted, little used and still some denied means that the limit sits on the wrong containers, or that they work in bursts.",
				q("asked", "sum("+asked+" and on ("+by+") "+limit+")"),
				q("granted", "sum("+limit+")"),
				q("used", "sum("+used+" and on ("+by+") "+limit+")"),
				q("denied", "sum("+denied+" and on ("+by+") "+limit+")")),
			series(13, "Limits to move", cores,
				"From the recommended limits (--collector.whatif). to give back: granted beyond the recommendation. missing: recommended beyond what is granted. An estimate; a container for which it can't be told is in neither.",
				q("to give back", "sum(clamp_min("+limit+" - "+advice+", 0))"),
				q("missing", "sum(clamp_min("+advice+" - "+limit+", 0))")),
		}},
	)
}
