package cluster

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// The images that the bed makes for itself.
const (
	PauseImage   = "bed.test/pause:1"
	BusyboxImage = "bed.test/busybox:1"
)

// Image is a scratch image of static binaries.
type Image struct {
	Reference  string
	Files      map[string]string // path in the image -> file here
	Links      map[string]string // path in the image -> target
	Entrypoint []string
	User       string
}

// Import builds the image and gives it to containerd, as a pull would.
func (c *Cluster) Import(ctx context.Context, im Image) error {
	path := c.path("image.tar")
	if err := im.Write(path); err != nil {
		return err
	}
	defer os.Remove(path)
	out, err := exec.CommandContext(ctx, filepath.Join(c.bin.Node, "ctr"), "-a", "/run/containerd/containerd.sock", "-n", "k8s.io",
		"images", "import", "--local", path).CombinedOutput()
	if err != nil {
		return fmt.Errorf("import image %s: %w: %s", im.Reference, err, out)
	}
	return nil
}

// Write builds the image and writes it as a tar that ctr imports.
func (im Image) Write(path string) error {
	img, err := im.Build()
	if err != nil {
		return fmt.Errorf("build image %s: %w", im.Reference, err)
	}
	ref, err := name.NewTag(im.Reference)
	if err != nil {
		return err
	}
	if err := tarball.WriteToFile(path, ref, img); err != nil {
		return fmt.Errorf("write image %s: %w", im.Reference, err)
	}
	return nil
}

// Build makes the image of its files.
func (im Image) Build() (v1.Image, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for to, from := range im.Files {
		b, err := os.ReadFile(from)
		if err != nil {
			return nil, err
		}
		if err := w.WriteHeader(&tar.Header{Name: to, Mode: 0o755, Size: int64(len(b)), ModTime: time.Unix(0, 0)}); err != nil {
			return nil, err
		}
		if _, err := w.Write(b); err != nil {
			return nil, err
		}
	}
	for to, target := range im.Links {
		if err := w.WriteHeader(&tar.Header{Name: to, Linkname: target, Typeflag: tar.TypeSymlink, ModTime: time.Unix(0, 0)}); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	// Not compressed: an emulated node takes its time to undo that.
	img, err := mutate.AppendLayers(empty.Image, static.NewLayer(buf.Bytes(), types.DockerUncompressedLayer))
	if err != nil {
		return nil, err
	}
	return mutate.ConfigFile(img, &v1.ConfigFile{
		OS: "linux", Architecture: "amd64",
		RootFS: v1.RootFS{Type: "layers", DiffIDs: func() []v1.Hash { f, _ := img.ConfigFile(); return f.RootFS.DiffIDs }()},
		Config: v1.Config{Entrypoint: im.Entrypoint, User: im.User, Env: []string{"PATH=/bin"}},
	})
}
