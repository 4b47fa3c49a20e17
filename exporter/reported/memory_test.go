package reported

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParseMemory(t *testing.T) {
	const text = `container_cpu_usage_seconds_total{container="app",namespace="shop",pod="cart"} 1
container_cpu_usage_seconds_total{container="none",namespace="shop",pod="cart"} 1
container_cpu_usage_seconds_total{container="bad",namespace="shop",pod="cart"} 1
container_memory_working_set_bytes{container="app",namespace="shop",pod="cart"} 6.1e+07
container_memory_working_set_bytes{container="bad",namespace="shop",pod="cart"} -1
container_memory_working_set_bytes{container="idle",namespace="shop",pod="cart"} 5
`
	points, bad, err := parseResource(strings.NewReader(text), time.Unix(1795132800, 0))
	require.NoError(t, err)
	assert.Equal(t, 1, bad)
	held := points[target{"shop", "cart", "app"}].memory
	require.NotNil(t, held)
	assert.Equal(t, 6.1e7, *held)
	assert.Nil(t, points[target{"shop", "cart", "none"}].memory, "absent, not 0")
	assert.Nil(t, points[target{"shop", "cart", "bad"}].memory)

	w := newWindows(15 * time.Second)
	w.store(points)
	later := points[target{"shop", "cart", "app"}]
	later.at, later.cpu = later.at.Add(15*time.Second), 2
	w.store(map[target]sample{{"shop", "cart", "app"}: later})
	u, ok := w.usage(target{"shop", "cart", "app"})
	require.True(t, ok)
	assert.Equal(t, held, u.MemoryBytes)
}
