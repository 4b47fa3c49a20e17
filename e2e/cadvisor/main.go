// Command cadvisor serves cAdvisor's metrics as the kubelet has them made: with its
// choice of metrics, its housekeeping and its names (pkg/kubelet/cadvisor and
// pkg/kubelet/server), so that benchmarks can put them beside the exporter's.
package main

import (
	"flag"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/google/cadvisor/cache/memory"
	"github.com/google/cadvisor/container"
	v2 "github.com/google/cadvisor/info/v2"
	"github.com/google/cadvisor/manager"
	"github.com/google/cadvisor/metrics"
	"github.com/google/cadvisor/utils/sysfs"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"k8s.io/utils/clock"
)

// The kubelet's figures.
const (
	kept          = 2 * time.Minute
	housekeeping  = 10 * time.Second
	dynamicAtMost = 15 * time.Second
)

func main() {
	listen := flag.String("listen", "127.0.0.1:19957", "where to serve /metrics")
	roots := flag.String("root", "/kubepods", "the cgroup below which containers are")
	// The kubelet overrides the same flags of the library.
	for name, value := range map[string]string{
		"housekeeping_interval":     housekeeping.String(),
		"event_storage_event_limit": "default=0",
		"event_storage_age_limit":   "default=0",
	} {
		if err := flag.Set(name, value); err != nil {
			fail(err)
		}
	}
	flag.Parse()
	if err := run(*listen, *roots); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "cadvisor:", err)
	os.Exit(1)
}

func run(listen, root string) error {
	of := container.MetricSet{
		container.CpuUsageMetrics: {}, container.MemoryUsageMetrics: {}, container.DiskIOMetrics: {},
		container.NetworkUsageMetrics: {}, container.AppMetrics: {}, container.ProcessMetrics: {}, container.OOMMetrics: {},
	}
	if _, err := os.Stat("/sys/fs/cgroup/cpu.pressure"); err == nil {
		of[container.PressureMetrics] = struct{}{}
	}
	interval, dynamic := dynamicAtMost, true
	m, err := manager.New(memory.New(kept, nil), sysfs.NewRealSysFs(), manager.HousekeepingConfig{Interval: &interval, AllowDynamic: &dynamic},
		of, http.DefaultClient, []string{root}, nil, "", 0)
	if err != nil {
		return fmt.Errorf("making cAdvisor: %w", err)
	}
	if err := m.Start(); err != nil {
		return fmt.Errorf("starting cAdvisor: %w", err)
	}
	served := container.MetricSet{container.CpuLoadMetrics: {}, container.DiskUsageMetrics: {}}
	for metric := range of {
		served[metric] = struct{}{}
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(metrics.NewPrometheusCollector(m, nil, served, clock.RealClock{}, v2.RequestOptions{IdType: v2.TypeName, Count: 1, Recursive: true}))
	http.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError}))
	server := &http.Server{Addr: listen, ReadHeaderTimeout: 5 * time.Second}
	return server.ListenAndServe()
}
