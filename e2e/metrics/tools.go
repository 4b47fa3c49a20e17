//go:build tools

// Package metrics pins the metrics-server behind `kubectl top` in the test cluster.
package metrics

import _ "sigs.k8s.io/metrics-server/cmd/metrics-server"
