// Command generate writes deploy/manifests and deploy/monitoring from deploy/chart,
// and brings the chart's copies of CRDs, rules and dashboards up to date.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"

	"github.com/kernel-gossip/kernel-gossip/e2e/chart"
)

func main() {
	root := flag.String("root", "../..", "the repository")
	flag.Parse()
	if err := chart.Generate(context.Background(), *root); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}
