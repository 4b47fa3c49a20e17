package birth

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// countsAge is how old the counters may be that a birth begins with.
const countsAge = 2 * time.Second

// Tick tells the time and what was lost by now, and returns the certificates of births
// that are over. counts reads the counters; it is called when they are wanted only, for
// that takes longer than the rest.
func (a *Assembler) Tick(now time.Duration, counts func() []Count, losses Losses) []Certificate {
	a.now = max(a.now, now)
	a.losses = losses
	type end struct {
		*birth
		failure string
	}
	var ends []end
	for _, b := range a.inOrder() {
		if over, failure := a.over(b); over {
			ends = append(ends, end{b, failure})
		}
	}
	if len(ends) > 0 || a.begun || len(a.births) > 0 && a.now-a.countsRead >= countsAge {
		a.begun, a.countsRead = false, a.now
		a.counts = counts()
		a.daemons = 0
		for _, c := range a.counts {
			if i := a.images[c.Image]; i != nil && i.daemon {
				a.daemons += c.N
			}
		}
	}
	var out []Certificate
	for _, b := range ends {
		out = append(out, a.certify(b.birth, b.failure))
		delete(a.births, b.key)
		a.told[b.key] = a.now
	}
	a.prune()
	return out
}

// inOrder has the births in flight by age.
func (a *Assembler) inOrder() []*birth {
	all := make([]*birth, 0, len(a.births))
	for _, b := range a.births {
		all = append(all, b)
	}
	slices.SortFunc(all, func(x, y *birth) int { return cmp.Or(cmp.Compare(x.begin, y.begin), strings.Compare(x.key, y.key)) })
	return all
}

// over tells whether a birth has come to its end, and whether that is a bad one.
func (a *Assembler) over(b *birth) (over bool, failure string) {
	entered, waiting, failed := 0, 0, ""
	for _, c := range b.containers {
		c.sandbox = b.pod != "" && c.id == b.sandbox
		switch {
		case c.entered > 0 && !c.sandbox:
			entered++
		case c.entered > 0:
		case a.ended(c):
			failed = fmt.Sprintf("container %s never reached its entrypoint: %s", short(c.id), a.cause(c))
		default:
			waiting++
		}
	}
	quiet := a.now-b.last >= a.cfg.Settle
	expected, known := 1, b.pod == ""
	if b.pod != "" {
		if n, ok := a.cfg.Expect(b.pod); ok {
			expected, known = n, true
		}
	}
	switch {
	case failed != "" && quiet:
		return true, failed
	case known && entered >= expected && waiting == 0 && a.settled(b):
		return true, ""
	case !known && entered > 0 && waiting == 0 && quiet:
		b.lack("how many containers the pod was to have was not known: it is told after the first")
		return true, ""
	case a.now-b.begin < a.cfg.MaxAge:
		return false, ""
	case entered == 0 && len(b.containers) == 0:
		return true, fmt.Sprintf("no container was made within %s", a.cfg.MaxAge)
	case entered == 0:
		return true, fmt.Sprintf("no container reached its entrypoint within %s", a.cfg.MaxAge)
	}
	b.lack(fmt.Sprintf("of %d containers %d had reached their entrypoints after %s", expected, entered, a.cfg.MaxAge))
	return true, ""
}

// settled gives the last entrypoint's return, and the runtime that started it, time to come.
func (a *Assembler) settled(b *birth) bool {
	return a.now-b.last >= min(a.cfg.Settle, 500*time.Millisecond)
}

// ended tells that all processes are gone that were to make a container.
func (a *Assembler) ended(c *container) bool {
	for _, i := range a.images {
		if i.end == 0 && !i.entrypoint && i.command.verb != "shim" {
			if id, _ := a.owner(i); id == c.id && a.makes(i) {
				return false
			}
		}
	}
	return true
}

// cause is why a container that is not to be came to nothing, as far as its runtime's
// processes show it: the last execve that was refused, who was killed or ended with a
// status, the one that was to become the entrypoint before those that waited for it.
func (a *Assembler) cause(c *container) string {
	var all []*image
	for _, i := range a.images {
		if i.end > 0 && !i.entrypoint && i.command.verb != "shim" {
			if id, _ := a.owner(i); id == c.id && a.makes(i) {
				all = append(all, i)
			}
		}
	}
	slices.SortFunc(all, func(x, y *image) int { return cmp.Or(cmp.Compare(x.end, y.end), cmp.Compare(x.id, y.id)) })
	cause, refused := "", ""
	for _, i := range all {
		if i.refused != "" {
			refused = i.refused
		}
		if i.ended != 0 && cause == "" {
			cause = fmt.Sprintf("%s %s", i.role, i.ended)
		}
	}
	switch {
	case refused != "" && cause != "":
		return refused + "; " + cause
	case refused != "" || cause != "":
		return cause + refused
	}
	return "the runtime's processes have ended"
}

// makes tells that an image is one of those that make a container: not of what looks
// after it later, nor a shim.
func (a *Assembler) makes(i *image) bool {
	for ; i != nil && !i.daemon; i = i.before {
		if i.command.verb != "" {
			return i.command.makesContainer() && i.command.verb != "shim"
		}
	}
	return false
}

// short is an ID as the runtimes' own tools show it.
func short(id string) string {
	if len(id) == 64 {
		return id[:12]
	}
	return id
}

// looksAfter tells of the processes that belong to no birth: exec, delete, state, …
func looksAfter(i *image) bool {
	for ; i != nil && !i.daemon; i = i.before {
		if v := i.command.verb; v != "" && v != "shim" {
			return !i.command.makesContainer()
		}
		if i.cni.command != "" {
			return i.cni.command == "DEL"
		}
	}
	return false
}

// members are the images of a birth by age, and the containers that they are about.
func (a *Assembler) members(b *birth) []*image {
	var all []*image
	roots := map[uint32]bool{}
	for _, i := range a.images {
		if a.birthOfImage(i) == b && !looksAfter(i) {
			all = append(all, i)
			if b.pod == "" {
				roots[i.root] = true
			}
		}
	}
	// Off-cluster what a lineage did without naming a container was for its only one.
	for _, i := range a.images {
		if roots[i.root] && !i.daemon && !looksAfter(i) {
			if container, pod := a.owner(i); container == "" && pod == "" {
				all = append(all, i)
			}
		}
	}
	slices.SortFunc(all, func(x, y *image) int { return cmp.Or(cmp.Compare(x.begin, y.begin), cmp.Compare(x.id, y.id)) })
	return all
}

func (a *Assembler) certify(b *birth, failure string) Certificate {
	c := Certificate{
		PodUID: b.pod, Namespace: b.namespace, Pod: b.name, Failure: failure, Begin: b.begin,
		SharedBy: b.sharedBy, Stages: map[string][]time.Duration{},
	}
	if b.pod == "" {
		c.Container = b.key
	}
	if a.daemons >= b.daemons {
		c.Shared = a.daemons - b.daemons
	}
	members := a.members(b)
	end := b.last
	for _, x := range b.containers {
		if x.entered > 0 && failure == "" {
			end = 0
		}
	}
	for _, x := range b.containers {
		end = max(end, x.entered, x.returned)
	}
	c.Duration = end - b.begin

	a.countSyscalls(b, members, &c)
	a.describe(b, members, &c)
	a.timeline(b, members, &c)
	c.Incomplete = a.lacking(b, members)
	return c
}

func (a *Assembler) countSyscalls(b *birth, members []*image, c *Certificate) {
	type total struct{ n, setup uint64 }
	mine := make(map[uint64]*image, len(members))
	for _, i := range members {
		mine[i.id] = i
	}
	syscalls := map[string]*Syscall{}
	roles := map[Role]uint64{}
	containers := map[string]total{}
	for _, n := range a.counts {
		i := mine[n.Image]
		if i == nil || i.epoch > 0 && n.Epoch >= i.epoch {
			continue
		}
		s := syscalls[n.Name]
		if s == nil {
			s = &Syscall{Name: n.Name, First: n.First - b.begin}
			syscalls[n.Name] = s
		}
		s.N += n.N
		s.First = min(s.First, n.First-b.begin)
		c.Total += n.N
		container, _ := a.owner(i)
		if i.command.verb == "shim" && b.pod != "" {
			container = ""
		}
		t := containers[container]
		t.n += n.N
		if !isOwn(n.Name) {
			c.Setup += n.N
			t.setup += n.N
		}
		containers[container] = t
		roles[Role{Name: i.role, Container: container}] += n.N
	}
	for _, s := range syscalls {
		c.Syscalls = append(c.Syscalls, *s)
	}
	slices.SortFunc(c.Syscalls, func(x, y Syscall) int { return cmp.Or(cmp.Compare(y.N, x.N), strings.Compare(x.Name, y.Name)) })
	for r, n := range roles {
		r.Syscalls = n
		c.Roles = append(c.Roles, r)
	}
	slices.SortFunc(c.Roles, func(x, y Role) int {
		return cmp.Or(cmp.Compare(y.Syscalls, x.Syscalls), strings.Compare(x.Name, y.Name), strings.Compare(x.Container, y.Container))
	})
	offset := func(at time.Duration) *time.Duration {
		if at == 0 {
			return nil
		}
		d := at - b.begin
		return &d
	}
	for _, x := range b.containers {
		cause := ""
		if x.entered == 0 && c.Failure != "" {
			cause = a.cause(x)
		}
		c.Containers = append(c.Containers, Container{
			ID: x.id, Sandbox: x.sandbox, Created: offset(x.created), Started: offset(x.started),
			Entered: offset(x.entered), Returned: offset(x.returned), Entrypoint: x.entrypoint,
			Syscalls: containers[x.id].n, Setup: containers[x.id].setup, Failed: x.entered == 0, Cause: cause,
		})
	}
	slices.SortFunc(c.Containers, func(x, y Container) int {
		return cmp.Or(cmp.Compare(b.containers[x.ID].created, b.containers[y.ID].created), strings.Compare(x.ID, y.ID))
	})
}

// describe sums what the processes made.
func (a *Assembler) describe(b *birth, members []*image, c *Certificate) {
	var namespaces [kinds]Namespaces
	namespaces[0].Created = b.netns
	rules, unread := uint64(0), false
	for _, i := range members {
		if i.executed {
			c.Execs++
		}
		c.Mounts += i.mounts
		c.CgroupWrites += i.cgroupWrites
		for k := range namespaces {
			namespaces[k].Created += i.namespaces[k].created
			namespaces[k].Entered += i.namespaces[k].entered
		}
		if n := &i.network; add(&c.Network, n.Interfaces, n.Addresses, n.Routes, networkOfAll) || i.moreNetwork {
			b.lack(fmt.Sprintf("not every interface, address and route is listed: %d of each at most, and %d by one process", networkOfAll, networkOfOne))
		}
		rules += i.rules
		unread = unread || i.unreadRules
	}
	for k, n := range namespaces {
		if n.Kind = namespaceKinds()[k].name; n.Created+n.Entered > 0 {
			c.Namespaces = append(c.Namespaces, n)
		}
	}
	if unread {
		b.lack("not every rule of the firewall is counted: of one call's messages 1,024 are looked at")
	} else {
		c.Network.Rules = &rules
	}
}

func (a *Assembler) lacking(b *birth, members []*image) []string {
	out := slices.Clone(b.incomplete)
	if b.late {
		out = append(out, "it had begun before it was watched")
	}
	switch first := firstOf(members); {
	case len(members) == 0:
	case !a.counting && a.countedFrom == 0:
		out = append(out, "system calls were not counted")
	case first < a.countedFrom:
		out = append(out, fmt.Sprintf("the system calls of the first %s were not counted: counting began then", (a.countedFrom-first).Round(10*time.Microsecond)))
	}
	for _, l := range []struct {
		now, then uint64
		what      string
	}{
		{a.losses.Events, b.losses.Events, "events were lost: the ring was full, or the kernel skipped the program"},
		{a.losses.Processes, b.losses.Processes, "processes were not followed: the table was full, or the kernel skipped the program"},
		{a.losses.Counts, b.losses.Counts, "system calls were not counted: the table was full, or the kernel skipped the program"},
		{a.losses.Unreadable, b.losses.Unreadable, "arguments could not be read"},
	} {
		if l.now > l.then {
			out = append(out, fmt.Sprintf("%d %s (all births in flight share this loss)", l.now-l.then, l.what))
		}
	}
	return out
}

func firstOf(members []*image) time.Duration {
	if len(members) == 0 {
		return 0
	}
	return members[0].begin
}

// prune forgets what no birth in flight can want.
func (a *Assembler) prune() {
	horizon := a.now - a.cfg.MaxAge
	for _, b := range a.births {
		horizon = min(horizon, b.begin)
	}
	for id, i := range a.images {
		// What is over and older than any birth in flight, or of a birth that is told.
		if i.end > 0 && !i.daemon && (i.end < horizon || len(a.births) == 0 && a.now-i.end > linger) {
			delete(a.images, id)
		}
	}
	if len(a.births) == 0 {
		clear(a.unshared)
		clear(a.netns)
	}
	const keep = 15 * time.Minute
	for key, at := range a.told {
		if a.now-at > keep {
			delete(a.told, key)
			for container, pod := range a.podOf {
				if pod == key {
					delete(a.podOf, container)
				}
			}
		}
	}
}
