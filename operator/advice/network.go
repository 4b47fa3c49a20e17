package advice

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/kernel-gossip/kernel-gossip/operator/signal"
)

// Actions on the network.
const (
	CheckNetworkPath    = "check_network_path"
	AcceptFaster        = "accept_faster"
	CheckRefusedService = "check_refused_service"
	RaiseReceiveBuffer  = "raise_receive_buffer"
	ReviewNetworkPolicy = "review_network_policy"
	RaiseSendLimits     = "raise_send_limits"
)

// Bands of the share of the traffic that goes wrong, in percent.
const (
	breaking  = 25
	degrading = 5
)

// network reads the evidence of network_issue (see wire.NetworkIssue). Severity is that
// of the worst share: critical from 25 % of the traffic, warning from 5 %, else info.
func network(s signal.Signal) Advice {
	v := networkView{s.Values}
	a := Advice{Severity: Info}
	for _, issue := range []struct {
		percent, count, of string
		told               string
		advise             func() []Recommendation
	}{
		{"retransmit_percent", "tcp_retransmits", "segments_sent", "TCP loses packets: %.1f%% of the segments are sent again", v.path},
		{"accept_overflow_percent", "accept_queue_overflows", "connection_attempts", "The accept queue is full: %.1f%% of the connections are turned away", v.accept},
		{"refused_percent", "connections_refused", "outgoing_attempts", "%.1f%% of the attempts to connect are refused", v.refused},
		{"drop_percent", "drops", "packets", "The kernel drops %.1f%% of the packets", v.dropped},
	} {
		percent, known := v.share(issue.percent, issue.count, issue.of)
		if !known || percent < 0.05 {
			continue
		}
		line := fmt.Sprintf(issue.told, percent)
		if n := v.get(issue.count); n > 0 {
			line += fmt.Sprintf(", %.0f", n)
			if period := v.get("period_seconds"); period > 0 {
				line += fmt.Sprintf(" in %.0f s", period)
			}
		}
		if issue.count == "drops" {
			line += v.reasons()
		}
		a.Insights = append(a.Insights, line)
		if percent < degrading {
			continue // told, and no reason to act
		}
		a.Recommendations = append(a.Recommendations, issue.advise()...)
		switch {
		case percent >= breaking:
			a.Severity = Critical
		case a.Severity == Info:
			a.Severity = Warning
		}
	}
	if len(a.Insights) == 0 {
		return named("Network issue", s.Values)
	}
	if n := v.get("resets_received"); n > 0 {
		a.Insights = append(a.Insights, fmt.Sprintf("Peers reset %.0f connections", n))
	}
	return a
}

// networkView is the evidence.
type networkView struct{ Values map[string]float64 }

// get is 0 for what is not known or makes no sense below 0.
func (v networkView) get(name string) float64 { return max(0, v.Values[name]) }

// share is given, or follows from the counts where both are known.
func (v networkView) share(percent, count, of string) (share float64, known bool) {
	if p, ok := v.Values[percent]; ok {
		return min(max(p, 0), 100), true
	}
	bad, ok := v.Values[count]
	if !ok || bad <= 0 {
		return 0, false
	}
	var all float64
	switch of {
	case "segments_sent":
		all = v.get(of)
	case "packets":
		if _, ok := v.Values["segments_sent"]; ok {
			all = bad + v.get("segments_sent") + v.get("segments_received")
		}
	default:
		if _, ok := v.Values["connections"]; ok {
			all = bad + v.get("connections")
		}
	}
	if all <= 0 {
		return 0, false
	}
	return min(100*bad/all, 100), true
}

const dropsPrefix = "drops_"

// byReason is the drops of each reason, most first.
func (v networkView) byReason() (reasons []string) {
	for _, name := range slices.Sorted(maps.Keys(v.Values)) {
		if reason, ok := strings.CutPrefix(name, dropsPrefix); ok && v.Values[name] > 0 {
			reasons = append(reasons, reason)
		}
	}
	slices.SortStableFunc(reasons, func(a, b string) int {
		return int(v.Values[dropsPrefix+b]) - int(v.Values[dropsPrefix+a])
	})
	return reasons
}

func (v networkView) reasons() string {
	var told []string
	for _, reason := range v.byReason() {
		told = append(told, fmt.Sprintf("%s %.0f", reason, v.Values[dropsPrefix+reason]))
	}
	if len(told) == 0 {
		return ""
	}
	return ": " + strings.Join(told[:min(len(told), 4)], ", ")
}

func (v networkView) path() []Recommendation {
	return []Recommendation{{Action: CheckNetworkPath, Confidence: Medium,
		Reason: "Segments or their acknowledgements are lost on the way, or come too late: look for drops on this node (node_network_*, tc -s qdisc), at the peer, and between; a MTU that is too large for an overlay loses only large packets. A peer that is throttled answers late and looks the same: see its whispers."}}
}

func (v networkView) accept() []Recommendation {
	return []Recommendation{{Action: AcceptFaster, Confidence: Medium,
		Reason: "Clients are turned away and try again a second later, while no error shows on this side. The process accepts too slowly, or its backlog is too short for bursts: raise the backlog that it passes to listen() and net.core.somaxconn, which caps it; if it is throttled or starved, see to that first; or add replicas."}}
}

func (v networkView) refused() []Recommendation {
	return []Recommendation{{Action: CheckRefusedService, Confidence: Medium,
		Reason: "Where it connects to nobody listens, or a policy answers with a reset: look for a service without ready endpoints, a wrong port, or a dependency that is still starting."}}
}

// dropped advises by the most frequent reason.
func (v networkView) dropped() []Recommendation {
	r := Recommendation{Action: CheckNetworkPath, Confidence: Low,
		Reason: "The kernel's reason says where: the names are those of enum skb_drop_reason (include/net/dropreason-core.h)."}
	if reasons := v.byReason(); len(reasons) > 0 {
		switch reasons[0] {
		case "socket_rcvbuff", "socket_backlog", "proto_mem":
			r = Recommendation{Action: RaiseReceiveBuffer, Confidence: Medium,
				Reason: "The process reads more slowly than packets come, and its socket's buffer is full: read faster, raise SO_RCVBUF and net.core.rmem_max, or see to a throttling that stops the reader."}
		case "netfilter_drop", "bpf_cgroup_egress", "tc_ingress", "tc_egress", "xfrm_policy", "ip_rpfilter":
			r = Recommendation{Action: ReviewNetworkPolicy, Confidence: Medium,
				Reason: "A filter drops them, by intent or not: look at NetworkPolicies, iptables and the CNI's programs that cover this pod."}
		case "qdisc_drop", "full_ring", "cpu_backlog":
			r = Recommendation{Action: RaiseSendLimits, Confidence: Medium,
				Reason: "A queue on the way is full: a bandwidth limit (kubernetes.io/egress-bandwidth), a qdisc that is too short (tc -s qdisc), or a node that receives more than its CPUs take (net.core.netdev_max_backlog)."}
		}
	}
	return []Recommendation{r}
}
