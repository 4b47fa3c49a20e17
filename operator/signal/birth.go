package signal

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"
)

func (c *Creation) validate(now time.Time) error {
	if c == nil {
		return nil
	}
	if c.Duration < 0 || c.Duration > MaxPeriod {
		return invalid("duration_ns", "must be between 0 and %d (%s)", MaxPeriod.Nanoseconds(), MaxPeriod)
	}
	for _, check := range []func() error{
		c.validateTotals, c.validateTimeline, func() error { return c.validateSyscalls(now) }, c.validateEnd,
		c.validateNamespaces, c.Network.validate, c.validateContainers, c.validateRoles,
	} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func (c *Creation) validateTotals() error {
	if err := validateCounts("", map[string]*uint64{
		"total_syscalls": &c.TotalSyscalls, "namespace_ops": &c.NamespaceOps, "cgroup_writes": &c.CgroupWrites,
		"setup_syscalls": c.SetupSyscalls, "shared_syscalls": c.SharedSyscalls, "shared_by": c.SharedBy,
		"mounts": c.Mounts, "execs": c.Execs,
	}); err != nil {
		return err
	}
	if c.SetupSyscalls != nil && *c.SetupSyscalls > c.TotalSyscalls {
		return invalid("setup_syscalls", "must be at most total_syscalls, %d, of which it is a part; got %d", c.TotalSyscalls, *c.SetupSyscalls)
	}
	if c.SharedBy != nil && *c.SharedBy == 0 {
		return invalid("shared_by", "must be at least 1, this birth")
	}
	return nil
}

func (c *Creation) validateTimeline() error {
	if len(c.Timeline) > MaxTimeline {
		return invalid("timeline", "has %d steps, at most %d are taken", len(c.Timeline), MaxTimeline)
	}
	for i, step := range c.Timeline {
		at := fmt.Sprintf("timeline[%d].", i)
		if step.Offset < -MaxPeriod || step.Offset > MaxPeriod {
			return invalid(at+"timestamp_ms", "must be between -%d and %d (%s)", MaxPeriod.Milliseconds(), MaxPeriod.Milliseconds(), MaxPeriod)
		}
		if err := validateOffsets(at, map[string]*time.Duration{"precision_ms": step.Precision, "duration_ms": step.Duration}); err != nil {
			return err
		}
		for _, t := range []struct {
			field, value string
			max          int
			required     bool
		}{{"actor", step.Actor, MaxNameBytes, true}, {"action", step.Action, MaxActionBytes, true}, {"details", step.Details, MaxDetailsBytes, false}} {
			if err := validateText(at+t.field, t.value, t.max, t.required); err != nil {
				return err
			}
		}
		if err := validateContainer(at+"container", step.Container, false); err != nil {
			return err
		}
	}
	return nil
}

func (c *Creation) validateSyscalls(now time.Time) error {
	if len(c.Syscalls) > MaxSyscalls {
		return invalid("syscalls", "has %d entries, at most %d are taken", len(c.Syscalls), MaxSyscalls)
	}
	for i, call := range c.Syscalls {
		at := fmt.Sprintf("syscalls[%d].", i)
		if !IsIdentifier(call.Name) {
			return invalid(at+"name", "%s is not a syscall's name: want a-z, 0-9 and _, at most %d bytes", quote(call.Name), MaxNameBytes)
		}
		if err := validateCounts(at, map[string]*uint64{"count": &call.Count}); err != nil {
			return err
		}
		if !call.First.IsZero() {
			if err := validateTime(at+"timestamp", call.First, now); err != nil {
				return err
			}
		}
	}
	return nil
}

// validateEnd checks what is said of how the birth ended.
func (c *Creation) validateEnd() error {
	if err := validateTexts("incomplete_reasons", c.IncompleteReasons, MaxReasons, MaxDetailsBytes); err != nil {
		return err
	}
	switch {
	case len(c.IncompleteReasons) > 0 && c.Complete != nil && *c.Complete:
		return invalid("incomplete_reasons", "are given, and complete is true")
	case c.Failure != "" && !c.Failed:
		return invalid("failure", "is given, and failed is not true")
	}
	return validateText("failure", c.Failure, MaxDetailsBytes, false)
}

func (c *Creation) validateNamespaces() error {
	kinds := []string{"mnt", "net", "pid", "uts", "ipc", "user", "cgroup", "time"}
	seen := map[string]bool{}
	for i, n := range c.Namespaces {
		at := fmt.Sprintf("namespaces[%d].", i)
		switch {
		case !slices.Contains(kinds, n.Kind):
			return invalid(at+"kind", "unknown kind %s; want one of %v", quote(n.Kind), kinds)
		case seen[n.Kind]:
			return invalid(at+"kind", "%s is listed twice", n.Kind)
		}
		seen[n.Kind] = true
		if err := validateCounts(at, map[string]*uint64{"created": &n.Created, "entered": &n.Entered}); err != nil {
			return err
		}
	}
	return nil
}

func (n *BirthNetwork) validate() error {
	if n == nil {
		return nil
	}
	for _, l := range []struct {
		field     string
		texts     []string
		max, size int
	}{
		{"network.interfaces", n.Interfaces, MaxInterfaces, MaxNameBytes},
		{"network.addresses", n.Addresses, MaxRoutes, MaxActionBytes},
		{"network.routes", n.Routes, MaxRoutes, MaxActionBytes},
	} {
		if err := validateTexts(l.field, l.texts, l.max, l.size); err != nil {
			return err
		}
	}
	return validateCounts("network.", map[string]*uint64{"firewall_rules": n.FirewallRules})
}

func (c *Creation) validateContainers() error {
	if len(c.Containers) > MaxContainers {
		return invalid("containers", "has %d entries, at most %d are taken", len(c.Containers), MaxContainers)
	}
	seen := map[string]bool{}
	for i := range c.Containers {
		x, at := &c.Containers[i], fmt.Sprintf("containers[%d].", i)
		if err := validateContainer(at+"name", x.Name, true); err != nil {
			return err
		}
		if seen[x.Name] {
			return invalid(at+"name", "%s is listed twice", x.Name)
		}
		seen[x.Name] = true
		for _, t := range []struct {
			field, value string
			max          int
		}{{"container_id", x.ContainerID, 253}, {"entrypoint", x.Entrypoint, MaxPathBytes}, {"failure", x.Failure, MaxDetailsBytes}} {
			if err := validateText(at+t.field, t.value, t.max, false); err != nil {
				return err
			}
		}
		if err := validateOffsets(at, map[string]*time.Duration{"created_ms": x.Created, "started_ms": x.Started, "entrypoint_ms": x.Entered}); err != nil {
			return err
		}
		if err := validateCounts(at, map[string]*uint64{"syscalls": x.Syscalls, "setup_syscalls": x.SetupSyscalls}); err != nil {
			return err
		}
		if x.SetupSyscalls != nil && x.Syscalls != nil && *x.SetupSyscalls > *x.Syscalls {
			return invalid(at+"setup_syscalls", "must be at most syscalls, %d, of which it is a part; got %d", *x.Syscalls, *x.SetupSyscalls)
		}
	}
	return nil
}

func (c *Creation) validateRoles() error {
	if len(c.Roles) > MaxRoles {
		return invalid("roles", "has %d entries, at most %d are taken", len(c.Roles), MaxRoles)
	}
	for i, r := range c.Roles {
		at := fmt.Sprintf("roles[%d].", i)
		if err := validateText(at+"role", r.Role, MaxNameBytes, true); err != nil {
			return err
		}
		if err := validateContainer(at+"container", r.Container, false); err != nil {
			return err
		}
		if err := validateCounts(at, map[string]*uint64{"syscalls": &r.Syscalls}); err != nil {
			return err
		}
	}
	return nil
}

func validateContainer(field, name string, required bool) error {
	if name == "" && !required {
		return nil
	}
	if problems := validation.IsDNS1123Label(name); len(problems) > 0 {
		return invalid(field, "%s is not a valid name: %s", quote(name), problems[0])
	}
	return nil
}

// validateCounts takes what fits an int64, as the API server's integers do. A nil
// count was not given.
func validateCounts(at string, counts map[string]*uint64) error {
	for _, field := range slices.Sorted(maps.Keys(counts)) {
		if n := counts[field]; n != nil && *n > math.MaxInt64 {
			return invalid(at+field, "must be at most %d, got %d", int64(math.MaxInt64), *n)
		}
	}
	return nil
}

func validateOffsets(at string, offsets map[string]*time.Duration) error {
	for _, field := range slices.Sorted(maps.Keys(offsets)) {
		if d := offsets[field]; d != nil && (*d < 0 || *d > MaxPeriod) {
			return invalid(at+field, "must be between 0 and %d (%s)", MaxPeriod.Milliseconds(), MaxPeriod)
		}
	}
	return nil
}

func validateTexts(field string, texts []string, most, size int) error {
	if len(texts) > most {
		return invalid(field, "has %d entries, at most %d are taken", len(texts), most)
	}
	for i, text := range texts {
		if err := validateText(fmt.Sprintf("%s[%d]", field, i), text, size, true); err != nil {
			return err
		}
	}
	return nil
}
