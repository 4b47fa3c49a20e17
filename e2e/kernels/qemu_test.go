package kernels

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParseEmulator(t *testing.T) {
	for said, want := range map[string]struct {
		version string
		patches bool
	}{
		"QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)\nCopyright": {"QEMU 7.2", false},
		"QEMU emulator version 8.0.5":                                            {"QEMU 8.0", false},
		"QEMU emulator version 8.1.0":                                            {"QEMU 8.1", true},
		"QEMU emulator version 11.1.3 (Debian 1:11.1.3)\n":                       {"QEMU 11.1", true},
	} {
		e, err := parseEmulator(said)
		require.NoError(t, err)
		assert.Equal(t, want.version, e.String())
		assert.Equal(t, want.patches, e.PatchesText(), said)
	}
	_, err := parseEmulator("bash: not found\n")
	assert.ErrorContains(t, err, `"bash: not found"`)
}

func TestVisible(t *testing.T) {
	assert.Equal(t, "KG-UP 3.76 5.10.0", Visible("SeaBIOS\x1bc\x1b[2JKG-UP 3.76 5.10.0"))
	assert.Equal(t, "plain", Visible("plain"))
}
