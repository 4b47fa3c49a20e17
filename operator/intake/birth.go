package intake

import (
	"math"
	"time"

	"github.com/kernel-gossip/kernel-gossip/operator/signal"
)

// unixMs is an offset that can only be a Unix time in milliseconds (1973).
const unixMs = 1e11

func decodeCreation(o *object, s *signal.Signal) {
	s.Creation = &signal.Creation{
		TotalSyscalls: o.requiredCount("total_syscalls"),
		NamespaceOps:  o.requiredCount("namespace_ops"),
		CgroupWrites:  o.requiredCount("cgroup_writes"),
		Duration:      time.Duration(o.requiredCount("duration_ns")), //nolint:gosec // a count is below 2^63
		Timeline:      decodeTimeline(o),
		Syscalls:      decodeSyscalls(o),

		SetupSyscalls:     o.count("setup_syscalls"),
		SharedSyscalls:    o.count("shared_syscalls"),
		SharedBy:          o.count("shared_by"),
		Complete:          o.optionalFlag("complete"),
		IncompleteReasons: o.lines("incomplete_reasons", signal.MaxReasons),
		Failed:            o.flag("failed"),
		Failure:           o.text("failure"),
		Mounts:            o.count("mounts"),
		Execs:             o.count("execs"),
		Namespaces:        decodeNamespaces(o),
		Network:           decodeBirthNetwork(o),
		Containers:        decodeContainers(o),
		Roles:             decodeRoles(o),
	}
}

func decodeTimeline(o *object) []signal.Step {
	items := o.list("timeline")
	if len(items) > signal.MaxTimeline {
		o.fail("timeline", "has %d steps, at most %d are taken", len(items), signal.MaxTimeline)
		return nil
	}
	steps, ms := make([]signal.Step, len(items)), make([]float64, len(items))
	start := math.Inf(1)
	for i, item := range items {
		step, err := newObject(item)
		if err == nil {
			ms[i] = step.requiredNumber("timestamp_ms")
			steps[i] = signal.Step{
				Precision: step.offset("precision_ms"), Duration: step.offset("duration_ms"), Actor: step.text("actor"), Action: step.text("action"),
				Details: step.text("details"), Container: step.text("container"),
			}
			err = step.err
		}
		o.failAt("timeline"+index(i), err)
		start = min(start, ms[i])
	}
	if start < unixMs {
		start = 0
	}
	for i := range steps {
		offset := ms[i] - start
		if !isOffset(math.Abs(offset)) {
			o.fail("timeline"+index(i)+".timestamp_ms", "want at most %d ms before or after the birth's begin, got %g", signal.MaxPeriod.Milliseconds(), offset)
			return nil
		}
		steps[i].Offset = milliseconds(offset)
	}
	return steps
}

// decodeSyscalls takes objects and plain names. Names are counted by how often they are listed.
func decodeSyscalls(o *object) []signal.SyscallCount {
	items := o.list("syscalls")
	calls := []signal.SyscallCount{}
	known := map[string]int{}
	for i, item := range items {
		place := "syscalls" + index(i)
		if name, plain := item.(string); plain {
			if j, ok := known[name]; ok {
				calls[j].Count++
				continue
			}
			known[name] = len(calls)
			calls = append(calls, signal.SyscallCount{Name: name, Count: 1})
		} else {
			call, err := newObject(item)
			if err != nil {
				o.fail(place, "want a name or an object, got %s", kind(item))
				return nil
			}
			c := signal.SyscallCount{Name: call.text("name"), First: call.timestamp("timestamp"), Count: 1}
			if n := call.count("count"); n != nil {
				c.Count = *n
			}
			o.failAt(place, call.err)
			calls = append(calls, c)
		}
		if len(calls) > signal.MaxSyscalls {
			o.fail("syscalls", "has more than %d entries", signal.MaxSyscalls)
			return nil
		}
	}
	return calls
}

func decodeNamespaces(o *object) []signal.Namespaces {
	return each(o, "namespaces", 8, func(n *object) signal.Namespaces {
		return signal.Namespaces{Kind: n.text("kind"), Created: n.requiredCount("created"), Entered: n.requiredCount("entered")}
	})
}

// decodeBirthNetwork takes iptables_rules as the short form of network.firewall_rules.
func decodeBirthNetwork(o *object) *signal.BirthNetwork {
	rules := o.count("iptables_rules")
	if o.fields["network"] == nil {
		if rules == nil {
			return nil
		}
		return &signal.BirthNetwork{FirewallRules: rules}
	}
	n, err := newObject(o.fields["network"])
	if err != nil {
		o.failAt("network", err)
		return nil
	}
	network := &signal.BirthNetwork{
		Interfaces:    n.lines("interfaces", signal.MaxInterfaces),
		Addresses:     n.lines("addresses", signal.MaxRoutes),
		Routes:        n.lines("routes", signal.MaxRoutes),
		FirewallRules: n.count("firewall_rules"),
	}
	o.failAt("network", n.err)
	if network.FirewallRules == nil {
		network.FirewallRules = rules
	}
	return network
}

func decodeContainers(o *object) []signal.BirthContainer {
	return each(o, "containers", signal.MaxContainers, func(c *object) signal.BirthContainer {
		return signal.BirthContainer{
			Name: c.text("name"), ContainerID: c.text("container_id"), Init: c.flag("init"),
			Created: c.offset("created_ms"), Started: c.offset("started_ms"), Entered: c.offset("entrypoint_ms"),
			Entrypoint: c.text("entrypoint"), Failure: c.text("failure"),
			Syscalls: c.count("syscalls"), SetupSyscalls: c.count("setup_syscalls"),
		}
	})
}

func decodeRoles(o *object) []signal.Role {
	return each(o, "roles", signal.MaxRoles, func(r *object) signal.Role {
		return signal.Role{Role: r.text("role"), Container: r.text("container"), Syscalls: r.requiredCount("syscalls")}
	})
}

// each reads a list of objects.
func each[T any](o *object, name string, most int, read func(*object) T) []T {
	items := o.list(name)
	if len(items) > most {
		o.fail(name, "has %d entries, at most %d are taken", len(items), most)
		return nil
	}
	var all []T
	for i, item := range items {
		x, err := newObject(item)
		if err == nil {
			all = append(all, read(x))
			err = x.err
		}
		o.failAt(name+index(i), err)
	}
	return all
}

// lines is a list of strings.
func (o *object) lines(name string, most int) []string {
	items := o.list(name)
	if len(items) > most {
		o.fail(name, "has %d entries, at most %d are taken", len(items), most)
		return nil
	}
	var all []string
	for i, item := range items {
		text, ok := item.(string)
		if !ok {
			o.fail(name+index(i), "want a string, got %s", kind(item))
			return nil
		}
		all = append(all, text)
	}
	return all
}

// optionalFlag is nil when absent.
func (o *object) optionalFlag(name string) *bool {
	if o.fields[name] == nil {
		return nil
	}
	v := o.flag(name)
	return &v
}

// offset is a number of milliseconds, nil when absent.
func (o *object) offset(name string) *time.Duration {
	ms := o.number(name)
	if ms == nil {
		return nil
	}
	if !isOffset(*ms) {
		o.fail(name, "want 0 to %d ms, got %g", signal.MaxPeriod.Milliseconds(), *ms)
		return nil
	}
	d := milliseconds(*ms)
	return &d
}

func isOffset(ms float64) bool { return ms >= 0 && ms <= float64(signal.MaxPeriod.Milliseconds()) }

func milliseconds(ms float64) time.Duration { return time.Duration(ms * float64(time.Millisecond)) }
