// Command generate writes the dashboards and the ConfigMaps that provision them. Run
// it in dashboards/.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/kernel-gossip/kernel-gossip/dashboards"
	"github.com/kernel-gossip/kernel-gossip/dashboards/build"
)

func main() {
	if err := run("."); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

func run(dir string) error {
	manifests := filepath.Join(dir, "manifests")
	if err := os.MkdirAll(manifests, 0o755); err != nil {
		return err
	}
	for _, d := range build.All() {
		file, err := d.JSON()
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, d.File()), file, 0o644); err != nil {
			return err
		}
		manifest, err := dashboards.ConfigMap(d.UID, file)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(manifests, d.UID+".yaml"), manifest, 0o644); err != nil {
			return err
		}
	}
	return nil
}
