package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/kernel-gossip/kernel-gossip/bpf"
	"github.com/kernel-gossip/kernel-gossip/exporter/birth"
	"github.com/kernel-gossip/kernel-gossip/exporter/cgroup"
	"github.com/kernel-gossip/kernel-gossip/exporter/pods"
	"github.com/kernel-gossip/kernel-gossip/exporter/sampler"
	"github.com/kernel-gossip/kernel-gossip/operator/wire"
)

const (
	// birthTick is how often births are looked at, and counters are read while one is in flight.
	birthTick = 500 * time.Millisecond
	// patience is how long a certificate waits at most for the API server to name its
	// containers, and for other births to end: writing it takes CPU time, of which pods
	// that start have none to spare.
	patience = 10 * time.Second
)

// What the operator takes of each in one certificate (operator/signal).
const (
	mostSteps      = 256
	mostRoles      = 128
	mostContainers = 64
	mostReasons    = 16
)

// births turns the kernel's events into certificates.
type births struct {
	kernel    *bpf.Births
	assembler *birth.Assembler
	pods      podsIndex // nil off-cluster
	node      string
	namespace string           // of what belongs to no pod
	tell      func(wire.Event) // nil: nobody is told
	record    func(any)        // what tests play again: events and counters; nil: nothing is kept
	log       *slog.Logger
	always    bool // count system calls also while no birth is in flight
	counting  bool
	waiting   []untold

	mu  sync.Mutex
	now sampler.Births
}

// podsIndex is what the API server knows.
type podsIndex interface {
	pods.Index
	pods.Births
}

// untold is a certificate that waits; see patience.
type untold struct {
	birth.Certificate
	since time.Duration // CLOCK_MONOTONIC
}

func newBirths(kernel *bpf.Births, index podsIndex, o *options) *births {
	b := &births{
		kernel: kernel, pods: index, node: o.node, namespace: o.whisper.namespace, log: o.log,
		always: o.birthAlways, now: sampler.Births{Durations: map[string]bpf.Histogram{}},
	}
	cfg := birth.Config{Identify: identify}
	if index != nil {
		cfg.PodsOnly = true
		cfg.Expect = func(uid string) (int, bool) {
			known, ok := index.Birth(uid)
			return len(known.Containers), ok && len(known.Containers) > 0
		}
	}
	b.assembler = birth.New(cfg)
	for _, stage := range birth.Stages() {
		b.now.Durations[stage] = bpf.Histogram{}
	}
	return b
}

func identify(path string) (podUID, containerID string) {
	id, _ := cgroup.Identify(path)
	return id.PodUID, id.ContainerID
}

// run follows births until ctx ends.
func (b *births) run(ctx context.Context) error {
	if b.always {
		b.count(true)
	}
	return b.kernel.Run(ctx, birthTick, b.handle, b.tick)
}

func (b *births) handle(e *bpf.BirthEvent) {
	event := eventOf(e)
	if b.record != nil {
		b.record(event)
	}
	b.assembler.Event(event)
	if !b.counting && b.assembler.Counting() {
		b.count(true)
	}
}

// count attaches what counts system calls, or detaches it.
func (b *births) count(on bool) {
	if err := b.kernel.Count(on); err != nil {
		b.log.Error("System calls of births can't be counted.", "err", err)
		return
	}
	b.counting = on
	b.assembler.Counted(on, b.kernel.Now())
}

func (b *births) tick(now time.Duration) {
	losses, err := b.kernel.Losses()
	if err != nil {
		b.log.Error("What was lost of births can't be told.", "err", err)
	}
	read := false
	counts := func() []birth.Count {
		read = true
		return b.counts()
	}
	done := b.assembler.Tick(now, counts, birth.Losses(losses))
	ceased := b.counting && !b.assembler.Counting()
	if ceased && !read {
		counts()
	}
	if len(done) > 0 || ceased {
		if err := b.kernel.Forget(func(image uint64) bool { return !b.assembler.Keeps(image) }); err != nil {
			b.log.Error("The counters of births can't be forgotten.", "err", err)
		}
	}
	if ceased && !b.always {
		b.count(false)
	}
	for i := range done {
		b.waiting = append(b.waiting, untold{done[i], now})
	}
	b.observe(done)
	for _, c := range b.due(now, b.assembler.InFlight()) {
		b.send(&c)
	}
}

// due takes the certificates out that need not wait any more.
func (b *births) due(now time.Duration, inFlight int) []birth.Certificate {
	var out []birth.Certificate
	b.waiting = slices.DeleteFunc(b.waiting, func(u untold) bool {
		if now-u.since < patience && (inFlight > 0 || !b.named(&u.Certificate)) {
			return false
		}
		out = append(out, u.Certificate)
		return true
	})
	return out
}

// counts reads the counters of system calls; there are none while nothing is counted.
func (b *births) counts() []birth.Count {
	if !b.counting {
		return nil
	}
	var counts []birth.Count
	if err := b.kernel.Counts(func(c bpf.BirthCount) { counts = append(counts, birth.Count(c)) }); err != nil {
		b.log.Error("Births are told without their system calls.", "err", err)
	}
	if b.record != nil && len(counts) > 0 {
		b.record(counts)
	}
	return counts
}

func (b *births) observe(done []birth.Certificate) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.now.InFlight, b.now.Refused = b.assembler.InFlight(), b.assembler.Refused()
	for i := range done {
		c := &done[i]
		for stage, durations := range c.Stages {
			h := b.now.Durations[stage]
			for _, d := range durations {
				h.Observe(d)
			}
			b.now.Durations[stage] = h
		}
		b.now.Syscalls.Observe(c.Total)
		b.now.Setup.Observe(c.Setup)
	}
}

// totals is a copy that nobody changes.
func (b *births) totals() *sampler.Births {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := b.now
	out.Durations = maps.Clone(b.now.Durations)
	return &out
}

// named tells that the API server knows the pod and all containers that came to life.
func (b *births) named(c *birth.Certificate) bool {
	if b.pods == nil {
		return true
	}
	if _, ok := b.pods.ByPodUID(c.PodUID); !ok {
		return false
	}
	for _, x := range c.Containers {
		if _, ok := b.pods.ByContainerID(x.ID); !ok && !x.Sandbox && !x.Failed {
			return false
		}
	}
	return true
}

func (b *births) send(c *birth.Certificate) {
	event := b.event(c, func(at time.Duration) time.Time { return time.Now().Add(at - b.kernel.Now()) })
	b.mu.Lock()
	switch { // by what is told, which may be less than was seen
	case event.Failed:
		b.now.Failed++
	case !*event.Complete:
		b.now.Incomplete++
	default:
		b.now.Complete++
	}
	b.mu.Unlock()
	b.log.Info("A birth is told.", "namespace", event.Namespace, "pod", event.PodName, "duration", c.Duration.Round(time.Millisecond),
		"syscalls", c.Total, "setup_syscalls", c.Setup, "complete", *event.Complete, "failure", c.Failure)
	if b.tell != nil {
		b.tell(event)
	}
}

// event is a certificate as the operator takes it. wall is the time of CLOCK_MONOTONIC.
func (b *births) event(c *birth.Certificate, wall func(time.Duration) time.Time) wire.PodCreation {
	e := wire.PodCreation{
		Head: wire.Head{
			Type: wire.TypePodCreation, Namespace: b.namespace, PodName: wire.HostPod(b.node, "/"+c.Container), NodeName: b.node,
			PodUID: c.PodUID, Timestamp: wall(c.Begin + c.Duration),
		},
		TotalSyscalls: c.Total, SetupSyscalls: &c.Setup, SharedSyscalls: &c.Shared, SharedBy: ptr(uint64(max(c.SharedBy, 1))),
		CgroupWrites: c.CgroupWrites, DurationNs: uint64(max(c.Duration, 0)),
		Failed: c.Failure != "", Failure: c.Failure,
		Mounts: &c.Mounts, Execs: &c.Execs,
	}
	if c.PodUID != "" {
		e.Namespace, e.PodName = c.Namespace, c.Pod
		if b.pods != nil {
			if pod, ok := b.pods.ByPodUID(c.PodUID); ok {
				e.Namespace, e.PodName, e.PodUID = pod.Namespace, pod.Pod, pod.PodUID
			}
		}
		if e.PodName == "" {
			e.Namespace, e.PodName = b.namespace, wire.HostPod(b.node, "/pod"+c.PodUID)
		}
	}
	for _, n := range c.Namespaces {
		e.Namespaces = append(e.Namespaces, wire.Namespaces{Kind: n.Kind, Created: n.Created, Entered: n.Entered})
		e.NamespaceOps += n.Created + n.Entered
	}
	if n := c.Network; len(n.Interfaces)+len(n.Addresses)+len(n.Routes) > 0 || n.Rules != nil && *n.Rules > 0 {
		e.Network = &wire.BirthNetwork{Interfaces: n.Interfaces, Addresses: n.Addresses, Routes: n.Routes, FirewallRules: n.Rules}
	}
	names := b.containerNames(c)
	var known pods.Birth
	if b.pods != nil {
		known, _ = b.pods.Birth(c.PodUID)
		e.Timeline = known.Steps(wall(c.Begin))
	}
	for _, s := range c.Steps {
		step := wire.Step{TimestampMs: millis(max(s.Offset, 0)), Actor: s.Actor, Action: s.Action, Details: s.Details, Container: names[s.Container]}
		if s.Duration > 0 {
			step.DurationMs = ptr(millis(s.Duration))
		}
		e.Timeline = append(e.Timeline, step)
	}
	slices.SortStableFunc(e.Timeline, func(x, y wire.Step) int { return cmp.Compare(x.TimestampMs, y.TimestampMs) })
	var left []string
	e.Timeline = atMost(mostSteps, e.Timeline, "steps", &left)
	for _, s := range c.Syscalls {
		e.Syscalls = append(e.Syscalls, wire.Syscall{Name: s.Name, Count: s.N, Timestamp: wall(c.Begin + s.First)})
	}
	for _, r := range atMost(mostRoles, c.Roles, "roles", &left) {
		e.Roles = append(e.Roles, wire.Role{Role: cut(r.Name, 64), Container: names[r.Container], Syscalls: r.Syscalls})
	}
	containers := atMost(mostContainers, c.Containers, "containers", &left)
	for i := range containers {
		x := &containers[i]
		out := wire.BirthContainer{
			Name: names[x.ID], ContainerID: x.ID, CreatedMs: sinceBegin(x.Created), StartedMs: sinceBegin(x.Started),
			EntrypointMs: sinceBegin(x.Entered), Entrypoint: x.Entrypoint, Syscalls: &x.Syscalls, SetupSyscalls: &x.Setup,
		}
		if x.Failed && c.Failure != "" {
			out.Failure = "it never reached its entrypoint: " + cut(x.Cause, 512)
		}
		for _, k := range known.Containers {
			if k.Name == out.Name {
				out.Init = k.Init
				if x.Failed && k.Problem != "" {
					out.Failure = cut(k.Problem, 1024)
				}
			}
		}
		e.Containers = append(e.Containers, out)
	}
	e.IncompleteReasons = reasons(c.Incomplete, left)
	e.Complete = ptr(len(e.IncompleteReasons) == 0)
	return e
}

// atMost is the first of all, no more than the operator takes; left tells of the rest.
func atMost[T any](most int, all []T, what string, left *[]string) []T {
	if n := len(all) - most; n > 0 {
		*left = append(*left, fmt.Sprintf("%d further %s are not listed", n, what))
		return all[:most]
	}
	return all
}

// reasons are those for which something was not seen, then what is not listed, reasons included.
func reasons(unseen, left []string) []string {
	if most := mostReasons - len(left); len(unseen) > most {
		unseen = atMost(most-1, unseen, "reasons", &left)
	}
	return slices.Concat(unseen, left)
}

// containerNames are those that Kubernetes gave, or else what the runtime calls them, each once.
func (b *births) containerNames(c *birth.Certificate) map[string]string {
	names, taken := map[string]string{}, map[string]bool{}
	for _, x := range c.Containers {
		name := label(x.ID)
		if x.Sandbox {
			name = "sandbox"
		}
		if b.pods != nil {
			if known, ok := b.pods.ByContainerID(x.ID); ok && known.Container != "" {
				name = known.Container
			}
		}
		plain := name
		for i := 2; taken[name]; i++ {
			name = plain[:min(len(plain), 59)] + "-" + strconv.Itoa(i)
		}
		taken[name] = true
		names[x.ID] = name
	}
	return names
}

// label is an ID in the letters that Kubernetes allows; of a long one the beginning, as
// the runtimes' own tools show it.
func label(id string) string {
	name := strings.Trim(strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z' || r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r - 'A' + 'a'
		}
		return '-'
	}, cut(id, 63)), "-")
	if len(id) == 64 {
		name = name[:12]
	}
	if name == "" {
		return "container"
	}
	return name
}

func cut(s string, most int) string { return s[:min(len(s), most)] }

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func sinceBegin(d *time.Duration) *float64 {
	if d == nil {
		return nil
	}
	return ptr(millis(*d))
}

func ptr[T any](v T) *T { return &v }

func eventOf(e *bpf.BirthEvent) *birth.Event {
	kinds := map[bpf.BirthKind]birth.Kind{
		bpf.BirthFork: birth.Fork, bpf.BirthExec: birth.Exec, bpf.BirthExit: birth.Exit, bpf.BirthCall: birth.Call,
		bpf.BirthNetlink: birth.Netlink, bpf.BirthMkdir: birth.Mkdir, bpf.BirthAttach: birth.Attach, bpf.BirthReturned: birth.Returned,
	}
	return &birth.Event{
		Kind: kinds[e.Kind], At: e.At, Image: e.Image, PID: e.PID, TID: e.TID, Root: e.Root,
		Child: e.Child, ChildPID: e.ChildPID, Daemon: e.Daemon,
		Previous: e.Previous, Entrypoint: e.Entrypoint, Comm: e.Comm, File: e.File,
		Arguments: string(e.Arguments), CNI: string(e.CNI),
		Parent: e.Parent, ParentEpoch: e.ParentEpoch, RootEpoch: e.RootEpoch,
		Name: e.Name, Args: e.Args, Detail: e.Detail, Text: e.Text, Result: e.Result,
		Protocol: e.Protocol, Length: e.Length, Message: slices.Clone(e.Message), Rules: e.Rules, Unread: e.Unread,
		Path: e.Path, Task: e.Task, Code: birth.Ended(e.Code),
	}
}
