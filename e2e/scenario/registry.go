package scenario

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os/exec"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/kernel-gossip/kernel-gossip/e2e/cluster"
)

// pulledBytes is the size of what nothing but the pull needs of the image.
const pulledBytes = 8 << 20

// serveImage serves an image of busybox on loopback, and a layer that takes a moment to
// pull and to unpack, until it is closed.
func serveImage(ctx context.Context) (reference string, end func(), err error) {
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return "", nil, fmt.Errorf("an image to pull needs busybox: %w", err)
	}
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer func() {
		if err != nil {
			server.Close()
		}
	}()
	reference = strings.TrimPrefix(server.URL, "http://") + "/busybox:1"
	tag, err := name.NewTag(reference, name.Insecure)
	if err != nil {
		return "", nil, err
	}
	image, err := cluster.Image{Reference: reference, Files: map[string]string{"bin/busybox": busybox}, Entrypoint: []string{"/bin/busybox"}}.Build()
	if err != nil {
		return "", nil, err
	}
	layer, err := random.Layer(pulledBytes, types.DockerUncompressedLayer)
	if err != nil {
		return "", nil, err
	}
	if image, err = mutate.AppendLayers(image, layer); err != nil {
		return "", nil, err
	}
	if err := remote.Write(tag, image, remote.WithContext(ctx)); err != nil {
		return "", nil, fmt.Errorf("serving %s: %w", reference, err)
	}
	return reference, server.Close, nil
}
