// Package images makes the product's container images from nothing but its static
// binaries: for several architectures, each with its bill of materials, and the same to
// the byte whoever makes them of the same source.
package images

import (
	"archive/tar"
	"bytes"
	"context"
	"debug/buildinfo"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"

	"github.com/CycloneDX/cyclonedx-go"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Product is one of the images, as its Dockerfile has it.
type Product struct {
	Name    string
	Package string // in the root module
	User    string
	Port    string
}

// Products are all of them.
func Products() []Product {
	return []Product{
		{"kernel-gossip-exporter", "./exporter", "0", "9955/tcp"},
		{"kernel-gossip-operator", "./operator", "65532:65532", "8080/tcp"},
	}
}

// Binary builds the product for an architecture in the module at root.
func (p Product) Binary(ctx context.Context, root, architecture, ldflags, to string) error {
	// What go build adds of the repository's state would differ with the clone.
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", ldflags, "-o", to, p.Package)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+architecture)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building %s for %s: %w: %s", p.Name, architecture, err, out)
	}
	return nil
}

// Index is the product's image for each of the architectures, of the binaries named by
// them.
func (p Product) Index(version string, architectures []string, binaries map[string]string) (v1.ImageIndex, error) {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, architecture := range architectures {
		img, err := p.image(version, architecture, binaries[architecture])
		if err != nil {
			return nil, fmt.Errorf("making the image of %s for %s: %w", p.Name, architecture, err)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: architecture}},
		})
	}
	return index, nil
}

func (p Product) image(version, architecture, binary string) (v1.Image, error) {
	program, err := os.ReadFile(binary)
	if err != nil {
		return nil, err
	}
	bom, err := BOM(binary, p.Name, version)
	if err != nil {
		return nil, err
	}
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	for _, f := range []struct {
		name string
		mode int64
		body []byte
	}{{p.Name, 0o755, program}, {"sbom.cdx.json", 0o644, bom}} {
		// No time: the zero value is 1970.
		if err := w.WriteHeader(&tar.Header{Name: f.name, Mode: f.mode, Size: int64(len(f.body))}); err != nil {
			return nil, err
		}
		if _, err := w.Write(f.body); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	files, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(layer.Bytes())), nil },
		tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, err
	}
	img, err := mutate.AppendLayers(mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON), files)
	if err != nil {
		return nil, err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	config.OS, config.Architecture = "linux", architecture
	config.Config = v1.Config{
		Entrypoint: []string{"/" + p.Name}, User: p.User, ExposedPorts: map[string]struct{}{p.Port: {}},
		Labels: map[string]string{ // https://specs.opencontainers.org/image-spec/annotations/
			"org.opencontainers.image.title":    p.Name,
			"org.opencontainers.image.version":  version,
			"org.opencontainers.image.licenses": "Apache-2.0",
			"org.opencontainers.image.source":   "https://github.com/kernel-gossip/kernel-gossip",
		},
	}
	return mutate.ConfigFile(img, config)
}

// BOM is the bill of materials of a Go binary, CycloneDX 1.6 in JSON, from what the
// linker wrote into it: what is in the binary, not what a go.mod might bring. It has
// neither time nor serial number, so that the same binary has the same one.
func BOM(binary, name, version string) ([]byte, error) {
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		return nil, fmt.Errorf("reading the modules of %s: %w", binary, err)
	}
	component := func(kind cyclonedx.ComponentType, path, version string) cyclonedx.Component {
		purl := "pkg:golang/" + path + "@" + strings.ReplaceAll(version, "+", "%2B")
		return cyclonedx.Component{Type: kind, BOMRef: purl, Name: path, Version: version, PackageURL: purl}
	}
	main := component(cyclonedx.ComponentTypeApplication, info.Main.Path, version)
	main.Name = name
	main.Licenses = &cyclonedx.Licenses{{License: &cyclonedx.License{ID: "Apache-2.0"}}}
	components := []cyclonedx.Component{component(cyclonedx.ComponentTypeLibrary, "std", strings.TrimPrefix(info.GoVersion, "go"))}
	for _, module := range info.Deps {
		components = append(components, component(cyclonedx.ComponentTypeLibrary, replaced(module).Path, replaced(module).Version))
	}
	bom := cyclonedx.NewBOM()
	bom.SerialNumber = ""
	bom.Metadata = &cyclonedx.Metadata{Component: &main}
	bom.Components = &components
	var out bytes.Buffer
	if err := cyclonedx.NewBOMEncoder(&out, cyclonedx.BOMFileFormatJSON).SetPretty(true).EncodeVersion(bom, cyclonedx.SpecVersion1_6); err != nil {
		return nil, fmt.Errorf("writing the bill of materials: %w", err)
	}
	return out.Bytes(), nil
}

func replaced(module *debug.Module) *debug.Module {
	if module.Replace != nil {
		return module.Replace
	}
	return module
}

// Make builds the product for the architectures into work and returns its index.
func (p Product) Make(ctx context.Context, root, work, version, ldflags string, architectures ...string) (v1.ImageIndex, error) {
	binaries := map[string]string{}
	for _, architecture := range architectures {
		binaries[architecture] = filepath.Join(work, architecture, p.Name)
		if err := p.Binary(ctx, root, architecture, ldflags, binaries[architecture]); err != nil {
			return nil, err
		}
	}
	return p.Index(version, architectures, binaries)
}
