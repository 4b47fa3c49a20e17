package collector

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kernel-gossip/kernel-gossip/exporter/sampler"
)

type info struct{ info *Family }

func newInfo(Options) Collector {
	return &info{perContainer(gauge, "container_info",
		"Always 1: joins a container's names with its pod UID, container ID, cgroup path and QoS class.", "uid", "container_id", "cgroup", "qos")}
}

func (c *info) Families() []*Family { return []*Family{c.info} }

func (c *info) Update(snap *sampler.Snapshot, send func(prometheus.Metric, error)) error {
	for i := range snap.Containers {
		g := &snap.Containers[i]
		// A directory's name may be any bytes, a label's value may not.
		path := strings.ToValidUTF8(g.Group.Path, "\uFFFD")
		send(c.info.of(g, 1, g.PodUID, g.Group.ContainerID, path, string(g.Group.QoS)))
	}
	return nil
}
