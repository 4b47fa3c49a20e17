package join

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kernel-gossip/kernel-gossip/operator/signal"
)

type keeper []signal.Signal

func (k *keeper) Accept(_ context.Context, s signal.Signal) error {
	*k = append(*k, s)
	return nil
}

func figure(cores float64, at time.Time) signal.Signal {
	return signal.Signal{Type: signal.CPUReported, Source: signal.SourcePixie, Namespace: "shop", Pod: "web-0", Container: "app", Observed: at,
		Reported: &signal.Reported{Source: signal.SourcePixie, Cores: cores, Observed: at}}
}

func throttle(at time.Time) signal.Signal {
	return signal.Signal{Type: signal.CPUThrottle, Source: signal.SourceEBPF, Namespace: "shop", Pod: "web-0", Container: "app", Observed: at,
		CPU: &signal.CPU{ThrottlePercent: 92}}
}

func TestAFigureWaitsForTheKernel(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	var k keeper
	sink := New(&k, func() time.Time { return now })
	send := func(s signal.Signal) { require.NoError(t, sink.Accept(t.Context(), s)) }

	send(figure(0.3, now))
	assert.Empty(t, k, "no kernel, no whisper")

	said := throttle(now)
	send(said)
	require.Len(t, k, 1)
	require.Len(t, k[0].CPU.Others, 1)
	assert.Equal(t, 0.3, k[0].CPU.Others[0].Cores)
	assert.Empty(t, said.CPU.Others, "the sender's signal is left as it was")

	now = now.Add(30 * time.Second)
	send(figure(0.4, now))
	require.Len(t, k, 2, "it whispers, so the figure goes to the store")
	assert.Equal(t, signal.CPUReported, k[1].Type)
	send(figure(0.1, now.Add(-time.Minute)))
	send(throttle(now))
	assert.Equal(t, 0.4, k[len(k)-1].CPU.Others[0].Cores, "an older figure that comes late is not taken")

	now = now.Add(Fresh)
	send(throttle(now))
	assert.Empty(t, k[len(k)-1].CPU.Others, "a figure of another time says nothing of now")

	over := throttle(now)
	over.Resolved = true
	send(over)
	n := len(k)
	send(figure(0.5, now))
	assert.Len(t, k, n, "nothing whispers any more")

	other := signal.Signal{Type: signal.NetworkIssue, Namespace: "shop", Pod: "web-0"}
	send(other)
	assert.Equal(t, other, k[len(k)-1])
}

func TestMemoryIsBounded(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	var k keeper
	sink := New(&k, func() time.Time { return now })
	for i := range MaxContainers + 5 {
		f := figure(1, now)
		f.Pod = fmt.Sprint("p", i)
		require.NoError(t, sink.Accept(t.Context(), f))
	}
	assert.Len(t, sink.containers, MaxContainers)
	first := throttle(now)
	first.Pod = "p0"
	require.NoError(t, sink.Accept(t.Context(), first))
	assert.Empty(t, k[0].CPU.Others, "the one not heard of for longest made room")
}
