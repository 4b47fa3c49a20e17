package whisper

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/kernel-gossip/kernel-gossip/operator/wire"
)

func event(pod string, percent float64) wire.CPUThrottle {
	return wire.CPUThrottle{
		Head:               wire.Head{Type: wire.TypeCPUThrottle, Namespace: "shop", PodName: pod, ContainerName: "app", Timestamp: time.Now().UTC()},
		ThrottlePercentage: percent,
	}
}

// held lists what is in the queue, as pod=percentage.
func held(q *queue) (out []string) {
	for el := q.order.Front(); el != nil; el = el.Next() {
		it := el.Value.(*item)
		out = append(out, fmt.Sprintf("%s=%g", it.target.Pod, it.event.(wire.CPUThrottle).ThrottlePercentage))
	}
	return out
}

func TestQueue(t *testing.T) {
	now := time.Unix(1795132800, 0)
	q := newQueue(3)

	superseded, overflowed := q.put([]wire.Event{event("a", 1), event("b", 2), event("a", 3)})
	assert.Equal(t, []int{1, 0}, []int{superseded, overflowed})
	assert.Equal(t, []string{"a=3", "b=2"}, held(q), "the newest wins, in the place of the older")

	taken, _ := q.take(now, 1)
	assert.Equal(t, "a", taken[0].target.Pod)
	_, overflowed = q.put([]wire.Event{event("a", 4), event("c", 5), event("d", 6)})
	assert.Equal(t, 1, overflowed)
	assert.Equal(t, []string{"a=4", "c=5", "d=6"}, held(q), "the oldest goes")

	superseded, overflowed = q.putBack(taken)
	assert.Equal(t, []int{1, 0}, []int{superseded, overflowed}, "a newer event of a came meanwhile")
	assert.Equal(t, []string{"a=4", "c=5", "d=6"}, held(q))

	taken, _ = q.take(now, 2)
	superseded, overflowed = q.putBack(taken)
	assert.Equal(t, []int{0, 0}, []int{superseded, overflowed})
	assert.Equal(t, []string{"a=4", "c=5", "d=6"}, held(q), "back in their order")

	taken, _ = q.take(now, 1)
	q.put([]wire.Event{event("e", 7)})
	_, overflowed = q.putBack(taken)
	assert.Equal(t, 1, overflowed, "the queue never outgrows its capacity")

	assert.Equal(t, 3, q.drain())
	assert.Zero(t, q.len())
	taken, next := q.take(now, 5)
	assert.Empty(t, taken)
	assert.True(t, next.IsZero())
}

func TestQueueHoldsWhatIsNotDue(t *testing.T) {
	now := time.Unix(1795132800, 0)
	q := newQueue(10)
	q.put([]wire.Event{event("later", 1), event("now", 2)})
	taken, _ := q.take(now, 1)
	taken[0].notBefore = now.Add(time.Minute)
	q.putBack(taken)

	taken, _ = q.take(now, 5)
	assert.Len(t, taken, 1)
	assert.Equal(t, "now", taken[0].target.Pod)
	taken, next := q.take(now, 5)
	assert.Empty(t, taken)
	assert.Equal(t, now.Add(time.Minute), next)
	taken, _ = q.take(now.Add(time.Minute), 5)
	assert.Len(t, taken, 1)
}
