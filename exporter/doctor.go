package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kernel-gossip/kernel-gossip/bpf"
	"github.com/kernel-gossip/kernel-gossip/exporter/cgroup"
	"github.com/kernel-gossip/kernel-gossip/exporter/kube"
)

// finding is one thing that this machine can or can't measure.
type finding struct {
	What string `json:"what"`
	OK   bool   `json:"ok"`
	// Untried tells that there was nothing to try it on.
	Untried bool `json:"untried,omitempty"`

	How  string `json:"how"`            // how it is measured, or why it is not
	Lost string `json:"lost,omitempty"` // what is missing because of it
	Fix  string `json:"fix,omitempty"`
}

const lostEverything = "everything"

// doctor tries everything that run would use, and tells what came of it.
func doctor(ctx context.Context, o *options, out io.Writer) error {
	if err := o.validate(); err != nil {
		return err
	}
	findings := append(o.examineCgroups(), o.examineProbes(ctx)...)
	findings = append(findings, o.examineKubernetes(ctx)...)
	if o.doctorJSON {
		enc := json.NewEncoder(out)
		enc.SetIndent("", "  ")
		if err := enc.Encode(findings); err != nil {
			return fmt.Errorf("printing: %w", err)
		}
	} else {
		var uts unix.Utsname
		if err := unix.Uname(&uts); err == nil {
			fmt.Fprintf(out, "Linux %s on %s\n\n", unix.ByteSliceToString(uts.Release[:]), unix.ByteSliceToString(uts.Machine[:]))
		}
		if err := printFindings(out, findings); err != nil {
			return fmt.Errorf("printing: %w", err)
		}
	}
	if slices.ContainsFunc(findings, func(f finding) bool { return f.Lost == lostEverything }) {
		return errors.New("nothing can be measured here")
	}
	return nil
}

func printFindings(out io.Writer, findings []finding) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	var missing, untried int
	var blind bool
	for _, f := range findings {
		mark := "yes"
		switch {
		case f.Untried:
			mark = "?"
			untried++
		case !f.OK:
			mark = "NO"
			missing++
			blind = blind || f.Lost == lostEverything
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", f.What, mark, f.How)
		if f.Lost != "" {
			fmt.Fprintf(w, "\t\tlost: %s\n", f.Lost)
		}
		if f.Fix != "" {
			fmt.Fprintf(w, "\t\tfix: %s\n", f.Fix)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	verdict := "All of it can be had here."
	switch {
	case blind:
		return nil // the error says it
	case missing > 0:
		verdict = fmt.Sprintf("%d of %d can't be had here; the rest works without.", missing, len(findings))
	case untried > 0:
		verdict = "All that could be tried can be had here."
	}
	if untried > 0 {
		verdict += fmt.Sprintf("\n%d could not be tried: start a container or a service, then ask again.", untried)
	}
	_, err := fmt.Fprintf(out, "\n%s\n", verdict)
	return err
}

func (o *options) examineCgroups() []finding {
	tree, err := cgroup.Open(cgroup.Config{Log: o.log, Root: o.cgroupRoot, ProcFS: o.procFS, SysFS: o.sysFS})
	if err != nil {
		return []finding{{What: "cgroups", How: err.Error(), Lost: lostEverything,
			Fix: "mount the host's /sys/fs/cgroup and name it by --cgroup.root"}}
	}
	defer tree.Close()
	mounts, groups := tree.Mounts(), tree.Groups()
	found := finding{What: "cgroups", OK: mounts.Partial == "",
		How: fmt.Sprintf("%s at %s, %d containers and services", mounts.Layout(), mounts.CPU, len(groups))}
	if mounts.Partial != "" {
		found.How = mounts.Partial
		found.Lost = "every container outside of this view"
		found.Fix = "mount the host's cgroup tree (hostPath /sys/fs/cgroup), not a namespace's view of it, and name it by --cgroup.root"
	}
	findings := []finding{found}

	var usage, bandwidth, local, limited, memory, pressure int
	for _, g := range groups {
		stat, err := tree.CPU(g)
		if err != nil {
			continue // gone, or told below by the counts
		}
		if stat.HasUsage {
			usage++
		}
		if stat.HasBandwidth {
			bandwidth++
		}
		if stat.HierarchicalThrottledTime != nil {
			local++
		}
		if _, ok, err := tree.Memory(g); err == nil && ok {
			memory++
		}
		if p, err := tree.Pressure(g); err == nil && p.Memory.HasSome {
			pressure++
		}
		if limit, err := tree.Limit(g); err == nil {
			if _, ok := limit.Cores(); ok {
				limited++
			}
		}
	}
	tell := func(what string, n int, lost, fix string) {
		f := finding{What: what, OK: n > 0, How: fmt.Sprintf("for %d of %d cgroups", n, len(groups))}
		if !f.OK {
			f.Lost, f.Fix = lost, fix
		}
		if len(groups) == 0 {
			f = finding{What: what, Untried: true, How: "there is no container or service to try it on"}
		}
		findings = append(findings, f)
	}
	tell("CPU usage", usage, "cpu_usage_seconds_total and the parts of the gap",
		"on cgroup v1 create the cgroup in the cpuacct hierarchy, too, as container runtimes do")
	tell("throttle counters", bandwidth, "cpu_periods_total, cpu_throttled_*",
		"enable the cpu controller for the cgroups (cgroup.subtree_control) on a kernel with CONFIG_CFS_BANDWIDTH")
	tell("throttling by an ancestor", local, "cpu_hierarchical_throttled_seconds_total", "run a kernel of 6.6 or later (cpu.stat.local)")
	tell("memory", memory, "memory_usage_bytes, memory_working_set_bytes, memory_events_total",
		"enable the memory controller for the cgroups (cgroup.subtree_control; cgroup_enable=memory on the kernel's command line where it is off)")
	tell("pressure", pressure, "pressure_seconds_total; whispers about memory then rest on reclaim stalls",
		"cgroup v2 on a kernel with CONFIG_PSI, and psi=1 on its command line where that is off")
	if len(groups) == 0 {
		return findings
	}
	findings = append(findings, finding{What: "CPU limits", OK: true, How: fmt.Sprintf("%d of %d cgroups have one; only these can be throttled", limited, len(groups))})
	return findings
}

func (o *options) examineProbes(ctx context.Context) []finding {
	// The table tells what the log would.
	tracer := bpf.Open(ctx, bpf.Config{Log: slog.New(slog.DiscardHandler), Probes: o.collectors.Probes(), SyscallNames: o.syscallNames(), MaxGroups: o.maxGroups, ProcFS: o.procFS})
	defer tracer.Close()
	var findings []finding
	for _, s := range tracer.Status() {
		f := finding{What: "probe " + string(s.Probe), OK: s.Attached, How: s.Mode, Lost: s.Lost}
		if !s.Attached {
			f.How, f.Fix = s.Reason, fixFor(s)
		}
		findings = append(findings, f)
	}
	stats := filepath.Join(o.procFS, "sys/kernel/bpf_stats_enabled")
	if b, err := os.ReadFile(stats); err != nil || strings.TrimSpace(string(b)) != "1" {
		f := finding{What: "cost of the probes", How: "kernel.bpf_stats_enabled is off", Lost: "exporter_bpf_run_seconds_total, exporter_bpf_runs_total",
			Fix: "sysctl kernel.bpf_stats_enabled=1, at some ns a run"}
		if err != nil {
			f.How, f.Fix = err.Error(), "run a kernel of 5.1 or later"
		}
		findings = append(findings, f)
	} else {
		findings = append(findings, finding{What: "cost of the probes", OK: true, How: "kernel.bpf_stats_enabled is on"})
	}
	return findings
}

// fixFor turns the requirement that a probe's reason names into something to do.
func fixFor(s bpf.Status) string {
	reason := s.Reason
	switch {
	case strings.Contains(reason, "CAP_BPF"):
		return "run as root, or with CAP_BPF and CAP_PERFMON (in Kubernetes: securityContext.capabilities.add)"
	case strings.Contains(reason, "BTF"):
		return "run a kernel built with CONFIG_DEBUG_INFO_BTF, as distributions do since about 5.10"
	case strings.Contains(reason, "lockdown") || strings.Contains(reason, "locked down"):
		return "boot with lockdown=integrity or without lockdown"
	case strings.Contains(reason, "fentry"):
		return "none on this kernel: counters from cpu.stat and cpu_denied_period_seconds still tell of throttling"
	case strings.Contains(reason, "seccomp"):
		return "allow the bpf system call in the seccomp profile and the LSM, and raise RLIMIT_MEMLOCK on kernels before 5.11"
	case strings.Contains(reason, "memory"):
		return "lower --bpf.max-cgroups"
	}
	return "run a kernel that has it; everything else goes on without"
}

func (o *options) examineKubernetes(ctx context.Context) []finding {
	client, err := o.kubernetesClient()
	if err != nil {
		return []finding{{What: "Kubernetes", How: err.Error(), Lost: "names of namespaces, pods and containers",
			Fix: "see the flags --kubernetes, --kubeconfig and --node-name"}}
	}
	if client == nil {
		why := "off-cluster: containers go by their cgroup path, the reported figure is emulated"
		return []finding{{What: "Kubernetes", OK: true, How: why}}
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return []finding{o.examinePods(ctx, client), o.examineKubelet(ctx, client)}
}

func (o *options) examinePods(ctx context.Context, client *kube.Client) finding {
	f := finding{What: "names of pods"}
	list, err := client.Pods().List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=" + o.node, Limit: 500})
	switch {
	case err != nil:
		f.How, f.Lost = err.Error(), "names: containers go by their cgroup path"
		f.Fix = "allow the service account to list and watch pods, and reach the API server"
	case len(list.Items) == 0:
		f.How, f.Lost = fmt.Sprintf("no pod runs on a node named %q", o.node), "names: containers go by their cgroup path"
		f.Fix = "set --node-name to the name that kubectl get nodes shows"
	default:
		f.OK, f.How = true, fmt.Sprintf("%d pods on node %s", len(list.Items), o.node)
	}
	return f
}

func (o *options) examineKubelet(ctx context.Context, client *kube.Client) finding {
	f := finding{What: "reported figures", Lost: "cpu_reported_cores and cpu_gap_cores{kind=\"accounting\"}"}
	kubelet, err := o.openKubelet(client)
	if err == nil {
		err = kubelet.Check(ctx)
	}
	if err != nil {
		f.How = err.Error()
		f.Fix = "allow the service account nodes/metrics, and give --kubelet.ca-file or --kubelet.insecure-skip-verify"
		return f
	}
	return finding{What: f.What, OK: true, How: "kubelet of node " + o.node}
}
