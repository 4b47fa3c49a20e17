package advice

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/kernel-gossip/kernel-gossip/operator/signal"
)

// Actions on security.
const (
	InvestigateProcess         = "investigate_process"
	DropCapabilities           = "drop_capabilities"
	ApplySeccompProfile        = "apply_seccomp_profile"
	DisallowPrivilegeGain      = "disallow_privilege_escalation"
	ReadOnlyRootFilesystem     = "read_only_root_filesystem"
	RunUnprivileged            = "run_unprivileged"
	AllowExpectedSecurityEvent = "allow_security_event"
)

// securityKind is what one event means.
type securityKind struct {
	severity Severity
	told     string
	advise   []Recommendation
}

func seccomp() Recommendation {
	return Recommendation{Action: ApplySeccompProfile, SuggestedValue: "RuntimeDefault", Confidence: High,
		Reason: "The runtime's seccomp profile refuses these calls to a container without the capability for them: securityContext.seccompProfile.type."}
}

func drop(capability, why string) Recommendation {
	return Recommendation{Action: DropCapabilities, SuggestedValue: capability, Confidence: Medium,
		Reason: why + " Drop it in securityContext.capabilities, or all and add what is needed; a privileged container has it always."}
}

// securityKinds are the events by name. Severity: critical is what reaches the node's
// kernel or makes it start a program; warning what leads out of the container or past its
// image; info what an application may do for a sandbox of its own.
func securityKinds() map[string]securityKind {
	admin := drop("SYS_ADMIN", "The call needs CAP_SYS_ADMIN, with which there are many ways out of a container.")
	node := Recommendation{Action: RunUnprivileged, Confidence: High,
		Reason: "Only a privileged container, or one with the node's files mounted for writing, can do that: take privileged and the hostPath away, and have Pod Security admission refuse them."}
	return map[string]securityKind{
		"setns":               {Warning, "enters a namespace", []Recommendation{admin, seccomp()}},
		"unshare":             {Info, "makes namespaces (unshare)", []Recommendation{seccomp()}},
		"clone":               {Info, "starts a process in namespaces of its own (clone)", []Recommendation{seccomp()}},
		"mount":               {Warning, "mounts", []Recommendation{admin, seccomp()}},
		"ptrace":              {Warning, "traces a process (ptrace)", []Recommendation{drop("SYS_PTRACE", "Tracing a process that is not one's own needs CAP_SYS_PTRACE, and with it its memory and secrets can be had.")}},
		"module_load":         {Critical, "loads a kernel module", []Recommendation{node, drop("SYS_MODULE", "Loading a module needs CAP_SYS_MODULE, and a module is the kernel.")}},
		"bpf":                 {Warning, "uses BPF", []Recommendation{drop("BPF", "The call needs CAP_BPF or CAP_SYS_ADMIN for nearly all that it does, and sees and changes what other containers do."), seccomp()}},
		"exec_outside_image":  {Warning, "executes a file that its image does not have", []Recommendation{{Action: ReadOnlyRootFilesystem, SuggestedValue: "readOnlyRootFilesystem: true", Confidence: High, Reason: "A program that was written after the container had begun can't be there when the root filesystem can't be written; put what must be into a volume."}}},
		"privilege_gain":      {Warning, "gains privileges", []Recommendation{{Action: DisallowPrivilegeGain, SuggestedValue: "allowPrivilegeEscalation: false", Confidence: High, Reason: "With it (no_new_privs) a setuid program or file capabilities give nothing to who executes them; and run as a user other than root."}}},
		"release_agent_write": {Critical, "opens a cgroup's release_agent for writing", []Recommendation{node}},
		"core_pattern_write":  {Critical, "opens core_pattern for writing", []Recommendation{node}},
	}
}

func rank(s Severity) int { return slices.Index([]Severity{Info, Warning, Critical}, s) }

// SecuritySeverity is that of an event by its name: Warning for one that is not known.
func SecuritySeverity(event string) Severity {
	if k, ok := securityKinds()[event]; ok {
		return k.severity
	}
	return Warning
}

// security reads the evidence of security_event (see wire.SecurityEvent). Severity is
// that of the gravest event.
func security(s signal.Signal) Advice {
	kinds := securityKinds()
	var events []string
	for name, n := range s.Values {
		if _, known := kinds[name]; known && n > 0 {
			events = append(events, name)
		}
	}
	if len(events) == 0 {
		return named("Security event", s.Values)
	}
	// The gravest first.
	slices.SortFunc(events, func(a, b string) int {
		if d := rank(kinds[b].severity) - rank(kinds[a].severity); d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
	a := Advice{Severity: kinds[events[0]].severity}
	if period := s.Values["period_seconds"]; period > 0 {
		a.Insights = append(a.Insights, fmt.Sprintf("The container does what few should, %s", within(period)))
	}
	advised := map[string]bool{}
	var recommendations []Recommendation
	for _, event := range events {
		a.Insights = append(a.Insights, fmt.Sprintf("It %s: %s, %.0f times or attempts", kinds[event].told, event, s.Values[event]))
		for _, r := range kinds[event].advise {
			if key := r.Action + r.SuggestedValue; !advised[key] {
				advised[key] = true
				recommendations = append(recommendations, r)
			}
		}
	}
	investigate := Recommendation{Action: InvestigateProcess, Confidence: High,
		Reason: "Find out who asked for it before anything else: keep the pod, and look at the process and its parents, at the image, and at who may exec into the pod."}
	if p := s.Process; p != nil {
		a.Insights = append(a.Insights, who(p))
		investigate.SuggestedValue = atMost(p.Comm, 64)
	}
	a.Recommendations = append(a.Recommendations, investigate)
	a.Recommendations = append(a.Recommendations, recommendations...)
	a.Recommendations = append(a.Recommendations, Recommendation{Action: AllowExpectedSecurityEvent, SuggestedValue: atMost(strings.Join(events, ","), 64), Confidence: Low,
		Reason: "If it is what this workload is for, say so in the exporter's --security.allow-file by namespace and label: it is still counted, and no longer told."})
	return a
}

func within(seconds float64) string { return fmt.Sprintf("in %.0f s", max(seconds, 1)) }

// who tells of the process that did it, as it called itself.
func who(p *signal.Process) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Last %s by %s", p.Event, orUnknown(p.Binary))
	var parts []string
	if p.Comm != "" {
		parts = append(parts, p.Comm)
	}
	if p.PID != nil {
		parts = append(parts, fmt.Sprintf("pid %d", *p.PID))
	}
	if p.UID != nil {
		parts = append(parts, fmt.Sprintf("uid %d", *p.UID))
	}
	if len(parts) > 0 {
		fmt.Fprintf(&b, " (%s)", strings.Join(parts, ", "))
	}
	if len(p.Ancestry) > 0 {
		fmt.Fprintf(&b, ", child of %s", strings.Join(p.Ancestry, " of "))
	}
	if p.Detail != "" {
		fmt.Fprintf(&b, ": %s", p.Detail)
	}
	return atMost(b.String(), 1024)
}

func orUnknown(path string) string {
	if path == "" {
		return "a process"
	}
	return path
}

// atMost keeps whole characters.
func atMost(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "")
}

// KnownSecurityEvents are the names that the advice knows, in order.
func KnownSecurityEvents() []string { return slices.Sorted(maps.Keys(securityKinds())) }
