package stages

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestLogKeepsWhatEnded(t *testing.T) {
	var said, table strings.Builder
	l := New(&said, time.Now().Add(-90*time.Second), Stage{"building", 70 * time.Second})
	long := l.Begin("boots | and more")
	l.Begin("fails")
	l.Begin("short")()
	long()

	names := make([]string, 0, 3)
	for _, s := range l.Stages() {
		names = append(names, s.Name)
		assert.Positive(t, s.Took)
	}
	assert.Equal(t, []string{"building", "boots | and more", "short"}, names, "in the order of their begin")
	assert.Regexp(t, `^ +9\d\.\ds boots \| and more\n`, said.String())

	var text strings.Builder
	require.NoError(t, l.Text(&text))
	assert.Contains(t, text.String(), "   70.0s  building\n")
	assert.Contains(t, text.String(), "    -     fails: not ended\n")

	require.NoError(t, l.Markdown(&table))
	assert.Contains(t, table.String(), "| building | 70 |\n| boots \\| and more | 0 |\n| short | 0 |\n| all | 9")
}
