// Package traffic makes TCP and UDP over loopback that goes wrong in one way, or in
// none: what it takes is its own network namespace's loopback, so it works in any
// container and needs no module, no second host and no privilege; but some kernels ask
// for CAP_NET_ADMIN before a socket may filter, as Loss does, and Netem needs the module
// sch_netem and that capability.
package traffic

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Kind is what goes wrong.
type Kind string

// The kinds.
const (
	Calm   Kind = "calm"   // nothing
	Loss   Kind = "loss"   // one segment of four does not arrive
	Queue  Kind = "queue"  // a listener accepts nothing
	Refuse Kind = "refuse" // nobody listens
	Flood  Kind = "flood"  // a UDP socket is not read
	Netem  Kind = "netem"  // loopback loses one packet of five, for good: tc qdisc add dev lo root netem loss 20%
)

// Parse reads kinds separated by commas.
func Parse(list string) (kinds []Kind, err error) {
	for name := range strings.SplitSeq(list, ",") {
		switch k := Kind(name); k {
		case Calm, Loss, Queue, Refuse, Flood, Netem:
			kinds = append(kinds, k)
		default:
			return nil, fmt.Errorf("no traffic is called %q; want calm, loss, queue, refuse, flood or netem", name)
		}
	}
	return kinds, nil
}

// Run makes traffic of each kind in turn until ctx ends or something fails that is not
// meant to; while quiet tells so, only calm traffic.
func Run(ctx context.Context, kinds []Kind, quiet func() bool) error {
	var r rig
	defer r.close()
	for ctx.Err() == nil {
		for _, k := range kinds {
			if quiet() {
				k = Calm
			}
			if err := r.once(ctx, k); err != nil && ctx.Err() == nil {
				return fmt.Errorf("traffic of kind %s: %w", k, err)
			}
		}
	}
	return nil
}

// rig is what stays open from turn to turn.
type rig struct {
	dialer net.Dialer // without a time limit: a starved pod's own threads may be late
	full   net.Listener
	unread net.PacketConn
	sender net.Conn
	netem  bool // is in place
}

func (r *rig) close() {
	for _, c := range []io.Closer{r.full, r.unread, r.sender} {
		if c != nil {
			_ = c.Close()
		}
	}
}

// once takes some tenths of a second.
func (r *rig) once(ctx context.Context, k Kind) error {
	switch k {
	case Loss:
		return r.exchange(ctx, true)
	case Queue:
		return r.overflow(ctx)
	case Refuse:
		return r.refuse(ctx)
	case Flood:
		return r.flood(ctx)
	case Netem:
		if !r.netem {
			if err := loseSome(); err != nil {
				return err
			}
			r.netem, r.dialer.Timeout = true, time.Minute // a lost SYN is sent again after 1 s, 2 s, 4 s…
		}
	}
	return r.exchange(ctx, false)
}

func listen(ctx context.Context) (net.Listener, error) {
	return (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
}

// exchange sends 40 small messages over a connection of its own.
func (r *rig) exchange(ctx context.Context, lossy bool) error {
	l, err := listen(ctx)
	if err != nil {
		return err
	}
	defer l.Close()
	client, err := r.dialer.DialContext(ctx, "tcp", l.Addr().String())
	if err != nil {
		return err
	}
	defer client.Close()
	server, err := l.Accept()
	if err != nil {
		return err
	}
	defer server.Close()
	if lossy {
		if err := refuseSome(server.(*net.TCPConn)); err != nil {
			return err
		}
	}
	const messages, size = 40, 1000
	sent := make(chan error, 1)
	go func() {
		for range messages {
			if _, err := client.Write(make([]byte, size)); err != nil {
				sent <- err
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		sent <- nil
	}()
	if err := server.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		return err
	}
	if _, err := io.CopyN(io.Discard, server, messages*size); err != nil {
		return err
	}
	return <-sent
}

// refuseSome has a socket's own filter drop one segment of four, as a bad link would.
func refuseSome(c *net.TCPConn) error {
	const random = 0xffff_f000 + 56 // SKF_AD_OFF + SKF_AD_RANDOM
	program := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: random},
		{Code: unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, K: 3 << 30, Jt: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0xffff_ffff},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var refused error
	if err := raw.Control(func(fd uintptr) {
		refused = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
			&unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
	}); err != nil {
		return err
	}
	return refused
}

// loseSome puts netem on loopback.
func loseSome() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("looking for loopback: %w", err)
	}
	netem := netlink.NewNetem(netlink.QdiscAttrs{LinkIndex: lo.Attrs().Index, Parent: netlink.HANDLE_ROOT}, netlink.NetemQdiscAttrs{Loss: 20, Limit: 10_000})
	if err := netlink.QdiscReplace(netem); err != nil {
		return fmt.Errorf("putting netem on loopback: %w", err)
	}
	return nil
}

// overflow connects to a listener whose accept queue holds two and whom nobody empties.
func (r *rig) overflow(ctx context.Context) error {
	if r.full == nil {
		l, err := listen(ctx)
		if err != nil {
			return err
		}
		r.full = l
		raw, err := l.(*net.TCPListener).SyscallConn()
		if err != nil {
			return err
		}
		var shortened error
		if err := raw.Control(func(fd uintptr) { shortened = unix.Listen(int(fd), 1) }); err != nil {
			return err
		}
		if shortened != nil {
			return shortened
		}
	}
	hasty := net.Dialer{Timeout: 200 * time.Millisecond}
	client, err := hasty.DialContext(ctx, "tcp", r.full.Addr().String())
	if err == nil {
		return client.Close() // it stays in the queue
	}
	if !os.IsTimeout(err) {
		return err
	}
	return nil
}

// refuse connects to a port that was just closed.
func (r *rig) refuse(ctx context.Context) error {
	l, err := listen(ctx)
	if err != nil {
		return err
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		return err
	}
	client, err := r.dialer.DialContext(ctx, "tcp", address)
	if err == nil {
		_ = client.Close()
		return errors.New("somebody listens")
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return err
	}
	time.Sleep(100 * time.Millisecond)
	return nil
}

// flood sends 50 datagrams to a socket whose small buffer is full.
func (r *rig) flood(ctx context.Context) error {
	if r.unread == nil {
		c, err := (&net.ListenConfig{}).ListenPacket(ctx, "udp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		r.unread = c
		if err := c.(*net.UDPConn).SetReadBuffer(1); err != nil {
			return err
		}
		if r.sender, err = r.dialer.DialContext(ctx, "udp", c.LocalAddr().String()); err != nil {
			return err
		}
	}
	for range 50 {
		if _, err := r.sender.Write(make([]byte, 1000)); err != nil {
			return err
		}
	}
	time.Sleep(100 * time.Millisecond)
	return nil
}
