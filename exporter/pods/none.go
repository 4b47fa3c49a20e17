package pods

// None is the Index of a machine without a cluster: it knows nobody.
type None struct{}

var _ Index = None{}

// ByContainerID finds nothing.
func (None) ByContainerID(string) (Container, bool) { return Container{}, false }

// ByPodUID finds nothing.
func (None) ByPodUID(string) (Container, bool) { return Container{}, false }
