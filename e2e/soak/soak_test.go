package soak

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func points(n int, value func(i int) float64) []Point {
	var out []Point
	for i := range n {
		out = append(out, Point{At: time.Duration(i) * time.Second, Values: map[string]float64{"x": value(i)}})
	}
	return out
}

func TestJudge(t *testing.T) {
	levels := []Level{{"x", "x", 0.1, 5}}
	for name, c := range map[string]struct {
		value func(i int) float64
		flat  bool
	}{
		"flat":                   {func(int) float64 { return 100 }, true},
		"warms up":               {func(i int) float64 { return min(float64(i)*10, 100) }, true},
		"swings":                 {func(i int) float64 { return 100 + float64(i%2)*10 }, true},
		"a leak":                 {func(i int) float64 { return 100 + float64(i) }, false},
		"one peak at the end":    {func(i int) float64 { return 100 + float64(i/39)*1000 }, true},
		"a step that stays":      {func(i int) float64 { return 100 + float64(i/30)*50 }, false},
		"smaller than its grace": {func(i int) float64 { return 100 + float64(i)/8 }, true},
	} {
		verdicts, err := Judge(points(40, c.value), levels)
		require.NoError(t, err)
		assert.Equal(t, c.flat, verdicts[0].Flat, "%s: %+v", name, verdicts[0])
	}
	_, err := Judge(points(2, func(int) float64 { return 1 }), levels)
	require.ErrorContains(t, err, "too few")
	_, err = Judge(points(40, func(int) float64 { return 1 }), []Level{{"y", "y", 0, 0}})
	require.ErrorContains(t, err, "no metric y")
}

func TestRead(t *testing.T) {
	p, err := Read(time.Second, strings.NewReader("# TYPE g gauge\ng{a=\"1\"} 2\ng{a=\"2\"} 3\nu 4\n"))
	require.NoError(t, err)
	assert.Equal(t, map[string]float64{"g": 5, "u": 4}, p.Values)
	_, err = Read(0, strings.NewReader("{"))
	require.Error(t, err)
}
