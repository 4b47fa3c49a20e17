package build

import "fmt"

// births is how pods come to life on the nodes.
func births() Dashboard {
	const (
		selector = `instance=~"$instance"`
		of       = "{" + selector + "}"
		total    = `{` + selector + `, stage="total"}`
		births   = "kernel_gossip_pod_births_total"
		duration = "kernel_gossip_pod_birth_duration_seconds"
		calls    = "kernel_gossip_pod_birth_syscalls"
		ever     = calls + `{` + selector + `, kind="total"}`
	)
	const window = "[$__rate_interval]"
	quantile := func(at float64, name, of string, by string) string {
		grouping, le := " ", " by (le) "
		if by != "" {
			grouping, le = " by ("+by+") ", " by (le, "+by+") "
		}
		return fmt.Sprintf("histogram_quantile(%s, sum%s(rate(%s%s%s))) or histogram_quantile(%s, sum%s(rate(%s_bucket%s%s)))",
			num(at), grouping, name, of, window, num(at), le, name, of, window)
	}
	mean := func(name, of, by string) string {
		return fmt.Sprintf("(sum by (%[3]s) (histogram_sum(rate(%[1]s%[2]s%[4]s))) / sum by (%[3]s) (histogram_count(rate(%[1]s%[2]s%[4]s)) > 0)) or (sum by (%[3]s) (rate(%[1]s_sum%[2]s%[4]s)) / sum by (%[3]s) (rate(%[1]s_count%[2]s%[4]s) > 0))",
			name, of, by, window)
	}
	// Births are rare; a window that is short has none.
	since := func(at float64) string {
		return fmt.Sprintf("histogram_quantile(%s, sum(%s%s)) or histogram_quantile(%s, sum by (le) (%s_bucket%s))", num(at), duration, total, num(at), duration, total)
	}
	return newDashboard(UIDBirths, "kernel-gossip / Births",
		"How pods come to life, by the kernel's word: how long each stage takes, what it costs in system calls, and which births fail. What one birth was like is in its PodBirthCertificate, and the operator draws it at /birth/.",
		[]variable{instance(births)},
		nil,
		section{"Now", []*Panel{
			stat(1, "Births", "short", "Pods, or off-cluster containers, whose birth was followed to its end since the exporters started.",
				"sum(histogram_count("+ever+")) or sum("+calls+`_count{`+selector+`, kind="total"})`),
			stat(panelBirthsFailed, "Failed, last hour", "short", "Births of the last hour in which a container never reached its entrypoint: `kubectl get pbc -A` shows which, and its certificate why.",
				"sum(instance:kernel_gossip_pod_births_failed:increase1h"+of+")").lines(above(1, "red")...),
			stat(3, "Half are faster than", "s", "Median since the exporters started, from the first sign of a pod on its node to its last entrypoint. Init containers and image pulls are in it.",
				since(0.5)),
			stat(4, "One in twenty is slower", "s", "95th percentile since the exporters started.",
				since(0.95)),
			stat(5, "In flight", "short", "Births that are being followed now.", "sum(kernel_gossip_pod_births_in_flight"+of+")"),
		}},
		section{"Where the time goes", []*Panel{
			series(7, "Mean time of each stage", "s",
				"prepare: from the pod's cgroup to the first process of the runtime or of CNI; volumes are mounted here. network: the CNI plugins. sandbox, container: from the runtime's create to the entrypoint. What is left to total is between them: image pulls, init containers at work, the kubelet's own waits.",
				q("{{stage}}", mean(duration, of, "stage"))),
			series(8, "Slow ones, by stage", "s", "95th percentile of each stage: one birth of twenty takes longer in it.",
				q("{{stage}}", quantile(0.95, duration, of, "stage"))),
			heat(9, "How long births take", "s", "Each column is a moment, each row a length of time from the first sign to the last entrypoint: the brighter, the more often.",
				q("", "sum(rate("+duration+total+window+")) or sum by (le) (rate("+duration+"_bucket"+total+window+"))")),
			series(10, "Slowest nodes", "s", "95th percentile by node, the ten highest.",
				q("{{instance}}", "topk(10, "+quantile(0.95, duration, total, "instance")+")")),
		}},
		section{"What it costs", []*Panel{
			series(11, "System calls of a birth", "short",
				"Mean number. total: all that a birth's own processes make. setup: without what a process does for itself wherever it runs, such as threads, signals, memory and waiting, which varies with the load. Work of daemons for several births at once is in neither.",
				q("{{kind}}", mean(calls, of, "kind"))),
			heat(14, "How many system calls births make", "short", "Each column is a moment, each row a number of calls, by powers of two: the brighter, the more births made so many.",
				q("", "sum(rate("+ever+window+")) or sum by (le) (rate("+calls+`_bucket{`+selector+`, kind="total"}`+window+"))")),
			series(12, "Births by result", "short",
				"complete: all of it was seen. incomplete: some was not, and the certificate says what. failed: a container never reached its entrypoint.",
				q("{{result}}", "sum by (result) (increase("+births+of+window+"))")).stacked(),
			series(13, "Not followed", "short",
				"Births that were not followed because too many were in flight at once: they have no certificate.",
				q("not followed", "sum(increase(kernel_gossip_pod_births_refused_total"+of+window+"))")),
		}},
	)
}
