// Command generate writes pxl/configmaps and pxl/run. It runs in pxl/.
package main

import (
	"fmt"
	"os"

	"github.com/kernel-gossip/kernel-gossip/pxl"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	scripts, err := pxl.Scripts("scripts")
	if err != nil {
		return err
	}
	files, err := pxl.Generate(scripts)
	if err != nil {
		return err
	}
	for path, content := range files {
		if err := os.WriteFile(path, content, 0o644); err != nil { //nolint:gosec // they are to be read
			return fmt.Errorf("writing %s: %w", path, err)
		}
	}
	return nil
}
