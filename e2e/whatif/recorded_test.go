package whatif

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The goals of the what-if model, on runs that a real kernel did; `make bench-whatif`
// records others.
func TestEstimatorOnRecordedRuns(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt.gz")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	traces, err := ReadFiles(files...)
	require.NoError(t, err)
	pairs := Pairs(traces)
	for i, most := range []float64{2, 3, 2} { // points, mean
		group := categories()[i]
		e := errorsOf(pairs, group.in)
		require.Greater(t, e.Pairs, 20, group.name)
		assert.LessOrEqual(t, e.Mean, most, group.name)
		assert.GreaterOrEqual(t, e.Coverage(), 0.90, group.name)
	}
	declined, off := Declined(pairs)
	assert.GreaterOrEqual(t, float64(declined), 0.95*float64(off))
}
