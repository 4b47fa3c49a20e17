package scenario

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const statFile = "usage_usec 1201\nuser_usec 1000\nsystem_usec 201\nnr_periods 40\nnr_throttled 31\nthrottled_usec 90210\nnr_bursts 0\n"

func TestParseCPUStat(t *testing.T) {
	stat, err := parseCPUStat(statFile)
	require.NoError(t, err)
	assert.Equal(t, 31.0, stat["nr_throttled"])
	assert.Equal(t, 90210.0, stat["throttled_usec"])
	for wrong, says := range map[string]string{
		"usage_usec 1201\n":    "lacks nr_periods",
		"usage_usec\n":         `the line "usage_usec"`,
		"usage_usec -1\n":      `the line "usage_usec -1"`,
		statFile + "error: no": `the line "error: no"`,
	} {
		_, err := parseCPUStat(wrong)
		assert.ErrorContains(t, err, says)
	}
}

func FuzzParseCPUStat(f *testing.F) {
	f.Add(statFile)
	f.Fuzz(func(t *testing.T, text string) {
		stat, err := parseCPUStat(text)
		if err == nil {
			assert.GreaterOrEqual(t, stat["throttled_usec"], 0.0)
		}
	})
}
