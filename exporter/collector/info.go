package collector

import "strings"

type info struct{ info *Family }

func newInfo() Collector {
	return &info{perContainer(fact, "container_info",
		"Always 1: joins a container's names with its pod UID, container ID, cgroup path and QoS class.", "uid", "container_id", "cgroup", "qos")}
}

func (c *info) Families() []*Family { return []*Family{c.info} }

func (c *info) Update(out *Exposition) {
	for i := range out.Containers {
		g := &out.Containers[i]
		// A directory's name may be any bytes, a label's value may not.
		path := strings.ToValidUTF8(g.Group.Path, "\uFFFD")
		out.of(g, c.info, 1, g.PodUID, g.Group.ContainerID, path, string(g.Group.QoS))
	}
}
