package whisper

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// maxHostName leaves room for what an object's name adds to it.
const maxHostName = 100

// HostTarget names a cgroup that belongs to no pod, so that the operator can keep a
// whisper about it: the pod is the path's last elements in the letters that
// Kubernetes allows, with a hash of the path unless the path is such a name.
// namespace is a namespace that exists where the whispers may be applied.
func HostTarget(namespace, cgroupPath string) Target {
	path := strings.Trim(cgroupPath, "/")
	var b strings.Builder
	dash := true // no dash at the start, none twice
	for _, r := range strings.ToLower(path) {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			b.WriteRune(r)
			dash = false
		} else if !dash {
			b.WriteByte('-')
			dash = true
		}
	}
	name := strings.TrimSuffix(b.String(), "-")
	if name == path && name != "" && len(name) <= maxHostName {
		return Target{Namespace: namespace, Pod: name}
	}
	sum := sha256.Sum256([]byte(path))
	short := hex.EncodeToString(sum[:4])
	if len(name) > maxHostName-len(short)-1 {
		// The end of a path tells more than its beginning.
		name = strings.TrimLeft(name[len(name)-(maxHostName-len(short)-1):], "-")
	}
	if name == "" {
		return Target{Namespace: namespace, Pod: "cgroup-" + short}
	}
	return Target{Namespace: namespace, Pod: name + "-" + short}
}
