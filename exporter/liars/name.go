package liars

import "regexp"

var containerID = regexp.MustCompile(`\b([0-9a-f]{12})[0-9a-f]{52}\b`)

// Short cuts container IDs in a cgroup's path to the 12 digits that people know them by.
func Short(path string) string { return containerID.ReplaceAllString(path, "$1") }
