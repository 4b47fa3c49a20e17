//go:build tools

// Package prometheus pins the Prometheus that watches the test cluster.
package prometheus

import _ "github.com/prometheus/prometheus/cmd/prometheus"
