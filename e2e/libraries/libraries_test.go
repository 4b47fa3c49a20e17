package libraries

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A program runs where there is nothing but what With names.
func TestProgramRunsWithItsLibrariesAlone(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it changes the root directory")
	}
	files, err := With("sort")
	require.NoError(t, err)
	require.Greater(t, len(files), 2, "the program, its loader and the C library: %v", files)
	root := t.TempDir()
	for _, file := range files {
		to := filepath.Join(root, file)
		require.NoError(t, os.MkdirAll(filepath.Dir(to), 0o755))
		b, err := os.ReadFile(file)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(to, b, 0o755))
	}
	out, err := exec.CommandContext(t.Context(), "chroot", root, files[0], "--version").CombinedOutput()
	require.NoError(t, err, "%s", out)
	assert.Contains(t, string(out), "sort")
}

func TestWithSaysWhatIsMissing(t *testing.T) {
	_, err := With("no-such-program")
	assert.ErrorIs(t, err, exec.ErrNotFound)
	_, err = find("libnone.so.1")
	assert.ErrorContains(t, err, "libnone.so.1 is nowhere")
}
