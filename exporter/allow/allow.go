// Package allow tells which security events are expected of a container. What is
// allowed is counted like the rest, and makes no whisper and no alert.
package allow

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/yaml"

	"github.com/kernel-gossip/kernel-gossip/bpf"
)

// All is the name that stands for every event.
const All = "*"

// maxRules bounds what each container of each sample is held against.
const maxRules = 256

// Rule allows events to pods. A pod must be in one of the namespaces and have all of
// the labels.
type Rule struct {
	// Namespaces by name; required, for a label is whatever who makes the pod writes.
	Namespaces []string `json:"namespaces"`
	// Labels of the pod; none: every pod.
	Labels map[string]string `json:"labels,omitempty"`
	// Events by name, as the metric's label event has them, or "*".
	Events []string `json:"events"`
}

// File is what is read of --security.allow-file.
type File struct {
	// Defaults is whether the rules of Defaults apply, too; when left out they do.
	Defaults *bool  `json:"defaults,omitempty"`
	Rules    []Rule `json:"rules"`
}

// List is the rules in effect. The zero List allows nothing.
type List struct{ rules []rule }

type rule struct {
	namespaces map[string]bool
	labels     map[string]string
	events     [bpf.SecurityEvents]bool
}

// Defaults allow what the cluster's own agents do: CNI and storage agents and kube-proxy
// make and enter namespaces, mount, load modules and BPF programs. They have no leave to
// trace, to gain privileges or to write where the kernel starts programs from.
func Defaults() []Rule {
	agents := []string{
		bpf.SecuritySetns.String(), bpf.SecurityUnshare.String(), bpf.SecurityClone.String(),
		bpf.SecurityMount.String(), bpf.SecurityBPF.String(), bpf.SecurityModuleLoad.String(),
	}
	return []Rule{
		{Namespaces: []string{"kube-system", "kube-flannel", "calico-system", "cilium", "longhorn-system", "rook-ceph"}, Events: agents},
		{
			Namespaces: []string{"kernel-gossip", "kernel-gossip-node"},
			Labels:     map[string]string{"app.kubernetes.io/name": "kernel-gossip-exporter"},
			Events:     []string{bpf.SecurityBPF.String()},
		},
	}
}

// Read takes the rules of a YAML file; without a path the defaults alone. Errors name
// the field.
func Read(path string) (*List, error) {
	if path == "" {
		return New(Defaults())
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the rules: %w", err)
	}
	return Parse(b)
}

// Parse is Read of a file's content.
func Parse(b []byte) (*List, error) {
	var f File
	if err := yaml.UnmarshalStrict(b, &f); err != nil {
		return nil, fmt.Errorf("parsing the rules: %w", err)
	}
	l, err := New(f.Rules)
	if err != nil {
		return nil, err
	}
	if f.Defaults == nil || *f.Defaults {
		defaults, err := New(Defaults())
		if err != nil {
			return nil, err
		}
		l.rules = append(l.rules, defaults.rules...)
	}
	return l, nil
}

// New makes a List, or says which field of which rule is wrong.
func New(rules []Rule) (*List, error) {
	if len(rules) > maxRules {
		return nil, fmt.Errorf("rules: there are %d, at most %d are taken", len(rules), maxRules)
	}
	l := &List{}
	for i, r := range rules {
		compiled, err := r.compile()
		if err != nil {
			return nil, fmt.Errorf("rules[%d].%w", i, err)
		}
		l.rules = append(l.rules, compiled)
	}
	return l, nil
}

func (r Rule) compile() (rule, error) {
	out := rule{namespaces: make(map[string]bool, len(r.Namespaces)), labels: maps.Clone(r.Labels)}
	if len(r.Namespaces) == 0 {
		return out, fmt.Errorf("namespaces: name at least one")
	}
	for i, n := range r.Namespaces {
		if problems := validation.IsDNS1123Label(n); len(problems) > 0 {
			return out, fmt.Errorf("namespaces[%d]: %q is not a namespace's name: %s", i, n, problems[0])
		}
		out.namespaces[n] = true
	}
	for _, key := range slices.Sorted(maps.Keys(r.Labels)) {
		if problems := validation.IsQualifiedName(key); len(problems) > 0 {
			return out, fmt.Errorf("labels: %q is not a label's name: %s", key, problems[0])
		}
		if problems := validation.IsValidLabelValue(r.Labels[key]); len(problems) > 0 {
			return out, fmt.Errorf("labels.%s: %q is not a label's value: %s", key, r.Labels[key], problems[0])
		}
	}
	if len(r.Events) == 0 {
		return out, fmt.Errorf("events: name at least one of %s, or %q for all", strings.Join(names(), ", "), All)
	}
	for i, name := range r.Events {
		at := slices.Index(names(), name)
		switch {
		case name == All:
			for e := range out.events {
				out.events[e] = true
			}
		case at < 0:
			return out, fmt.Errorf("events[%d]: there is no event %q; want one of %s, or %q for all", i, name, strings.Join(names(), ", "), All)
		default:
			out.events[at] = true
		}
	}
	return out, nil
}

func names() []string {
	out := make([]string, bpf.SecurityEvents)
	for e := range bpf.SecurityEvents {
		out[e] = e.String()
	}
	return out
}

// Events are those that are allowed to a pod; none to what is in no namespace.
func (l *List) Events(namespace string, labels map[string]string) (allowed [bpf.SecurityEvents]bool) {
	if l == nil || namespace == "" {
		return allowed
	}
	for _, r := range l.rules {
		if !r.namespaces[namespace] || !r.matches(labels) {
			continue
		}
		for e, yes := range r.events {
			allowed[e] = allowed[e] || yes
		}
	}
	return allowed
}

func (r rule) matches(labels map[string]string) bool {
	for key, value := range r.labels {
		if got, ok := labels[key]; !ok || got != value {
			return false
		}
	}
	return true
}
