package kernels

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParseSources(t *testing.T) {
	for name, c := range map[string]struct {
		printed string
		want    Mirrors
	}{
		"nothing": {},
		"both archives": {
			printed: `'http://mirror.example/debian/dists/bookworm/InRelease' mirror.example_debian_dists_bookworm_InRelease 0
'http://mirror.example/debian/dists/bookworm/main/binary-amd64/Packages.xz' mirror.example_debian_dists_bookworm_main_binary-amd64_Packages 0
'http://mirror.example/debian/dists/bookworm/main/binary-all/Packages.xz' x 0
'http://mirror.example/debian/dists/bookworm-updates/main/binary-amd64/Packages.xz' x 0
'http://security.example/debian-security/dists/bookworm-security/main/binary-amd64/Packages.xz' x 0
`,
			want: Mirrors{Main: []string{"http://mirror.example/debian"}, Security: []string{"http://security.example/debian-security"}},
		},
		"a list of mirrors, credentials, a port": {
			printed: `'mirror+file:/etc/apt/mirrors/debian.list/dists/trixie/main/binary-amd64/Packages.xz' x 0
'https://user:secret@mirror.example:8443/a/b//dists/trixie/main/binary-amd64/Packages.xz' x 0
'https://mirror.example/security/dists/bullseye/updates/main/binary-amd64/Packages.xz' x 0
`,
			want: Mirrors{
				Main:     []string{"mirror+file:/etc/apt/mirrors/debian.list", "https://user:secret@mirror.example:8443/a/b"},
				Security: []string{"https://mirror.example/security"},
			},
		},
		"other people's": {
			printed: `'http://archive.example/ubuntu/dists/noble/main/binary-amd64/Packages.xz' x 0
'http://archive.example/ubuntu/dists/noble-security/main/binary-amd64/Packages.xz' x 0
'http://vendor.example/linux/debian/dists/bookworm/stable/binary-amd64/Packages.xz' x 0
'http://pg.example/apt/dists/bookworm-pgdg/main/binary-amd64/Packages.xz' x 0
'http://flat.example/deb/Packages.xz' x 0
'http://src.example/debian/dists/bookworm/main/source/Sources.xz' x 0
`,
		},
	} {
		t.Run(name, func(t *testing.T) { assert.Equal(t, c.want, parseSources(c.printed)) })
	}
}

// apt itself reads the formats; this holds its answer to what is expected of it.
func TestConfiguredMirrors(t *testing.T) {
	if _, err := exec.LookPath("apt-get"); err != nil {
		t.Skip("this machine has no apt, and so no sources of it either")
	}
	const oneLine = `# deb http://commented.example/debian bookworm main
deb [arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://line.example/debian bookworm main contrib
deb http://line.example/debian-security bookworm-security main
`
	const deb822 = `Types: deb
Enabled: no
URIs: http://off.example/debian
Suites: bookworm
Components: main

Types: deb deb-src
URIs: mirror+file:/etc/apt/mirrors/debian.list
Suites: trixie trixie-backports
Components: main

Types: deb
URIs: https://deb822.example/debian-security/
Suites: trixie-security
Components: main
`
	for name, c := range map[string]struct {
		files     map[string]string
		overrides Mirrors
		want      Mirrors
		err       error
	}{
		"one-line": {
			files: map[string]string{"debian.list": oneLine},
			want:  Mirrors{Main: []string{"http://line.example/debian"}, Security: []string{"http://line.example/debian-security"}},
		},
		"deb822": {
			files: map[string]string{"debian.sources": deb822},
			want:  Mirrors{Main: []string{"mirror+file:/etc/apt/mirrors/debian.list"}, Security: []string{"https://deb822.example/debian-security"}},
		},
		"none":        {err: errNoMirror},
		"no security": {files: map[string]string{"debian.list": "deb http://line.example/debian sid main\n"}, err: errNoSecurity},
		"one named": {
			files:     map[string]string{"debian.list": oneLine},
			overrides: Mirrors{Main: []string{"http://named.example/debian"}},
			want:      Mirrors{Main: []string{"http://named.example/debian"}, Security: []string{"http://line.example/debian-security"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for file, content := range c.files {
				require.NoError(t, os.WriteFile(filepath.Join(dir, file), []byte(content), 0o644))
			}
			conf := filepath.Join(dir, "apt.conf")
			require.NoError(t, os.WriteFile(conf, []byte(`Dir::Etc::sourcelist "/dev/null"; Dir::Etc::sourceparts "`+dir+`"; APT::Architecture "amd64";`), 0o644))
			got, err := configuredMirrors(t.Context(), append(os.Environ(), "APT_CONFIG="+conf), c.overrides)
			assert.ErrorIs(t, err, c.err)
			assert.Equal(t, c.want, got)
		})
	}
}

func TestNamedMirrorsNeedNoApt(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	named := Mirrors{Main: []string{"http://named.example/debian"}, Security: []string{"http://named.example/debian-security"}}
	got, err := ConfiguredMirrors(t.Context(), named)
	require.NoError(t, err)
	assert.Equal(t, named, got)
	_, err = ConfiguredMirrors(t.Context(), Mirrors{})
	assert.ErrorContains(t, err, "asking apt for its sources")
}
