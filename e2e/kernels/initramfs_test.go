package kernels

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// cpio reads what is written as the kernel's unpacker does.
func TestInitramfs(t *testing.T) {
	cpio, err := exec.LookPath("cpio")
	if err != nil {
		t.Skip("there is no cpio to read the archive with")
	}
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(content), 0o755))
		return path
	}
	i := Initramfs{Busybox: write("busybox", "box"), Test: write("guest.test", strings.Repeat("x", 5)), Data: filepath.Join(dir, "data")}
	i.Modules, i.Files = []string{write("veth.ko", "v")}, []string{write("usr/bin/stress", "s")}
	write("data/a/b", "")
	archive := filepath.Join(dir, "initramfs.cpio")
	require.NoError(t, i.Write(archive))

	out := filepath.Join(dir, "out")
	require.NoError(t, os.Mkdir(out, 0o755))
	file, err := os.Open(archive)
	require.NoError(t, err)
	defer file.Close()
	cmd := exec.CommandContext(t.Context(), cpio, "-i", "-d", "--quiet")
	cmd.Dir, cmd.Stdin = out, file
	said, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", said)
	for name, want := range map[string]string{"init": string(initScript), "bin/busybox": "box", "test": "xxxxx", "work/testdata/a/b": "", "modules/order": "veth.ko\n", "modules/veth.ko": "v", i.Files[0]: "s"} {
		got, err := os.ReadFile(filepath.Join(out, name))
		require.NoError(t, err)
		assert.Equal(t, want, string(got), name)
	}
	assert.DirExists(t, filepath.Join(out, "proc"))

	l := Loader{Busybox: i.Busybox, Init: []byte("#!"), Modules: []string{write("llc.ko", "l"), write("bridge.ko", "b")}}
	require.NoError(t, l.Write(archive))
	listed := exec.CommandContext(t.Context(), cpio, "-i", "--to-stdout", "--quiet", "modules/order")
	again, err := os.Open(archive)
	require.NoError(t, err)
	defer again.Close()
	listed.Stdin = again
	order, err := listed.Output()
	require.NoError(t, err)
	assert.Equal(t, "llc.ko\nbridge.ko\n", string(order))
	assert.Error(t, Initramfs{Busybox: "/nowhere", Test: i.Test}.Write(archive))
}
