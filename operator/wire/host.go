package wire

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// MaxHostPod bounds HostPod's names, in bytes; it leaves room for what an object's
// name adds.
const MaxHostPod = 100

// HostPod is the pod_name of events about a cgroup that belongs to no pod, such as a
// systemd service, so that a whisper can be kept about it: node and path in the
// letters that Kubernetes allows, with a hash of both unless that is what they were.
// Whoever tells of a cgroup must name it so, lest one cgroup has two whispers. node
// is empty where there is only one.
func HostPod(node, cgroupPath string) string {
	subject := strings.Trim(cgroupPath, "/")
	if node != "" {
		subject = node + "/" + subject
	}
	var b strings.Builder
	dash := true // no dash at the start, none twice
	for _, r := range strings.ToLower(subject) {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			b.WriteRune(r)
			dash = false
		} else if !dash {
			b.WriteByte('-')
			dash = true
		}
	}
	name := strings.TrimSuffix(b.String(), "-")
	if name == subject && name != "" && len(name) <= MaxHostPod {
		return name
	}
	sum := sha256.Sum256([]byte(subject))
	short := hex.EncodeToString(sum[:4])
	if len(name) > MaxHostPod-len(short)-1 {
		// The end of a path tells more than its beginning.
		name = strings.TrimLeft(name[len(name)-(MaxHostPod-len(short)-1):], "-")
	}
	if name == "" {
		return "cgroup-" + short
	}
	return name + "-" + short
}
