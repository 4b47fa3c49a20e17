package bpf

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf/btf"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// The traffic is that of a child in a network namespace of its own, over its loopback:
// no module and no other host is needed, and the kernel's files in /proc/PID/net count
// the very same packets.

// startAlone starts a child in a network namespace of its own.
func (g *group) startAlone(t testing.TB) *process {
	t.Helper()
	cmd := orders()
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	return g.run(t, cmd)
}

// trafficKinds are what a child can be ordered to do in its network namespace.
func trafficKinds() map[string]func([]int) error {
	return map[string]func([]int) error{
		"transfer": func(n []int) error { return transfer(n[0], n[1]) },
		"queue":    func(n []int) error { return overflowQueue(n[0]) },
		"refuse":   func(n []int) error { return beRefused(n[0]) },
		"reset":    func(n []int) error { return beReset(n[0]) },
		"flood":    func(n []int) error { return flood(n[0], true) },
		"unheard":  func(n []int) error { return flood(n[0], false) },
		"exchange": func(n []int) error { return exchange(n[0]) },

		// Over a cable to another namespace.
		"plug": func(n []int) error { return plugIn(n[0]) },
		"lossy": func(n []int) error { // answers with a negative number where that can't be had
			err := losePercent(n[0])
			if errors.Is(err, errNoNetem) {
				n[0] = -1
				return nil
			}
			return err
		},
		"lost": func(n []int) error { // answers with how many
			dropped, err := lost()
			n[0] = int(dropped)
			return err
		},
		"serve": func([]int) error { return serve() },
		"send":  func(n []int) error { return send(n[0]) },
		"mail":  func(n []int) error { return mail(n[0], n[1]) },
	}
}

// upLoopback brings up lo, which a new namespace has down.
func upLoopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo)
}

func loopback(port int) *unix.SockaddrInet4 {
	return &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}
}

// listen returns a listening socket that holds two connections, and its port.
func listen() (fd, port int, err error) {
	if err := upLoopback(); err != nil {
		return 0, 0, err
	}
	if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return 0, 0, err
	}
	if err := unix.Bind(fd, loopback(0)); err != nil {
		return 0, 0, err
	}
	if err := unix.Listen(fd, 1); err != nil {
		return 0, 0, err
	}
	addr, err := unix.Getsockname(fd)
	if err != nil {
		return 0, 0, err
	}
	return fd, addr.(*unix.SockaddrInet4).Port, nil
}

// connection is both ends of one.
func connection(listener, port int) (client, server int, err error) {
	if client, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return 0, 0, err
	}
	if err := unix.Connect(client, loopback(port)); err != nil {
		return 0, 0, err
	}
	server, _, err = unix.Accept(listener)
	return client, server, err
}

// transfer sends n bytes to a receiver that loses one segment of every so many: its
// socket has a filter that refuses them at random, as a bad link would.
func transfer(n, every int) error {
	listener, port, err := listen()
	if err != nil {
		return err
	}
	defer unix.Close(listener)
	client, server, err := connection(listener, port)
	if err != nil {
		return err
	}
	defer unix.Close(client)
	defer unix.Close(server)
	if every > 0 {
		const random = 0xffff_f000 + 56 // SKF_AD_OFF + SKF_AD_RANDOM
		program := []unix.SockFilter{
			{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: random},
			{Code: unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, K: 1<<32 - 1 - uint32((1<<32-1)/every), Jt: 1},
			{Code: unix.BPF_RET | unix.BPF_K, K: 0xffff_ffff},
			{Code: unix.BPF_RET | unix.BPF_K, K: 0},
		}
		if err := unix.SetsockoptSockFprog(server, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
			&unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}); err != nil {
			return err
		}
	}
	sent := make(chan error, 1)
	go func() {
		chunk := make([]byte, 1400) // a segment, so that a loss costs one
		if err := unix.SetsockoptInt(client, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
			sent <- err
			return
		}
		for left := n; left > 0; {
			m, err := unix.Write(client, chunk[:min(left, len(chunk))])
			if err != nil {
				sent <- err
				return
			}
			left -= m
		}
		sent <- unix.Shutdown(client, unix.SHUT_WR)
	}()
	b := make([]byte, 64<<10)
	for got := 0; got < n; {
		m, err := unix.Read(server, b)
		if err != nil {
			return err
		}
		if m == 0 {
			return fmt.Errorf("%d of %d bytes", got, n)
		}
		got += m
	}
	return <-sent
}

// exchange passes a byte back and forth over one connection.
func exchange(n int) error {
	listener, port, err := listen()
	if err != nil {
		return err
	}
	defer unix.Close(listener)
	client, server, err := connection(listener, port)
	if err != nil {
		return err
	}
	defer unix.Close(client)
	defer unix.Close(server)
	b := make([]byte, 1)
	for range n {
		for _, pass := range [][2]int{{client, server}, {server, client}} {
			if _, err := unix.Write(pass[0], b); err != nil {
				return err
			}
			if _, err := unix.Read(pass[1], b); err != nil {
				return err
			}
		}
	}
	return nil
}

// The ports of the far end of the cable.
const (
	servedPort  = 7000
	closedPort  = 7001
	mailboxPort = 7002
)

// serve reads what connections bring, one after another, and has a mailbox that is never emptied.
func serve() error {
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{Port: servedPort})
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, c)
			_ = c.Close()
		}
	}()
	mailbox, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.SetsockoptInt(mailbox, unix.SOL_SOCKET, unix.SO_RCVBUF, 1); err != nil {
		return err
	}
	return unix.Bind(mailbox, &unix.SockaddrInet4{Port: mailboxPort})
}

// send brings n bytes to who serves at the far end, a segment at a time, and waits
// until all have been read.
func send(n int) error {
	c, err := net.DialTCP("tcp4", nil, net.TCPAddrFromAddrPort(netip.AddrPortFrom(cableAddress(2), servedPort)))
	if err != nil {
		return err
	}
	defer c.Close()
	for chunk := make([]byte, 1400); n > 0; n -= len(chunk) {
		if _, err := c.Write(chunk[:min(n, len(chunk))]); err != nil {
			return err
		}
	}
	if err := c.CloseWrite(); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, c)
	return err
}

// mail sends n datagrams to a port of the far end.
func mail(n, port int) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for range n {
		if err := unix.Sendto(fd, make([]byte, 1000), 0, &unix.SockaddrInet4{Port: port, Addr: cableAddress(2).As4()}); err != nil {
			return err
		}
	}
	return nil
}

// overflowQueue connects to a listener that accepts nothing, until it has turned away n
// connections at least, and leaves it open.
func overflowQueue(n int) error {
	const holds = 2 // with a backlog of 1
	listener, port, err := listen()
	if err != nil {
		return err
	}
	var clients []int
	defer func() {
		for _, fd := range clients {
			_ = unix.Close(fd)
		}
	}()
	for i := range n + holds {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return err
		}
		clients = append(clients, fd)
		if err := unix.Connect(fd, loopback(port)); !errors.Is(err, unix.EINPROGRESS) && err != nil {
			return err
		}
		if i < holds {
			if err := queued(listener, uint32(i+1)); err != nil {
				return err
			}
		}
	}
	return nil
}

// queued waits until so many connections wait at a listener. One that the kernel only
// then finds no room for, by its last acknowledgement, adds 2 to the listener's drops and
// 1 to ListenDrops (tcp_v4_syn_recv_sock, and tcp_v4_rcv after it).
func queued(listener int, n uint32) error {
	for range 1000 {
		info, err := unix.GetsockoptTCPInfo(listener, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			return err
		}
		if info.Unacked >= n { // of a listener: sk_ack_backlog
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return fmt.Errorf("no %d connections wait after 10 s", n)
}

// beRefused connects to a port where nobody listens.
func beRefused(n int) error {
	listener, port, err := listen()
	if err != nil {
		return err
	}
	if err := unix.Close(listener); err != nil {
		return err
	}
	for range n {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		err = unix.Connect(fd, loopback(port))
		_ = unix.Close(fd)
		if !errors.Is(err, unix.ECONNREFUSED) {
			return fmt.Errorf("want a refusal, got %w", err)
		}
	}
	return nil
}

// beReset has the clients of n connections give them up at once.
func beReset(n int) error {
	listener, port, err := listen()
	if err != nil {
		return err
	}
	defer unix.Close(listener)
	for range n {
		client, server, err := connection(listener, port)
		if err != nil {
			return err
		}
		if err := unix.SetsockoptLinger(client, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
			return err
		}
		if err := unix.Close(client); err != nil {
			return err
		}
		_, err = unix.Read(server, make([]byte, 1))
		_ = unix.Close(server)
		if !errors.Is(err, unix.ECONNRESET) {
			return fmt.Errorf("want a reset, got %w", err)
		}
	}
	return nil
}

// flood sends n datagrams to a socket that reads none, or where there is none.
func flood(n int, heard bool) error {
	if err := upLoopback(); err != nil {
		return err
	}
	receiver, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.Bind(receiver, loopback(0)); err != nil {
		return err
	}
	addr, err := unix.Getsockname(receiver)
	if err != nil {
		return err
	}
	if !heard {
		_ = unix.Close(receiver)
	} else if err := unix.SetsockoptInt(receiver, unix.SOL_SOCKET, unix.SO_RCVBUF, 1); err != nil {
		return err
	}
	sender, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	for range n {
		if err := unix.Sendto(sender, make([]byte, 1000), 0, addr); err != nil {
			return err
		}
	}
	return nil
}

// counted reads a counter of the child's network namespace, as Tcp RetransSegs of snmp.
func (p *process) counted(t testing.TB, file, protocol, name string) uint64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", p.pid, file))
	require.NoError(t, err)
	var names []string
	for line := range strings.Lines(string(b)) {
		words := strings.Fields(line)
		if words[0] != protocol+":" {
			continue
		}
		if names == nil {
			names = words
			continue
		}
		i := slices.Index(names, name)
		require.Positive(t, i, "no %s in %s", name, file)
		n, err := strconv.ParseUint(words[i], 10, 64)
		require.NoError(t, err)
		return n
	}
	require.Fail(t, "no such protocol", "%s in %s", protocol, file)
	return 0
}

// settled waits until nothing is sent any more in the child's network namespace.
func (p *process) settled(t testing.TB) {
	t.Helper()
	last, since := uint64(0), time.Now()
	require.Eventually(t, func() bool {
		if out := p.counted(t, "snmp", "Tcp", "OutSegs"); out != last {
			last, since = out, time.Now()
		}
		return time.Since(since) > time.Second
	}, time.Minute, 20*time.Millisecond)
}

func dropsOf(t testing.TB, n Network, reason string) uint64 {
	t.Helper()
	names := DropReasons()
	i := slices.Index(names[:], reason)
	require.GreaterOrEqual(t, i, 0, reason)
	return n.Drops[i]
}

func near(a, b uint64) float64 { return agreement(time.Duration(a), time.Duration(b)) }

func TestNetworkAgreesWithTheKernel(t *testing.T) {
	tracer := open(t, Config{Probes: []Probe{ProbeNetwork}})
	if !attached(t, tracer, ProbeNetwork) {
		_, err := tracer.Network()
		assert.ErrorIs(t, err, ErrNotAttached)
		return
	}
	require.True(t, tracer.OverflowsCounted())
	h := examine("/proc")
	told := h.dropArguments >= 3 // why

	calm := newGroup(t)
	neighbour := calm.startAlone(t)
	neighbour.order(t, "transfer %d 0", 1<<20)
	neighbour.answer(t)
	read := func(t *testing.T, g *group) Network {
		all, err := tracer.Network()
		require.NoError(t, err)
		return all[g.id]
	}

	t.Run("loss", func(t *testing.T) {
		g := newGroup(t)
		p := g.startAlone(t)
		p.order(t, "transfer %d 5", 4<<20) // some seventy segments at least
		p.answer(t)
		p.settled(t)
		n := read(t, g)
		again, out := p.counted(t, "snmp", "Tcp", "RetransSegs"), p.counted(t, "snmp", "Tcp", "OutSegs")
		require.NotZero(t, again)
		assert.Equal(t, again, n.Retransmits)
		assert.InEpsilon(t, out+again, n.SegmentsSent, 0.01)
		// What one end sent the other received, but for what was lost and the end of the connection.
		assert.LessOrEqual(t, n.SegmentsReceived, n.SegmentsSent)
		assert.Greater(t, n.SegmentsReceived, n.SegmentsSent/2)
		assert.EqualValues(t, 2, n.Connections, "both ends are here")
		assert.Zero(t, n.AcceptOverflows+n.Refused+n.ResetsReceived+n.ResetsSent)
		report(tracer, ProbeNetwork, "segments sent again, RetransSegs", near(n.Retransmits, again))
		report(tracer, ProbeNetwork, "segments sent, OutSegs and RetransSegs", near(n.SegmentsSent, out+again))
		if h.dropArguments >= 4 { // the receiving socket is told
			assert.NotZero(t, dropsOf(t, n, "socket_filter"))
		}
	})

	t.Run("full accept queue", func(t *testing.T) {
		g := newGroup(t)
		p := g.startAlone(t)
		p.order(t, "queue 20")
		p.answer(t)
		n := read(t, g)
		full, turned := p.counted(t, "netstat", "TcpExt", "ListenOverflows"), p.counted(t, "netstat", "TcpExt", "ListenDrops")
		require.GreaterOrEqual(t, full, uint64(20))
		assert.Equal(t, turned, n.AcceptOverflows)
		assert.Equal(t, n.AcceptOverflows, read(t, g).AcceptOverflows, "read twice, counted once")
		report(tracer, ProbeNetwork, "turned away at the accept queue, ListenDrops", near(n.AcceptOverflows, turned))

		// Once more with another listener, whose end the probe sees before it reads.
		p.order(t, "queue 10")
		p.answer(t)
		p.order(t, "stop")
		require.Eventually(t, func() bool { return read(t, g).AcceptOverflows >= n.AcceptOverflows+10 }, 10*time.Second, 20*time.Millisecond)
	})

	t.Run("refused", func(t *testing.T) {
		g := newGroup(t)
		p := g.startAlone(t)
		p.order(t, "refuse 25")
		p.answer(t)
		n := read(t, g)
		failed := p.counted(t, "snmp", "Tcp", "AttemptFails")
		assert.EqualValues(t, 25, failed)
		assert.Equal(t, failed, n.Refused)
		assert.Zero(t, n.ResetsReceived)
		if told {
			assert.EqualValues(t, 25, dropsOf(t, n, "no_socket"), "of the SYN that nobody took")
		}
		report(tracer, ProbeNetwork, "refused, AttemptFails", near(n.Refused, failed))
	})

	t.Run("reset", func(t *testing.T) {
		g := newGroup(t)
		p := g.startAlone(t)
		p.order(t, "reset 25")
		p.answer(t)
		n := read(t, g)
		sent := p.counted(t, "snmp", "Tcp", "OutRsts")
		assert.EqualValues(t, 25, n.ResetsReceived)
		assert.Zero(t, n.Refused)
		assert.Equal(t, sent, n.ResetsSent)
		report(tracer, ProbeNetwork, "resets sent, OutRsts", near(n.ResetsSent, sent))
	})

	t.Run("full receive buffer", func(t *testing.T) {
		g := newGroup(t)
		p := g.startAlone(t)
		p.order(t, "exchange 1") // by which the namespace becomes known on cgroup v1
		p.answer(t)
		before := read(t, g)
		p.order(t, "flood 500")
		p.answer(t)
		n := read(t, g)
		lost := p.counted(t, "snmp", "Udp", "RcvbufErrors")
		require.NotZero(t, lost)
		if told {
			assert.Equal(t, lost, dropsOf(t, n, "socket_rcvbuff"))
			report(tracer, ProbeNetwork, "drops for socket_rcvbuff, RcvbufErrors", near(dropsOf(t, n, "socket_rcvbuff"), lost))
		} else {
			got := dropsOf(t, n, DropNotSpecified) - dropsOf(t, before, DropNotSpecified)
			assert.GreaterOrEqual(t, got, lost)
			report(tracer, ProbeNetwork, "drops for no reason given, at least RcvbufErrors", 100)
		}
	})

	t.Run("nobody listens", func(t *testing.T) {
		g := newGroup(t)
		p := g.startAlone(t)
		p.order(t, "exchange 1")
		p.answer(t)
		p.order(t, "unheard 100")
		p.answer(t)
		ports := p.counted(t, "snmp", "Udp", "NoPorts")
		require.EqualValues(t, 100, ports)
		if n := read(t, g); told {
			assert.Equal(t, ports, dropsOf(t, n, "no_socket"))
		} else {
			assert.GreaterOrEqual(t, dropsOf(t, n, DropNotSpecified), ports)
		}
	})

	t.Run("the neighbour", func(t *testing.T) {
		n := read(t, calm)
		assert.NotZero(t, n.SegmentsSent)
		assert.Equal(t, neighbour.counted(t, "snmp", "Tcp", "RetransSegs"), n.Retransmits)
		assert.Zero(t, n.AcceptOverflows+n.Refused+n.ResetsReceived+n.ResetsSent)
		for i, drops := range n.Drops {
			assert.True(t, drops == 0 || DropReasons()[i] == DropNotSpecified, "%d drops: %s", drops, DropReasons()[i])
		}
	})
	for _, p := range tracer.Programs() {
		if p.Runs > 0 {
			t.Logf("%s: %d runs of %s", p.Program, p.Runs, p.RunTime/time.Duration(p.Runs))
		}
	}
	checkNothingIsLost(t, tracer)
}

// Two containers of one pod: each has its own sockets, and what has none is the node's.
func TestPodOfTwoContainers(t *testing.T) {
	tracer := open(t, Config{Probes: []Probe{ProbeNetwork}})
	if !attached(t, tracer, ProbeNetwork) {
		return
	}
	app, sidecar := newGroup(t), newGroup(t)
	p := app.startAlone(t)
	cmd := orders()
	cmd.Args = []string{"/proc/self/exe"}
	cmd.Env = append(cmd.Env, inNamespaceOf+"="+strconv.Itoa(p.pid))
	q := sidecar.run(t, cmd)
	before, err := tracer.Network()
	require.NoError(t, err)
	p.order(t, "exchange 10")
	p.answer(t)
	q.order(t, "refuse 7")
	q.answer(t)
	q.order(t, "unheard 100")
	q.answer(t)
	require.EqualValues(t, 100, p.counted(t, "snmp", "Udp", "NoPorts"), "they share the namespace")
	all, err := tracer.Network()
	require.NoError(t, err)
	assert.EqualValues(t, 7, all[sidecar.id].Refused)
	assert.Zero(t, all[app.id].Refused)
	reason := "no_socket"
	if examine("/proc").dropArguments < 3 {
		reason = DropNotSpecified
	}
	assert.GreaterOrEqual(t, dropsOf(t, all[NodeGroup], reason)-dropsOf(t, before[NodeGroup], reason), uint64(100))
	assert.Less(t, dropsOf(t, all[app.id], reason), uint64(10), "without reasons some are told that nobody misses")
}

// The answer to a connection makes known a listener that is older than the probe.
func TestListenerOlderThanTheProbe(t *testing.T) {
	needRoot(t)
	g := newGroup(t)
	p := g.startAlone(t)
	p.order(t, "queue 5") // leaves a listener behind, with a full queue
	p.answer(t)
	old := p.counted(t, "netstat", "TcpExt", "ListenDrops")
	tracer := open(t, Config{Probes: []Probe{ProbeNetwork}})
	if !attached(t, tracer, ProbeNetwork) {
		return
	}
	p.order(t, "queue 5") // another
	p.answer(t)
	all, err := tracer.Network()
	require.NoError(t, err)
	assert.Equal(t, p.counted(t, "netstat", "TcpExt", "ListenDrops")-old, all[g.id].AcceptOverflows)
}

// Two containers with a cable between them, of which one's end loses packets: who sends
// into it has the loss, who does not receive what came over has that, and nobody else.
func TestLossAndDropsBetweenNamespaces(t *testing.T) {
	tracer := open(t, Config{Probes: []Probe{ProbeNetwork}})
	if !attached(t, tracer, ProbeNetwork) {
		return
	}
	sender, receiver, quiet := newGroup(t), newGroup(t), newGroup(t)
	p, q, neighbour := sender.startAlone(t), receiver.startAlone(t), quiet.startAlone(t)
	if err := layCable(p.pid, q.pid); errors.Is(err, unix.EOPNOTSUPP) {
		t.Skip("this kernel has no veth")
	} else {
		require.NoError(t, err)
	}
	p.do(t, "plug 1")
	q.do(t, "plug 2")
	q.do(t, "serve 0")
	neighbour.do(t, "transfer %d 0", 1<<20)
	p.order(t, "lossy 10")
	hasNetem := p.answer(t) > 0
	p.do(t, "send %d", 2<<20) // some 150 segments lost
	for _, p := range []*process{p, q} {
		p.settled(t)
	}
	all, err := tracer.Network()
	require.NoError(t, err)
	before := all[receiver.id]
	if hasNetem {
		n, again, out := all[sender.id], p.counted(t, "snmp", "Tcp", "RetransSegs"), p.counted(t, "snmp", "Tcp", "OutSegs")
		require.NotZero(t, again)
		assert.Equal(t, again, n.Retransmits)
		assert.InEpsilon(t, out+again, n.SegmentsSent, 0.01)
		assert.EqualValues(t, 1, n.Connections, "the other end is elsewhere")
		report(tracer, ProbeNetwork, "netem: segments sent again, RetransSegs", near(n.Retransmits, again))
		report(tracer, ProbeNetwork, "netem: segments sent, OutSegs and RetransSegs", near(n.SegmentsSent, out+again))
		p.order(t, "lost 0")
		dropped := uint64(p.answer(t))
		t.Logf("%d segments sent, %d of them again; netem dropped %d packets", n.SegmentsSent, n.Retransmits, dropped)
		require.NotZero(t, dropped)
		if examine("/proc").dropArguments >= 4 { // since 6.3 a discipline's drops have a reason
			assert.Equal(t, dropped, dropsOf(t, n, "qdisc_drop"))
			report(tracer, ProbeNetwork, "netem: drops for qdisc_drop, dropped as tc -s has it", near(dropsOf(t, n, "qdisc_drop"), dropped))
		} else {
			assert.GreaterOrEqual(t, dropsOf(t, n, "qdisc_drop")+dropsOf(t, n, DropNotSpecified), dropped)
			report(tracer, ProbeNetwork, "netem: drops for no reason given, at least dropped as tc -s has it", 100)
		}
		p.do(t, "lossy 0")
	}
	assert.Equal(t, q.counted(t, "snmp", "Tcp", "RetransSegs"), before.Retransmits, "the receiver's end loses nothing")
	assert.Zero(t, dropsOf(t, before, "qdisc_drop"))

	if hasNetem { // answers to connections are lost, and none is turned away
		q.do(t, "lossy 50")
		for range 6 {
			p.do(t, "send 1")
		}
		q.do(t, "lossy 0")
		all, err = tracer.Network()
		require.NoError(t, err)
		n, again := all[receiver.id], q.counted(t, "snmp", "Tcp", "RetransSegs")
		t.Logf("the receiver sent %d segments again; %d drops of its listener", again, q.counted(t, "netstat", "TcpExt", "ListenDrops"))
		assert.Equal(t, again, n.Retransmits)
		assert.Equal(t, q.counted(t, "netstat", "TcpExt", "ListenDrops"), n.AcceptOverflows)
		before = n
	}
	p.do(t, "mail 100 %d", closedPort)
	p.do(t, "mail 300 %d", mailboxPort)
	all, err = tracer.Network()
	require.NoError(t, err)
	n := all[receiver.id]
	for reason, counter := range map[string]string{"no_socket": "NoPorts", "socket_rcvbuff": "RcvbufErrors"} {
		want := q.counted(t, "snmp", "Udp", counter)
		require.GreaterOrEqual(t, want, uint64(100))
		if examine("/proc").dropArguments >= 3 {
			assert.Equal(t, want, dropsOf(t, n, reason)-dropsOf(t, before, reason))
			assert.Zero(t, dropsOf(t, all[sender.id], reason), "the sender drops nothing")
			report(tracer, ProbeNetwork, fmt.Sprintf("drops between namespaces for %s, %s", reason, counter), near(dropsOf(t, n, reason)-dropsOf(t, before, reason), want))
		} else {
			assert.GreaterOrEqual(t, dropsOf(t, n, DropNotSpecified)-dropsOf(t, before, DropNotSpecified), want)
		}
	}
	assert.Equal(t, neighbour.counted(t, "snmp", "Tcp", "RetransSegs"), all[quiet.id].Retransmits)
	for i, drops := range all[quiet.id].Drops {
		assert.True(t, drops == 0 || DropReasons()[i] == DropNotSpecified, "%d drops of the neighbour: %s", drops, DropReasons()[i])
	}
	checkNothingIsLost(t, tracer)
	if !hasNetem {
		t.Skip("this kernel has no netem: drops alone were tried")
	}
}

func TestDropPlaces(t *testing.T) {
	names := DropReasons()
	place := func(reasons []btf.EnumValue, n uint32) uint32 {
		for _, kv := range dropPlaces(reasons) {
			if kv.Key == n {
				return kv.Value.(uint32)
			}
		}
		t.Fatalf("no place for %d", n)
		return 0
	}
	assert.Len(t, dropPlaces(nil), 256)
	assert.Equal(t, DropNotSpecified, names[place(nil, 0)], "before 5.17")
	values := []btf.EnumValue{
		{Name: "SKB_NOT_DROPPED_YET", Value: 0}, {Name: "SKB_CONSUMED", Value: 1}, {Name: "SKB_DROP_REASON_NOT_SPECIFIED", Value: 2},
		{Name: "SKB_DROP_REASON_NO_SOCKET", Value: 3}, {Name: "SKB_DROP_REASON_QDISC_OVERLIMIT", Value: 4},
		{Name: "SKB_DROP_REASON_OTHERHOST", Value: 5}, {Name: "SKB_DROP_REASON_BRAND_NEW", Value: 6}, {Name: "SKB_DROP_REASON_SUBSYS_MASK", Value: 0xffff0000},
	}
	for n, want := range map[uint32]string{2: DropNotSpecified, 3: "no_socket", 4: "qdisc_drop", 6: DropOther, 255: DropOther} {
		assert.Equal(t, want, names[place(values, n)], n)
	}
	assert.EqualValues(t, ignoredDrop, place(values, 5))
	assert.Equal(t, DropOther, names[len(names)-1])
	sorted := slices.Sorted(slices.Values(names[:]))
	assert.Len(t, slices.Compact(sorted), len(names), "each once")
}

func TestDropProgram(t *testing.T) {
	spec, err := loadNetwork()
	require.NoError(t, err)
	for arguments, told := range map[int]bool{0: false, 2: false, 3: true, 4: true, 5: true} {
		program, lost := dropProgram(arguments)
		assert.Contains(t, spec.Programs, program)
		assert.Equal(t, told, lost == "")
	}
	for _, h := range []host{{dropArguments: 2, cgroupV1: true}, {dropArguments: 4}} {
		for _, v := range networkVariants(h) {
			for _, p := range v.programs {
				assert.Contains(t, spec.Programs, p)
			}
		}
	}
	assert.Empty(t, networkVariants(host{dropArguments: 4})[0].lost)
}

func TestCPUOnV1(t *testing.T) {
	for name, c := range map[string]struct {
		file string
		want bool
	}{
		"v1":     {"5:cpuset:/\n4:cpu,cpuacct:/a\n0::/\n", true},
		"v2":     {"0::/system.slice\n", false},
		"hybrid": {"1:name=systemd:/\n2:cpuset:/\n0::/x\n", false},
		"none":   {"", false},
	} {
		dir := t.TempDir()
		require.NoError(t, os.Mkdir(dir+"/self", 0o755))
		require.NoError(t, os.WriteFile(dir+"/self/cgroup", []byte(c.file), 0o644))
		assert.Equal(t, c.want, cpuOnV1(dir), name)
	}
	assert.False(t, cpuOnV1(t.TempDir()))
}

// What a segment costs with the probe, both ends included: each operation is two small
// messages and their acknowledgements over loopback.
func BenchmarkSegments(b *testing.B) {
	needRoot(b)
	h := examine("/proc")
	for _, v := range append([]variant{{mode: "none"}}, networkVariants(h)...) {
		b.Run(v.mode, func(b *testing.B) {
			p := &probe{status: Status{Probe: ProbeNetwork}}
			if len(v.programs) > 0 {
				if err := p.try(loadNetwork, v, slotTable{}, DefaultMaxGroups, h); err != nil {
					b.Skipf("this kernel does not have it: %v", err)
				}
			}
			b.Cleanup(func() { require.NoError(b, p.close()) })
			process := newGroup(b).startAlone(b)
			process.order(b, "exchange 1")
			process.answer(b)
			b.ResetTimer()
			process.order(b, "exchange %d", b.N)
			process.answer(b)
		})
	}
}
