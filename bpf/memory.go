package bpf

import (
	"bytes"
	"fmt"
	"os"
	"time"

	"github.com/cilium/ebpf/btf"
)

// ReclaimStalls is how long allocations of a cgroup's threads waited while they
// reclaimed memory themselves (mm/vmscan.c).
type ReclaimStalls struct {
	Direct Histogram // the node was short of pages
	Memcg  Histogram // a cgroup was at its limit: its own or an ancestor's
}

// OOMScope is what ran out of memory.
type OOMScope string

// The scopes. Unknown is what the tracepoint mark_victim tells.
const (
	OOMUnknown OOMScope = ""
	OOMCgroup  OOMScope = "cgroup"
	OOMNode    OOMScope = "node"
)

// OOMKills are the victims that the OOM killer chose in a cgroup since attach.
type OOMKills struct {
	Count uint64
	Last  OOMKill
}

// OOMKill is one of them, as it was then.
type OOMKill struct {
	At         time.Duration // CLOCK_MONOTONIC
	Scope      OOMScope
	PID        uint32
	Comm       string
	RSSBytes   uint64 // anonymous, file and shared pages; 0 when the thread had no memory left
	LimitBytes uint64 // of the cgroup that ran out, or where that is not told the smallest on the victim's path; 0: none
	// TriggerPID and TriggerComm are whose allocation asked for the kill.
	TriggerPID  uint32
	TriggerComm string
}

func reclaimVariants() []variant {
	return []variant{
		{mode: "tp_btf", programs: []string{reclaimProgDirectEnd, reclaimProgDirectBegin, reclaimProgMemcgEnd, reclaimProgMemcgBegin}},
		{mode: "raw_tp", programs: []string{reclaimProgDirectEndRaw, reclaimProgDirectBeginRaw, reclaimProgMemcgEndRaw, reclaimProgMemcgBeginRaw}},
	}
}

func oomVariants(h host) []variant {
	all := []variant{{mode: "fentry", programs: []string{oomProgKillProcess}}}
	if h.victimIsTask {
		const lost = "whether the node or a cgroup ran out of memory: that needs fentry"
		all = append(all,
			variant{mode: "tp_btf", programs: []string{oomProgMarkVictim}, lost: lost},
			variant{mode: "raw_tp", programs: []string{oomProgMarkVictimRaw}, lost: lost})
	}
	return all
}

// victimIsTask tells whether the tracepoint mark_victim carries the victim's
// task_struct and not its pid alone.
func victimIsTask(types *btf.Cache) bool {
	kernel, err := types.Kernel()
	if err != nil {
		return false
	}
	var callback *btf.Typedef
	if kernel.TypeByName("btf_trace_mark_victim", &callback) != nil {
		return false
	}
	pointer, ok := btf.UnderlyingType(callback).(*btf.Pointer)
	if !ok {
		return false
	}
	proto, ok := pointer.Target.(*btf.FuncProto)
	if !ok || len(proto.Params) < 2 { // the first is the tracepoint's own
		return false
	}
	_, ok = btf.UnderlyingType(proto.Params[1].Type).(*btf.Pointer)
	return ok
}

// ReclaimStalls returns the reclaims that ended since attach, for the cgroup whose
// thread waited.
func (t *Tracer) ReclaimStalls() (map[uint64]ReclaimStalls, error) {
	coll, err := t.attached(ProbeReclaim)
	if err != nil {
		return nil, err
	}
	all := make(map[uint64]ReclaimStalls)
	err = readMap(coll.Maps[reclaimMapReclaims], func(id uint64, v []reclaimStalls) {
		all[id] = ReclaimStalls{
			Direct: Histogram{Buckets: v[0].Buckets[0], Sum: time.Duration(v[0].Sum[0])},
			Memcg:  Histogram{Buckets: v[0].Buckets[1], Sum: time.Duration(v[0].Sum[1])},
		}
	})
	if err != nil {
		return nil, fmt.Errorf("reading reclaim stalls: %w", err)
	}
	return all, nil
}

// OOMKills returns the kills since attach by the victim's cgroup. Attached by fentry
// it counts decisions: with memory.oom.group set one of them kills all of the cgroup.
func (t *Tracer) OOMKills() (map[uint64]OOMKills, error) {
	coll, err := t.attached(ProbeOOM)
	if err != nil {
		return nil, err
	}
	page := uint64(os.Getpagesize())
	all := make(map[uint64]OOMKills)
	err = readMap(coll.Maps[oomMapOoms], func(id uint64, v []oomKills) {
		k := &v[0]
		all[id] = OOMKills{Count: k.Count, Last: OOMKill{
			At: time.Duration(k.At), Scope: oomScope(k.Scope),
			PID: k.Victim, Comm: comm(k.VictimComm[:]), RSSBytes: page * k.RssPages, LimitBytes: page * k.LimitPages,
			TriggerPID: k.Trigger, TriggerComm: comm(k.TriggerComm[:]),
		}}
	})
	if err != nil {
		return nil, fmt.Errorf("reading OOM kills: %w", err)
	}
	return all, nil
}

// oomScope is the enumeration in oom.bpf.c.
func oomScope(n uint32) OOMScope {
	return [...]OOMScope{OOMUnknown, OOMCgroup, OOMNode}[min(n, 2)]
}

// comm is a task's name: what comes before the first NUL, made printable.
func comm(b []int8) string {
	name := make([]byte, 0, len(b))
	for _, c := range b {
		if c == 0 {
			break
		}
		name = append(name, byte(c)) //nolint:gosec // a byte, as C has it
	}
	return string(bytes.ToValidUTF8(name, []byte("\uFFFD")))
}
