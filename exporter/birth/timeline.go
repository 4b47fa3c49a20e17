package birth

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// timeline makes the steps, and the durations of the stages.
func (a *Assembler) timeline(b *birth, members []*image, c *Certificate) {
	steps := slices.Clone(b.steps)
	add := func(s Step) { steps = append(steps, s) }
	span := func(i *image) time.Duration {
		if i.end == 0 {
			return 0
		}
		return i.end - i.begin
	}
	if b.cgroupMade > 0 {
		add(Step{Offset: b.cgroupMade, Actor: ActorKubelet, Action: "made the pod's cgroup"})
		if len(members) > 0 {
			c.Stages[StagePrepare] = append(c.Stages[StagePrepare], members[0].begin-b.cgroupMade)
		}
	}
	var networkBegin, networkEnd time.Duration
	for _, i := range members {
		container, _ := a.owner(i)
		if i.command.verb == "shim" && b.pod != "" {
			container = ""
		}
		switch {
		case i.cni.command == "ADD":
			networkBegin, networkEnd = cmp.Or(networkBegin, i.begin), max(networkEnd, i.end)
			add(Step{Offset: i.begin, Duration: span(i), Actor: ActorCNI, Action: strings.TrimPrefix(i.role, "cni ") + " " + i.cni.command, Details: i.network.String()})
		case i.command.verb == "shim" && i.executed:
			add(Step{Offset: i.begin, Actor: ActorRuntime, Action: "shim", Details: i.command.program, Container: container})
		case i.command.verb != "" && i.command.verb != "init" && i.executed:
			add(Step{Offset: i.begin, Duration: span(i), Actor: ActorRuntime, Action: i.role, Container: container})
		}
		if i.unshared > 0 {
			add(Step{Offset: i.unshared, Actor: ActorKernel, Action: "new namespaces", Details: namespacesOf(i.unsharedKinds), Container: container})
		}
		if i.mounts > 0 {
			s := Step{Offset: i.firstMount, Actor: ActorKernel, Action: "mounts", Details: fmt.Sprintf("%d, by %s", i.mounts, i.role), Container: container}
			if i.command.verb != "shim" { // which mounts one now and one then
				s.Duration = i.lastMount - i.firstMount
			}
			add(s)
		}
		if i.pivoted > 0 {
			add(Step{Offset: i.pivoted, Actor: ActorKernel, Action: "new root", Details: "pivot_root", Container: container})
		}
		if i.capabilities > 0 {
			add(Step{Offset: i.capabilities, Actor: ActorKernel, Action: "capabilities dropped", Container: container})
		}
		if i.seccomp > 0 {
			add(Step{Offset: i.seccomp, Actor: ActorKernel, Action: "seccomp filter installed", Container: container})
		}
	}
	if networkBegin > 0 && networkEnd > 0 {
		c.Stages[StageNetwork] = append(c.Stages[StageNetwork], networkEnd-networkBegin)
	}
	for _, x := range b.containers {
		if x.entered == 0 {
			continue
		}
		s := Step{Offset: x.entered, Actor: ActorKernel, Action: "entrypoint", Details: x.entrypoint, Container: x.id}
		if x.returned > 0 {
			s.Duration = x.returned - x.entered
		}
		add(s)
		if x.created > 0 {
			stage := StageContainer
			if x.sandbox {
				stage = StageSandbox
			}
			c.Stages[stage] = append(c.Stages[stage], x.entered-x.created)
		}
	}
	if c.Failure == "" {
		c.Stages[StageTotal] = append(c.Stages[StageTotal], c.Duration)
	}
	slices.SortStableFunc(steps, func(x, y Step) int { return cmp.Compare(x.Offset, y.Offset) })
	if len(steps) > a.cfg.MaxSteps {
		b.lack(fmt.Sprintf("of %d steps the first %d are here", len(steps), a.cfg.MaxSteps))
		steps = steps[:a.cfg.MaxSteps]
	}
	for i := range steps {
		steps[i].Offset -= b.begin
	}
	c.Steps = steps
}

func namespacesOf(flags uint32) string {
	var kinds []string
	for _, k := range namespaceKinds() {
		if flags&k.flag != 0 {
			kinds = append(kinds, k.name)
		}
	}
	return strings.Join(kinds, ", ")
}

// String is what a network's set-up comes to in a line.
func (n *Network) String() string {
	var parts []string
	for _, p := range []struct {
		what string
		all  []string
	}{{"interfaces", n.Interfaces}, {"addresses", n.Addresses}, {"routes", n.Routes}} {
		if len(p.all) > 0 {
			parts = append(parts, p.what+" "+strings.Join(p.all, ", "))
		}
	}
	return strings.Join(parts, "; ")
}
