package build

import "github.com/kernel-gossip/kernel-gossip/rules"

// UIDs of the dashboards; alerts and bookmarks name them, so they stay.
const (
	UIDLying     = "kernel-gossip-lying"
	UIDContainer = "kernel-gossip-container"
	UIDNode      = "kernel-gossip-node"
	UIDBirths    = "kernel-gossip-births"
	UIDSelf      = "kernel-gossip-self"
)

// Panels that alerts link to, by their identifier in their dashboard.
const (
	panelThrottled     = 8  // Container
	panelStarved       = 14 // Container
	panelKilled        = 31 // Container
	panelMemoryStalled = 35 // Container
	panelNetwork       = 40 // Container
	panelDrops         = 41 // Container
	panelBirthsFailed  = 2  // Births
	panelSecurity      = 50 // Container
)

// All is every dashboard.
func All() []Dashboard {
	return []Dashboard{lying(), container(), node(), births(), self()}
}

// newDashboard is a dashboard with what all have in common.
func newDashboard(uid, title, description string, variables []variable, annotations []annotation, sections ...section) Dashboard {
	d := Dashboard{
		UID: uid, Title: title, Description: description, Tags: []string{tag},
		GraphTooltip: 1, Refresh: "30s", SchemaVersion: 39, Timezone: "browser",
		Time:        timeRange{From: "now-1h", To: "now"},
		Annotations: list{List: []any{}},
		Links: []menu{{Title: "kernel-gossip", Type: "dashboards", Tags: []string{tag}, Icon: "external link",
			Tooltip: "The other dashboards of kernel-gossip", AsDropdown: true, IncludeVars: true, KeepTime: true}},
		Panels: lay(sections...),
	}
	for _, a := range annotations {
		d.Annotations.List = append(d.Annotations.List, a)
	}
	d.Templating.List = append(d.Templating.List, variable{
		Name: "datasource", Label: "Data source", Type: "datasource", Query: "prometheus",
	})
	for _, v := range variables {
		d.Templating.List = append(d.Templating.List, v)
	}
	return d
}

// choice is a variable of a label's values; all is what stands for every value, or
// empty where one must be chosen.
func choice(name, label, metric, all string) variable {
	ds := prometheus()
	expr := "label_values(" + metric + ", " + name + ")"
	v := variable{
		Name: name, Label: label, Type: "query", Query: expr, Definition: expr, Datasource: &ds,
		Refresh: 2, Sort: 1, // with the time range; by name
	}
	if all != "" {
		v.IncludeAll, v.Multi, v.AllValue = true, true, all
		v.Current = &current{Text: "All", Value: "$__all"}
	}
	return v
}

const usage = "kernel_gossip_cpu_usage_seconds_total"

func instance(metric string) variable { return choice("instance", "Instance", metric, ".+") }

// namespace can be empty: cgroups outside Kubernetes have none.
func namespace() variable {
	return choice("namespace", "Namespace", usage+`{instance=~"$instance"}`, ".*")
}

// by is what names a container.
const by = "namespace, pod, container, instance"

// whispers marks while the operator has a KernelWhisper about what is shown, which the
// exporter's event brings within seconds. The operator's instance is none of a node's.
func whispers(selector string) annotation {
	return annotation{
		Name: "Whispers", Datasource: prometheus(), Enable: true, IconColor: "orange", Step: "60s",
		Expr:        "max by (namespace, pod, container, signal_type, severity) (kernel_gossip_operator_active_whispers{" + selector + "})",
		TitleFormat: "KernelWhisper: {{signal_type}}", TextFormat: "{{severity}}: {{namespace}}/{{pod}} {{container}}", TagKeys: "signal_type,severity",
	}
}

// alerts marks while an alert about what is shown fires.
func alerts(selector string) annotation {
	return annotation{
		Name: "Alerts", Datasource: prometheus(), Enable: true, IconColor: "red", Step: "60s",
		Expr:        `ALERTS{alertname=~"KernelGossip.+", alertstate="firing", ` + selector + `}`,
		TitleFormat: "{{alertname}}", TextFormat: "{{severity}}: {{namespace}}/{{pod}} {{container}}", TagKeys: "alertname,severity",
	}
}

// toContainer opens a row's container.
func toContainer() *link {
	return &link{
		Title: "Open the container",
		URL: "/d/" + UIDContainer + "?${datasource:queryparam}&${__url_time_range}" +
			"&var-instance=${__data.fields.Node}&var-namespace=${__data.fields.Namespace}" +
			"&var-pod=${__data.fields.Pod}&var-container=${__data.fields.Container}",
	}
}

func toNode() *link {
	return &link{
		Title: "Open the node",
		URL:   "/d/" + UIDNode + "?${datasource:queryparam}&${__url_time_range}&var-instance=${__data.fields.Node}",
	}
}

// throttledLines are green, then orange where the alerts speak, then red where the
// fastest burn rate does.
func throttledLines() []step {
	return append(above(rules.ThrottledRatio, "orange"), step{Color: "red", Value: ptr(rules.BurnRates()["1h"] * rules.BurnBudget)})
}
