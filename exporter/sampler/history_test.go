package sampler

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kernel-gossip/kernel-gossip/exporter/gap"
)

// What is left out of a trail tells nothing: what is made of it is as if it were whole.
func TestStillStretchesAreKeptByTheirEnds(t *testing.T) {
	const window, keep = 20 * time.Second, 40 * time.Second
	random := rand.New(rand.NewPCG(1, 2))
	short := history{Series: gap.Series{HasUsed: true, HasThrottled: true, HasWaited: true}}
	whole := short
	var p gap.Point
	var b bandwidth
	fewer := 0
	for n := range 2000 {
		p.At += time.Second
		if n/25%2 == 0 && random.IntN(3) > 0 {
			p.Used += time.Duration(random.IntN(900)) * time.Millisecond
			p.Waited += time.Duration(random.IntN(90)) * time.Millisecond
			p.Throttled += time.Duration(random.IntN(900)) * time.Millisecond
			b.periods, b.throttled = b.periods+10, b.throttled+uint64(random.IntN(10))
		}
		short.add(p, b, keep)
		whole.Points, whole.bandwidth = append(whole.Points, p), append(whole.bandwidth, b)
		if n == 0 {
			continue
		}
		from := max(0, len(whole.Points)-1-int(window/time.Second))
		want := Throttling{
			Window: p.At - whole.Points[from].At, Periods: b.periods - whole.bandwidth[from].periods, Throttled: b.throttled - whole.bandwidth[from].throttled,
			ThrottledTime: p.Throttled - whole.Points[from].Throttled, Used: p.Used - whole.Points[from].Used,
		}
		require.Equal(t, want, *short.ratio(window, time.Second), "sample %d", n)
		w := gap.Window{From: max(time.Second, p.At-keep+300*time.Millisecond), To: p.At - 200*time.Millisecond}
		wantParts, wantOK := whole.Parts(w, 4, nil)
		gotParts, gotOK := short.Parts(w, 4, nil)
		require.Equal(t, wantOK, gotOK)
		require.Equal(t, wantParts, gotParts, "sample %d", n)
		fewer += min(n+1, 41) - len(short.Points)
	}
	assert.Positive(t, fewer)
	for range 100 {
		p.At += time.Second
		short.add(p, b, keep)
	}
	assert.Len(t, short.Points, 2)
	assert.Equal(t, Throttling{Window: window}, *short.ratio(window, time.Second))
}
