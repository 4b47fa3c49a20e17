package kernels

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestSelect(t *testing.T) {
	for list, want := range map[string][]string{
		"oldest middle newest":     {"5.10", "6.12", "newest"},
		"newest,oldest":            {"5.10", "newest"},
		"6.1-no-btf 5.10 oldest":   {"5.10", "6.1-no-btf"},
		" 6.17  5.10-cgroup-v1, ,": {"5.10-cgroup-v1", "6.17"},
	} {
		boots, err := Select(list)
		require.NoError(t, err, list)
		var names []string
		for _, b := range boots {
			names = append(names, b.Name)
		}
		assert.Equal(t, want, names, list)
	}
	all, err := Select("")
	require.NoError(t, err)
	assert.Equal(t, Matrix, all)
	_, err = Select("5.10 newer")
	assert.ErrorContains(t, err, `kernel "newer" is not one of 5.10, 5.10-cgroup-v1, `)
}
