package bpf

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
)

// NodeGroup is the id under which Network counts what belongs to no cgroup that can be
// told: packets without a socket in a network namespace that several cgroups share, as
// the host's, and sockets of the root cgroup.
const NodeGroup uint64 = 1

// Network is what became of the packets of a cgroup's sockets since attach.
type Network struct {
	// Segments of TCP: sent are what the kernel counts as OutSegs and RetransSegs, where
	// a large one that the device is to cut (GSO) is as many as it becomes; received are
	// those of established connections. Through a device that is stacked on another in
	// the socket's own namespace (VLAN, bond, tunnel) one is sent once for each.
	SegmentsSent, SegmentsReceived uint64
	// Retransmits are segments sent again, SYN and SYN-ACK included (RetransSegs).
	Retransmits uint64
	Connections uint64 // that were established, either way
	// AcceptOverflows are connections that a listener turned away (ListenDrops), nearly
	// always because its accept queue was full (ListenOverflows).
	AcceptOverflows uint64
	Refused         uint64 // of its own attempts to connect that were answered with a reset
	ResetsReceived  uint64 // on other connections
	ResetsSent      uint64
	Drops           [DropReasonCount]uint64 // by DropReasons
}

// DropReasonCount is how many reasons are told apart.
const DropReasonCount = 24

// Reasons that others refer to.
const (
	// DropNotSpecified is all that a kernel before 5.17 tells, and later what its
	// authors gave no reason for: also packets that are done with, and nobody misses.
	DropNotSpecified = "not_specified"
	// DropNoSocket is a packet for a port where nobody listens.
	DropNoSocket = "no_socket"
	// DropSocketFilter is what a filter of the socket's own refuses.
	DropSocketFilter = "socket_filter"
	// DropOther are the reasons that are not listed here.
	DropOther = "other"
)

// DropReasons are the kernel's names in lower case (include/net/dropreason-core.h,
// enum skb_drop_reason), as Network.Drops has them in order.
func DropReasons() [DropReasonCount]string {
	return [...]string{
		DropNotSpecified, DropNoSocket, DropSocketFilter, "socket_rcvbuff", "socket_backlog", "proto_mem", "nomem",
		"netfilter_drop", "qdisc_drop", "tc_ingress", "tc_egress", "bpf_cgroup_egress", "xfrm_policy",
		"ip_rpfilter", "ip_outnoroutes", "neigh_failed", "tcp_csum", "udp_csum", "ip_csum",
		"cpu_backlog", "full_ring", "pkt_too_big", "xdp", DropOther,
	}
}

// noLoss tells of reasons under which nothing is lost: what was never for this host or is
// held already, what comes late to a socket that is closed or reset. And of full accept
// queues, which are counted in another way.
func noLoss(reason string) bool {
	return slices.Contains([]string{
		"consumed", "otherhost", "tcp_ofomerge", "tcp_old_data", "tcp_old_ack", "tcp_old_sequence",
		"socket_close", "queue_purge", "tcp_close", "tcp_reset", "tcp_abort_on_data", "tcp_listen_overflow",
	}, reason)
}

const ignoredDrop = 255 // IGNORED of network.bpf.c

// dropPlaces maps the numbers of this kernel's reasons to places in Network.Drops. Where
// it has none, each drop comes with 0.
func dropPlaces(reasons []btf.EnumValue) []ebpf.MapKV {
	names := DropReasons()
	other := uint32(len(names) - 1)
	places := make([]uint32, 256) // MAX_REASON
	for i := range places {
		places[i] = other
	}
	places[0] = 0 // not specified
	for _, r := range reasons {
		if r.Value >= uint64(len(places)) {
			continue
		}
		name := strings.ToLower(strings.TrimPrefix(r.Name, "SKB_DROP_REASON_"))
		if strings.HasPrefix(name, "qdisc_") {
			name = "qdisc_drop" // also told apart by cause, from 6.14 on
		}
		i := slices.Index(names[:], name)
		switch {
		case i >= 0:
			places[r.Value] = uint32(i)
		case noLoss(name):
			places[r.Value] = ignoredDrop
		}
	}
	contents := make([]ebpf.MapKV, len(places))
	for i, place := range places {
		contents[i] = ebpf.MapKV{Key: uint32(i), Value: place}
	}
	return contents
}

func kernelDropReasons(types *btf.Cache) []btf.EnumValue {
	kernel, err := types.Kernel()
	if err != nil {
		return nil
	}
	var reasons *btf.Enum
	if kernel.TypeByName("skb_drop_reason", &reasons) != nil {
		return nil
	}
	return reasons.Values
}

// dropProgram is the one for kfree_skb as this kernel calls it, and what it can't tell.
func dropProgram(arguments int) (program, lost string) {
	switch {
	case arguments >= 4:
		return networkProgKfreeSkbReceiver, ""
	case arguments == 3:
		return networkProgKfreeSkbReason, ""
	}
	return networkProgKfreeSkb, "why packets were dropped: the kernel tells it from 5.17 on"
}

func networkVariants(h host) []variant {
	drops, lost := dropProgram(h.dropArguments)
	// What is learned and read first is attached first.
	programs := []string{
		networkProgInetSockSetState, networkProgTcpRetransmitSkb, networkProgTcpRetransmitSynack,
		networkProgTcpReceiveReset, networkProgTcpSendReset, networkProgTcpProbe, networkProgNetDevQueue, drops,
	}
	raw := make([]string, len(programs))
	for i, p := range programs {
		raw[i] = p + "_raw"
	}
	if h.cgroupV1 {
		const before = "the container of a socket that was open before, until it closes a connection: cgroup v1"
		if lost = strings.Join([]string{lost, before}, "; "); strings.HasPrefix(lost, "; ") {
			lost = before
		}
	}
	without := func(what string) string {
		if lost == "" {
			return what
		}
		return what + "; " + lost
	}
	const queues = "full accept queues: the kernel refuses to run a program"
	return []variant{
		{mode: "tp_btf+run", programs: programs, run: networkProgCollectOverflows, lost: lost},
		{mode: "tp_btf", programs: programs, lost: without(queues)},
		{mode: "raw_tp+run", programs: raw, run: networkProgCollectOverflows, lost: lost},
		{mode: "raw_tp", programs: raw, lost: without(queues)},
	}
}

// prepareNetwork gives the programs what they need to know of the host.
func prepareNetwork(spec *ebpf.CollectionSpec, h host) error {
	spec.Maps[networkMapReasons].Contents = dropPlaces(kernelDropReasons(h.types))
	var v1 uint32
	if h.cgroupV1 {
		v1 = 1
	}
	if err := spec.Variables[networkVarCgroupV1].Set(v1); err != nil {
		return fmt.Errorf("telling the programs of cgroup v1: %w", err)
	}
	return nil
}

// tracepointArguments is how many values a tracepoint carries; 0 when it is not there.
func tracepointArguments(types *btf.Cache, name string) int {
	kernel, err := types.Kernel()
	if err != nil {
		return 0
	}
	var callback *btf.Typedef
	if kernel.TypeByName("btf_trace_"+name, &callback) != nil {
		return 0
	}
	pointer, ok := btf.UnderlyingType(callback).(*btf.Pointer)
	if !ok {
		return 0
	}
	proto, ok := pointer.Target.(*btf.FuncProto)
	if !ok {
		return 0
	}
	return len(proto.Params) - 1 // the first is the tracepoint's own
}

// cpuOnV1 reads /proc/PID/cgroup: there the unified hierarchy has no controllers listed.
func cpuOnV1(procfs string) bool {
	file, _ := os.ReadFile(filepath.Join(procfs, "self", "cgroup"))
	for line := range strings.Lines(string(file)) {
		if _, rest, ok := strings.Cut(line, ":"); ok {
			controllers, _, _ := strings.Cut(rest, ":")
			if slices.Contains(strings.Split(controllers, ","), "cpu") {
				return true
			}
		}
	}
	return false
}

// Network returns the counts since attach, those of the node under NodeGroup.
func (t *Tracer) Network() (map[uint64]Network, error) {
	coll, err := t.attached(ProbeNetwork)
	if err != nil {
		return nil, err
	}
	if err := collectOverflows(coll); err != nil {
		return nil, fmt.Errorf("collecting what listeners turned away: %w", err)
	}
	all := make(map[uint64]Network)
	err = readMap(coll.Maps[networkMapNetworks], func(id uint64, cpus []networkCounts) {
		var n Network
		// The order of network.bpf.c.
		events := [...]*uint64{
			&n.SegmentsSent, &n.SegmentsReceived, &n.Retransmits, &n.Connections,
			&n.AcceptOverflows, &n.Refused, &n.ResetsReceived, &n.ResetsSent,
		}
		for i := range cpus {
			for e, count := range cpus[i].Events {
				*events[e] += count
			}
			for r, count := range cpus[i].Drops {
				n.Drops[r] += count
			}
		}
		all[id] = n
	})
	if err != nil {
		return nil, fmt.Errorf("reading network counts: %w", err)
	}
	return all, nil
}

// collectOverflows has the kernel count what the known listeners turned away.
func collectOverflows(coll *ebpf.Collection) error {
	prog := coll.Programs[networkProgCollectOverflows]
	if prog == nil {
		return nil
	}
	var listeners []uint64
	if err := readMap(coll.Maps[networkMapListeners], func(socket uint64, _ []networkListener) { listeners = append(listeners, socket) }); err != nil {
		return err
	}
	for some := range slices.Chunk(listeners, len(networkSockets{})) {
		var sockets networkSockets
		copy(sockets[:], some)
		if _, err := prog.Run(&ebpf.RunOptions{Context: sockets}); err != nil {
			return err
		}
	}
	return nil
}

// networkSockets are the arguments of one run: MAX_ARGUMENTS of network.bpf.c.
type networkSockets [12]uint64

// OverflowsCounted tells whether full accept queues are among the counts.
func (t *Tracer) OverflowsCounted() bool {
	for _, p := range t.probes {
		if p.status.Probe == ProbeNetwork && p.coll != nil {
			return p.coll.Programs[networkProgCollectOverflows] != nil
		}
	}
	return false
}
