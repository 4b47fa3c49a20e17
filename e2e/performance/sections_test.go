package performance

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestReplace(t *testing.T) {
	file := filepath.Join(t.TempDir(), "doc.md")
	require.NoError(t, os.WriteFile(file, []byte("# D\n\nx\n\n## A\n\na\n\n## AB\n\nab\n"), 0o600))
	read := func() string {
		b, err := os.ReadFile(file)
		require.NoError(t, err)
		return string(b)
	}
	require.NoError(t, Replace(file, "A", "new\n\n### deeper\n\nb\n"))
	assert.Equal(t, "# D\n\nx\n\n## A\n\nnew\n\n### deeper\n\nb\n\n## AB\n\nab\n", read())
	require.NoError(t, Replace(file, "AB", "last"))
	require.NoError(t, Replace(file, "C", "c"))
	assert.Equal(t, "# D\n\nx\n\n## A\n\nnew\n\n### deeper\n\nb\n\n## AB\n\nlast\n\n## C\n\nc\n", read())
	assert.Equal(t, "## AB\n\nlast\n\n", Section(read(), "AB"))
	assert.Empty(t, Section(read(), "B"))
	require.Error(t, Replace(file+".gone", "A", ""))
}
