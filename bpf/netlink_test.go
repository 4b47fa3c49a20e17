package bpf

import (
	enc "encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// What ip and tc do, of which only so much is needed here: a cable between two network
// namespaces, and a queueing discipline that loses packets.

const (
	cable = "cable0" // at both ends

	tcaKind, tcaOptions, tcaStats2, tcaStatsQueue = 1, 2, 7, 3 // include/uapi/linux/rtnetlink.h, gen_stats.h
	vethPeer                                      = 1          // VETH_INFO_PEER, include/uapi/linux/veth.h
	tcRoot                                        = 0xffff_ffff
)

// tcMessage is struct tcmsg.
type tcMessage struct {
	Family         uint8
	_              [3]uint8
	Index          int32
	Handle, Parent uint32
	Info           uint32
}

// netem is struct tc_netem_qopt. Of what Loss is a part is 1<<32 - 1.
type netem struct{ Latency, Limit, Loss, Gap, Duplicate, Jitter uint32 }

func native(v any) []byte {
	b, err := enc.Append(nil, enc.NativeEndian, v)
	if err != nil {
		panic(err) // a type without a size
	}
	return b
}

// attribute is a struct rtattr and what it holds: bytes, or attributes.
func attribute(kind uint16, content ...[]byte) []byte {
	b := slices.Concat(content...)
	head := native(unix.RtAttr{Len: uint16(unix.SizeofRtAttr + len(b)), Type: kind})
	return slices.Concat(head, b, make([]byte, -len(b)&3))
}

// routeRequest sends a message of NETLINK_ROUTE and returns what the answer holds.
func routeRequest(kind, flags uint16, content ...[]byte) ([]byte, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	b := slices.Concat(content...)
	head := native(unix.NlMsghdr{Len: uint32(unix.SizeofNlMsghdr + len(b)), Type: kind, Flags: unix.NLM_F_REQUEST | flags})
	if err := unix.Sendto(fd, slices.Concat(head, b), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, err
	}
	answer := make([]byte, 16<<10)
	n, _, err := unix.Recvfrom(fd, answer, 0)
	if err != nil {
		return nil, err
	}
	said := enc.NativeEndian.Uint16(answer[4:])
	answer = answer[unix.SizeofNlMsghdr:n]
	if said == unix.NLMSG_ERROR {
		if errno := -int32(enc.NativeEndian.Uint32(answer)); errno != 0 {
			return nil, unix.Errno(errno)
		}
	}
	return answer, nil
}

// attributes finds the one of a kind; nil if it is not there.
func attributes(b []byte, kind uint16) []byte {
	for len(b) >= unix.SizeofRtAttr {
		n := int(enc.NativeEndian.Uint16(b))
		if n < unix.SizeofRtAttr || n > len(b) {
			return nil
		}
		if enc.NativeEndian.Uint16(b[2:])&^unix.NLA_F_NESTED == kind {
			return b[unix.SizeofRtAttr:n]
		}
		b = b[min(len(b), (n+3)&^3):]
	}
	return nil
}

func hardware(end int) []byte { return []byte{2, 0, 0, 0, 0, byte(end)} }

func cableAddress(end int) netip.Addr { return netip.AddrFrom4([4]byte{10, 111, 0, byte(end)}) }

// layCable makes a pair of veth, an end in the network namespace of each process.
func layCable(one, two int) error {
	end := func(n, pid int) []byte {
		return slices.Concat(
			attribute(unix.IFLA_IFNAME, []byte(cable+"\x00")),
			attribute(unix.IFLA_ADDRESS, hardware(n)),
			attribute(unix.IFLA_NET_NS_PID, native(uint32(pid))),
		)
	}
	_, err := routeRequest(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK,
		native(unix.IfInfomsg{}), end(1, one),
		attribute(unix.IFLA_LINKINFO,
			attribute(unix.IFLA_INFO_KIND, []byte("veth")),
			attribute(unix.IFLA_INFO_DATA, attribute(vethPeer, native(unix.IfInfomsg{}), end(2, two)))))
	return err
}

func cableIndex() (int32, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	link, err := unix.NewIfreq(cable)
	if err != nil {
		return 0, err
	}
	err = unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, link)
	return int32(link.Uint32()), err
}

// plugIn gives this namespace's end of the cable its address and brings it up. Who is at
// the other end is told beforehand, and IPv6 is off: of the packets none is the kernel's own.
func plugIn(end int) error {
	err := os.WriteFile("/proc/sys/net/ipv6/conf/"+cable+"/disable_ipv6", []byte("1"), 0o644)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	index, err := cableIndex()
	if err != nil {
		return err
	}
	other := 3 - end
	for _, m := range []struct {
		kind    uint16
		content [][]byte
	}{
		{unix.RTM_NEWADDR, [][]byte{
			native(unix.IfAddrmsg{Family: unix.AF_INET, Prefixlen: 24, Index: uint32(index)}),
			attribute(unix.IFA_LOCAL, cableAddress(end).AsSlice()),
		}},
		{unix.RTM_NEWLINK, [][]byte{native(unix.IfInfomsg{Index: index, Flags: unix.IFF_UP, Change: unix.IFF_UP})}},
		{unix.RTM_NEWNEIGH, [][]byte{
			native(unix.NdMsg{Family: unix.AF_INET, Ifindex: index, State: unix.NUD_PERMANENT}),
			attribute(unix.NDA_DST, cableAddress(other).AsSlice()), attribute(unix.NDA_LLADDR, hardware(other)),
		}},
	} {
		if _, err := routeRequest(m.kind, unix.NLM_F_CREATE|unix.NLM_F_ACK, m.content...); err != nil {
			return fmt.Errorf("plugging in end %d (message %d): %w", end, m.kind, err)
		}
	}
	return nil
}

// losePercent has netem lose so many percent of what goes into this end of the cable.
func losePercent(percent int) error {
	index, err := cableIndex()
	if err != nil {
		return err
	}
	_, err = routeRequest(unix.RTM_NEWQDISC, unix.NLM_F_CREATE|unix.NLM_F_REPLACE|unix.NLM_F_ACK,
		native(tcMessage{Index: index, Parent: tcRoot}),
		attribute(tcaKind, []byte("netem\x00")),
		attribute(tcaOptions, native(netem{Limit: 10_000, Loss: uint32(percent * ((1<<32 - 1) / 100))})))
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) {
		return errNoNetem
	}
	return err
}

var errNoNetem = errors.New("this kernel has no netem")

// lost is how many packets the cable's discipline has dropped (tc -s qdisc).
func lost() (uint32, error) {
	index, err := cableIndex()
	if err != nil {
		return 0, err
	}
	// Without an echo old kernels answer only who listens for all changes.
	answer, err := routeRequest(unix.RTM_GETQDISC, unix.NLM_F_ECHO, native(tcMessage{Index: index, Parent: tcRoot}))
	if err != nil {
		return 0, err
	}
	queue := attributes(attributes(answer[min(len(answer), enc.Size(tcMessage{})):], tcaStats2), tcaStatsQueue)
	const drops = 8 // struct gnet_stats_queue: after qlen and backlog
	if len(queue) < drops+4 {
		return 0, fmt.Errorf("its answer of %d bytes has no statistics", len(answer))
	}
	return enc.NativeEndian.Uint32(queue[drops:]), nil
}
