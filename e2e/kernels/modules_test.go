package kernels

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParseDepends(t *testing.T) {
	for info, want := range map[string][]string{
		"license=GPL\x00depends=llc,stp\x00name=bridge\x00": {"llc", "stp"},
		"depends=\x00vermagic=6.1":                          {},
		"depends=virtio-ring":                               {"virtio_ring"},
		"alias=depends=no\x00description=has no dependency": nil,
	} {
		assert.Equal(t, want, parseDepends([]byte(info)), info)
	}
}

func FuzzParseDepends(f *testing.F) {
	f.Add([]byte("depends=llc,stp\x00"))
	f.Fuzz(func(t *testing.T, info []byte) {
		for _, name := range parseDepends(info) {
			assert.NotEmpty(t, name)
			assert.NotContains(t, name, "-")
		}
	})
}

// The test's own binary has no .modinfo: what is no module is told, not taken.
func TestModulesErrors(t *testing.T) {
	dir := t.TempDir()
	self, err := os.Executable()
	require.NoError(t, err)
	require.NoError(t, os.Symlink(self, filepath.Join(dir, "odd.ko")))
	_, err = inOrder(dir, []string{"odd"})
	assert.ErrorContains(t, err, "module odd needs: it has no section .modinfo")
	_, err = inOrder(dir, []string{"absent"})
	assert.ErrorIs(t, err, os.ErrNotExist)
	_, err = resolve([]string{"builtin"}, func(string) string { return "" })
	assert.ErrorContains(t, err, "there is no module builtin")
}
