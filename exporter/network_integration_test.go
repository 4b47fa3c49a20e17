package main

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/kernel-gossip/kernel-gossip/operator/wire"
)

// communicate connects over the loopback of its own network namespace until it reads a
// second line: to a listener whose queue nobody empties, or (calm) that accepts.
func communicate(role string) {
	must := func(err error) {
		if err != nil {
			panic(err)
		}
	}
	awaitLine()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	must(err)
	lo, err := unix.NewIfreq("lo")
	must(err)
	lo.SetUint16(unix.IFF_UP)
	must(unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	if role == "network:full" {
		raw, err := l.(*net.TCPListener).SyscallConn()
		must(err)
		must(raw.Control(func(fd uintptr) { err = unix.Listen(int(fd), 1) }))
		must(err)
	} else {
		go func() {
			for {
				c, err := l.Accept()
				must(err)
				_ = c.Close()
			}
		}()
	}
	var stopped sync.WaitGroup
	ended := make(chan struct{})
	stopped.Go(func() {
		for {
			select {
			case <-ended:
				return
			case <-time.After(20 * time.Millisecond):
			}
			if c, err := net.DialTimeout("tcp", l.Addr().String(), 100*time.Millisecond); err == nil {
				_ = c.Close()
			}
		}
	})
	awaitLine()
	close(ended)
	stopped.Wait()
	fmt.Println(0)
	awaitLine() // the listener stays until the input ends
}

// listenDrops is what the kernel counted in a child's network namespace.
func (c *child) listenDrops() float64 {
	c.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/netstat", c.cmd.Process.Pid))
	require.NoError(c.t, err)
	var names []string
	for line := range strings.Lines(string(b)) {
		words := strings.Fields(line)
		switch {
		case words[0] != "TcpExt:":
		case names == nil:
			names = words
		default:
			n, err := strconv.ParseFloat(words[slices.Index(names, "ListenDrops")], 64)
			require.NoError(c.t, err)
			return n
		}
	}
	require.Fail(c.t, "no ListenDrops")
	return 0
}

func TestFullAcceptQueueOfARealWorkload(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it attaches BPF programs and makes cgroups")
	}
	told, url := listenFor[wire.NetworkIssue](t, wire.TypeNetworkIssue)
	full, quiet := newGroup(t, "full"), newGroup(t, "accepting")
	crowded, calm := full.child("network:full"), quiet.child("network:calm")
	e := startExporter(t, "--whisper.url="+url)
	const overflows = "network_accept_queue_overflows_total"
	for _, g := range []*group{full, quiet} {
		e.eventually(g.series(overflows), time.Minute)
	}
	for _, c := range []*child{crowded, calm} {
		c.begin()
	}
	require.Eventually(t, func() bool { return len(told.of(full)) > 0 }, 2*time.Minute, 100*time.Millisecond, "no event tells of the full queue")
	ev := told.of(full)[0]
	require.NotNil(t, ev.AcceptQueueOverflows)
	assert.GreaterOrEqual(t, *ev.AcceptQueueOverflows, uint64(10))
	assert.Zero(t, *ev.ConnectionsRefused)

	for _, c := range []*child{crowded, calm} {
		c.begin() // which ends it
		c.count()
	}
	s := e.scrapeAfter(time.Now())
	assert.Equal(t, crowded.listenDrops(), s[full.series(overflows)])
	assert.Equal(t, 0.0, s[quiet.series(overflows)])
	assert.NotZero(t, s[quiet.series("network_tcp_connections_total")])
	assert.NotZero(t, s[quiet.series("network_tcp_segments_total", "direction", "sent")])
	assert.Empty(t, told.of(quiet))
}
