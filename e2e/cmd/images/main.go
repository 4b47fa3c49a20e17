// Command images makes the container images of the product, for amd64 and arm64, as
// directories of the OCI's image layout, and prints their digests.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/google/go-containerregistry/pkg/v1/layout"

	"github.com/kernel-gossip/kernel-gossip/e2e/images"
)

func main() {
	version := flag.String("version", "unknown", "version that labels and bills of materials tell")
	ldflags := flag.String("ldflags", "-s -w", "flags of the linker")
	root := flag.String("root", "..", "the repository")
	out := flag.String("out", "../bin/images", "directory for the images")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, *root, *out, *version, *ldflags)
	stop()
	if err != nil {
		slog.Error("The images could not be made.", "err", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, root, out, version, ldflags string) error {
	work, err := os.MkdirTemp("", "kernel-gossip-images-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	for _, p := range images.Products() {
		index, err := p.Make(ctx, root, work, version, ldflags, "amd64", "arm64")
		if err != nil {
			return err
		}
		dir := filepath.Join(out, p.Name)
		if err := os.RemoveAll(dir); err != nil { // layouts only grow
			return err
		}
		if _, err := layout.Write(dir, index); err != nil {
			return fmt.Errorf("writing %s: %w", dir, err)
		}
		digest, err := index.Digest()
		if err != nil {
			return err
		}
		fmt.Printf("%s  %s\n", digest, dir)
	}
	return nil
}
