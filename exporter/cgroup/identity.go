package cgroup

import "strings"

// Identify tells what the cgroup at path (below the hierarchy's root, leading slash)
// holds, from the path alone, and the path of the cgroup that this identity belongs
// to: path itself, or the ancestor that a nested cgroup folds into. An empty owner
// means that the path is nobody's: the root, or a runtime's own monitor (conmon).
//
// A Kubernetes pod in the path wins over everything around it (a kind node is itself
// a container), then the outermost container, then the innermost systemd unit. What
// is left is KindOther and owns itself.
func Identify(path string) (id Identity, owner string) {
	if path == "" || path[0] != '/' {
		return Identity{}, ""
	}
	var (
		qos      QoS
		kubepods bool // below a kubepods directory of the cgroupfs driver
		pod      Identity
		podEnd   int
		outer    Identity
		outerEnd int
		unitEnd  int
		monitor  bool
		parent   string
		start    = 1
		hasPlain bool
	)
	for start <= len(path) {
		end := strings.IndexByte(path[start:], '/')
		if end < 0 {
			end = len(path)
		} else {
			end += start
		}
		name := path[start:end]
		start = end + 1
		if name == "" {
			continue
		}
		hasPlain = true

		if podEnd > 0 { // the pod's own child: a container, or something that counts as the pod's
			c, runtime, ok := containerName(name, "")
			if !ok || isMonitor(name) {
				return pod, path[:podEnd]
			}
			pod.Kind, pod.ContainerID, pod.Runtime = KindContainer, c, runtime
			return pod, path[:end]
		}

		if slice, rest, ok := strings.Cut(name, ":"); ok { // systemd's name given to a cgroupfs runtime
			runtime, c, ok := strings.Cut(rest, ":")
			if ok && isContainerID(c) {
				id := Identity{Kind: KindContainer, ContainerID: c, Runtime: runtimeOf(runtime)}
				if uid, q, ok := podSlice(slice); ok {
					id.PodUID, id.QoS = uid, q
					return id, path[:end]
				}
				if outerEnd == 0 {
					outer, outerEnd = id, end
				}
				parent = name
				continue
			}
		}

		if uid, q, ok := podSlice(name); ok {
			pod, podEnd = Identity{Kind: KindPod, PodUID: uid, QoS: q}, end
			continue
		}
		if uid, ok := podDirectory(name, kubepods); ok {
			pod, podEnd = Identity{Kind: KindPod, PodUID: uid, QoS: qos}, end
			continue
		}
		switch {
		case name == "kubepods":
			kubepods, qos = true, QoSGuaranteed
		case kubepods && parent == "kubepods" && name == string(QoSBurstable):
			qos = QoSBurstable
		case kubepods && parent == "kubepods" && name == string(QoSBestEffort):
			qos = QoSBestEffort
		}
		if outerEnd == 0 && !monitor {
			if isMonitor(name) {
				monitor = true
			} else if c, runtime, ok := containerName(name, parent); ok {
				outer, outerEnd = Identity{Kind: KindContainer, ContainerID: c, Runtime: runtime}, end
			} else if isUnit(name) {
				unitEnd = end
			}
		}
		parent = name
	}
	switch {
	case podEnd > 0:
		return pod, path[:podEnd]
	case outerEnd > 0:
		return outer, path[:outerEnd]
	case monitor || !hasPlain:
		return Identity{}, ""
	case unitEnd > 0:
		return Identity{Kind: KindService}, path[:unitEnd]
	default:
		return Identity{Kind: KindOther}, path
	}
}

// podSlice reads a pod's slice as the kubelet's systemd driver names it:
// [prefix-]kubepods[-burstable|-besteffort]-pod<uid with underscores>.slice.
func podSlice(name string) (uid string, qos QoS, ok bool) {
	base, ok := strings.CutSuffix(name, ".slice")
	if !ok {
		return "", "", false
	}
	i := strings.LastIndexByte(base, '-')
	if i < 0 {
		return "", "", false
	}
	uid, ok = strings.CutPrefix(base[i+1:], "pod")
	if !ok || !isUID(uid) {
		return "", "", false
	}
	parent := base[:i]
	qos = QoSGuaranteed
	if p, ok := strings.CutSuffix(parent, "-burstable"); ok {
		parent, qos = p, QoSBurstable
	} else if p, ok := strings.CutSuffix(parent, "-besteffort"); ok {
		parent, qos = p, QoSBestEffort
	}
	if parent != "kubepods" && !strings.HasSuffix(parent, "-kubepods") {
		return "", "", false
	}
	return strings.ReplaceAll(uid, "_", "-"), qos, true
}

// podDirectory reads pod<uid> of the kubelet's cgroupfs driver. Outside a kubepods
// directory (a tree mounted from further down) only a UID that looks like one counts.
func podDirectory(name string, kubepods bool) (uid string, ok bool) {
	uid, ok = strings.CutPrefix(name, "pod")
	if !ok || !isUID(uid) {
		return "", false
	}
	if !kubepods && !isUUID(uid) && !isConfigHash(uid) {
		return "", false
	}
	return uid, true
}

// containerName reads <64hex>, <runtime>-<64hex> and <runtime>-<64hex>.scope.
func containerName(name, parent string) (id, runtime string, ok bool) {
	s := strings.TrimSuffix(name, ".scope")
	if isContainerID(s) {
		return s, runtimeOf(parent), true
	}
	i := strings.LastIndexByte(s, '-')
	if i <= 0 || !isContainerID(s[i+1:]) {
		return "", "", false
	}
	return s[i+1:], runtimeOf(s[:i]), true
}

// runtimeOf maps the prefix of a scope, or the directory above a bare id, to its runtime.
func runtimeOf(name string) string {
	switch name {
	case "cri-containerd", "containerd", "nerdctl", "k8s.io":
		return "containerd"
	case "crio":
		return "crio"
	case "docker":
		return "docker"
	case "libpod", "libpod-payload", "libpod_parent":
		return "libpod"
	}
	return ""
}

// isMonitor tells a container's monitor process, which is no container.
func isMonitor(name string) bool {
	return strings.HasPrefix(name, "crio-conmon-") || strings.HasPrefix(name, "libpod-conmon-")
}

// isUnit tells a systemd unit that can hold processes; a slice can't.
func isUnit(name string) bool {
	i := strings.LastIndexByte(name, '.')
	if i <= 0 {
		return false
	}
	switch name[i+1:] {
	case "service", "scope", "socket", "mount", "swap":
		return true
	}
	return false
}

func isContainerID(s string) bool { return len(s) == 64 && isHex(s) }

func isConfigHash(s string) bool { return len(s) == 32 && isHex(s) }

func isUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := range len(s) {
		if i == 8 || i == 13 || i == 18 || i == 23 {
			if s[i] != '-' {
				return false
			}
		} else if !isHexDigit(s[i]) {
			return false
		}
	}
	return true
}

// isUID accepts what a static pod's manifest may set as its UID, too.
func isUID(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '-' && c != '_' {
			return false
		}
	}
	return s != ""
}

func isHex(s string) bool {
	for i := range len(s) {
		if !isHexDigit(s[i]) {
			return false
		}
	}
	return true
}

func isHexDigit(c byte) bool { return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' }
