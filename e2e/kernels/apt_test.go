package kernels

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const stanzas = `Package: linux-image-7.3.4+deb13-cloud-amd64
Version: 7.3.4-1~bpo13+1
Depends: linux-binary-7.3.4+deb13-cloud-amd64 (= 7.3.4-1~bpo13+1), initramfs-tools | linux-initramfs-tool, kmod
Description: kernel
 with more: lines

Package: busybox-static
Version: 1:1.35.0-4

Package: without-a-version
`

func TestParsePackages(t *testing.T) {
	assert.Equal(t, []Package{
		{Name: "linux-image-7.3.4+deb13-cloud-amd64", Version: "7.3.4-1~bpo13+1", Depends: []string{"linux-binary-7.3.4+deb13-cloud-amd64", "kmod"}},
		{Name: "busybox-static", Version: "1:1.35.0-4"},
	}, parsePackages(strings.NewReader(stanzas)))
}

func FuzzParsePackages(f *testing.F) {
	f.Add(stanzas)
	f.Fuzz(func(t *testing.T, text string) {
		for _, p := range parsePackages(strings.NewReader(text)) {
			assert.NotEmpty(t, p.Name)
			assert.NotEmpty(t, p.Version)
		}
	})
}

func TestKernelPackageNames(t *testing.T) {
	for name, series := range map[string]string{
		"linux-image-6.1.0-56-cloud-amd64":          "6.1",
		"linux-image-7.3.4+deb13-cloud-amd64":       "7.3",
		"linux-image-6.1.0-56-cloud-amd64-unsigned": "",
		"linux-image-cloud-amd64":                   "",
		"linux-image-6.1.0-56-rt-amd64":             "",
	} {
		got := ""
		if m := kernelPackage.FindStringSubmatch(name); m != nil {
			got = m[1]
		}
		assert.Equal(t, series, got, name)
	}
}

// What is in the cache is not fetched again, and a directory without the file is.
func TestCacheFinds(t *testing.T) {
	dir := t.TempDir()
	c := Cache{Dir: dir}
	p := Package{Name: "linux-image-6.1", Version: "6.1-1"}
	kept := filepath.Join(dir, "linux-image-6.1_6.1-1", "vmlinuz-6.1")
	require.NoError(t, os.MkdirAll(filepath.Dir(kept), 0o755))
	require.NoError(t, os.WriteFile(kept, nil, 0o644))
	got, err := c.fetch(t.Context(), p, nil, func(name string) bool { return strings.HasPrefix(name, "vmlinuz") })
	require.NoError(t, err)
	assert.Equal(t, kept, got)
}
