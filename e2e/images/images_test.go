package images

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/CycloneDX/cyclonedx-go"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const root = "../.."

// copied is the repository's source in another place.
func copied(t *testing.T) string {
	t.Helper()
	to := t.TempDir()
	for _, name := range []string{"go.mod", "go.sum"} {
		b, err := os.ReadFile(filepath.Join(root, name))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(to, name), b, 0o600))
	}
	for _, dir := range []string{"bpf", "exporter", "operator", "rules"} {
		require.NoError(t, os.CopyFS(filepath.Join(to, dir), os.DirFS(filepath.Join(root, dir))))
	}
	return to
}

func digest(t *testing.T, index v1.ImageIndex) string {
	t.Helper()
	d, err := index.Digest()
	require.NoError(t, err)
	return d.String()
}

// Two people who build the same source in different places get the same image.
func TestReproducible(t *testing.T) {
	p := Products()[0]
	made := func(root, version string) v1.ImageIndex {
		index, err := p.Make(t.Context(), root, t.TempDir(), version, "-s -w", "amd64")
		require.NoError(t, err)
		return index
	}
	here := made(root, "v1")
	assert.Equal(t, digest(t, here), digest(t, made(copied(t), "v1")))
	assert.NotEqual(t, digest(t, here), digest(t, made(root, "v2")))
}

func TestIndex(t *testing.T) {
	binary, err := os.Executable() // a Go binary, whatever it does
	require.NoError(t, err)
	binaries := map[string]string{"amd64": binary, "arm64": binary}
	for _, p := range Products() {
		index, err := p.Index("v1", []string{"amd64", "arm64"}, binaries)
		require.NoError(t, err)
		manifest, err := index.IndexManifest()
		require.NoError(t, err)
		require.Len(t, manifest.Manifests, 2)
		dockerfile, err := os.ReadFile(filepath.Join(root, "deploy", "Dockerfile."+strings.TrimPrefix(p.Name, "kernel-gossip-")))
		require.NoError(t, err)
		for i, architecture := range []string{"amd64", "arm64"} {
			assert.Equal(t, architecture, manifest.Manifests[i].Platform.Architecture)
			img, err := index.Image(manifest.Manifests[i].Digest)
			require.NoError(t, err)
			config, err := img.ConfigFile()
			require.NoError(t, err)
			assert.Equal(t, architecture, config.Architecture)
			assert.Equal(t, []string{"/" + p.Name}, config.Config.Entrypoint)
			assert.Contains(t, string(dockerfile), "\nUSER "+config.Config.User+"\n", "as the Dockerfile has it")
			assert.Contains(t, string(dockerfile), "\nEXPOSE "+strings.TrimSuffix(p.Port, "/tcp")+"\n")
			assert.True(t, config.Created.IsZero(), "no time")
			layers, err := img.Layers()
			require.NoError(t, err)
			require.Len(t, layers, 1, "from scratch")
			files := unpack(t, layers[0])
			assert.Len(t, files, 2)
			assert.NotEmpty(t, files[p.Name])
			assert.Contains(t, string(files["sbom.cdx.json"]), "CycloneDX")
		}
	}
}

func unpack(t *testing.T, layer v1.Layer) map[string][]byte {
	t.Helper()
	r, err := layer.Uncompressed()
	require.NoError(t, err)
	defer r.Close()
	files := map[string][]byte{}
	for archive := tar.NewReader(r); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		require.NoError(t, err)
		assert.Zero(t, header.ModTime.Unix())
		files[header.Name], err = io.ReadAll(archive)
		require.NoError(t, err)
	}
}

// The bill of materials names what go version -m does.
func TestBOM(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "exporter")
	require.NoError(t, Products()[0].Binary(t.Context(), root, "amd64", "-s -w", binary))
	text, err := BOM(binary, "x", "v1")
	require.NoError(t, err)
	again, err := BOM(binary, "x", "v1")
	require.NoError(t, err)
	assert.Equal(t, text, again)
	var bom cyclonedx.BOM
	require.NoError(t, cyclonedx.NewBOMDecoder(bytes.NewReader(text), cyclonedx.BOMFileFormatJSON).Decode(&bom))
	assert.Equal(t, "v1", bom.Metadata.Component.Version)
	found := map[string]string{}
	for _, c := range *bom.Components {
		found[c.Name] = c.Version
	}
	out, err := exec.CommandContext(t.Context(), "go", "version", "-m", binary).Output()
	require.NoError(t, err)
	deps := 0
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) >= 3 && f[0] == "dep" {
			deps++
			assert.Equal(t, f[2], found[f[1]], f[1])
		}
	}
	assert.Positive(t, deps)
	assert.Len(t, found, deps+1, "and the standard library")
}
