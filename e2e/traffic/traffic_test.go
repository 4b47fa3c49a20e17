package traffic

import (
	"context"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// counted reads a counter of this network namespace, which others use as well.
func counted(t *testing.T, file, protocol, name string) uint64 {
	t.Helper()
	b, err := os.ReadFile("/proc/self/net/" + file)
	require.NoError(t, err)
	var names []string
	for line := range strings.Lines(string(b)) {
		words := strings.Fields(line)
		switch {
		case words[0] != protocol+":":
		case names == nil:
			names = words
		default:
			i := slices.Index(names, name)
			require.Positive(t, i, name)
			n, err := strconv.ParseUint(words[i], 10, 64)
			require.NoError(t, err)
			return n
		}
	}
	require.Fail(t, "no such counter", name)
	return 0
}

// Each kind makes the kernel count what it is named for.
func TestKinds(t *testing.T) {
	for kind, counter := range map[Kind][3]string{
		Loss:   {"snmp", "Tcp", "RetransSegs"},
		Queue:  {"netstat", "TcpExt", "ListenOverflows"},
		Refuse: {"snmp", "Tcp", "AttemptFails"},
		Flood:  {"snmp", "Udp", "RcvbufErrors"},
		Calm:   {"snmp", "Tcp", "OutSegs"},
	} {
		t.Run(string(kind), func(t *testing.T) {
			before := counted(t, counter[0], counter[1], counter[2])
			ctx, stop := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- Run(ctx, []Kind{kind}, func() bool { return false }) }()
			assert.Eventually(t, func() bool { return counted(t, counter[0], counter[1], counter[2]) >= before+5 }, time.Minute, 10*time.Millisecond)
			stop()
			require.NoError(t, <-done)
		})
	}
}

func TestParse(t *testing.T) {
	kinds, err := Parse("loss,queue")
	require.NoError(t, err)
	assert.Equal(t, []Kind{Loss, Queue}, kinds)
	_, err = Parse("loss,noise")
	assert.ErrorContains(t, err, `"noise"`)
	_, err = Parse("")
	assert.Error(t, err)
}
