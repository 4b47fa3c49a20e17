package main

import (
	"context"

	"github.com/kernel-gossip/kernel-gossip/e2e/traffic"
)

// communicate makes traffic until the process is ended.
func communicate(kinds string, quiet func() bool) error {
	wanted, err := traffic.Parse(kinds)
	if err != nil {
		return err
	}
	return traffic.Run(context.Background(), wanted, quiet)
}
