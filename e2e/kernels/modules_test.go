package kernels

import (
	"os"
	"os/exec"
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
	_, err = resolve([]string{"builtin"}, func(string) (string, error) { return "", nil })
	assert.ErrorContains(t, err, "there is no module builtin")
}

// Some packages have their modules compressed.
func TestModulesAreKeptUnpacked(t *testing.T) {
	xz, err := exec.LookPath("xz")
	if err != nil {
		t.Skip("there is no xz to compress with")
	}
	dir := t.TempDir()
	from := filepath.Join(dir, "package", "kernel", "net")
	require.NoError(t, os.MkdirAll(from, 0o755))
	self, err := os.ReadFile("/proc/self/exe")
	require.NoError(t, err)
	odd := filepath.Join(from, "sch-odd.ko")
	require.NoError(t, os.WriteFile(odd, self, 0o644))
	require.NoError(t, exec.CommandContext(t.Context(), xz, "-1", odd).Run())
	require.NoFileExists(t, odd)
	err = keepModules(t.Context(), filepath.Join(dir, "kept"), filepath.Join(dir, "package"), []string{"sch_odd"})
	assert.ErrorContains(t, err, "module sch_odd needs: it has no section .modinfo", "it was read")
	unpacked, err := os.ReadFile(odd)
	require.NoError(t, err)
	assert.Equal(t, self, unpacked)
	require.NoError(t, os.WriteFile(odd+".xz", []byte("none"), 0o644))
	require.NoError(t, os.Remove(odd))
	err = keepModules(t.Context(), filepath.Join(dir, "again"), filepath.Join(dir, "package"), []string{"sch_odd"})
	assert.ErrorContains(t, err, "unpacking module sch_odd")
}
