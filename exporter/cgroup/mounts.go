package cgroup

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// ErrNoHierarchy is returned when no cgroup file system with the cpu controller is visible.
var ErrNoHierarchy = errors.New("no cgroup hierarchy with the cpu controller")

const howToMount = "mount cgroup v2 at /sys/fs/cgroup, or cgroup v1's cpu and cpuacct below it; " +
	"in a container, mount the host's /sys/fs/cgroup with its submounts (mountPropagation: HostToContainer) and name it with --cgroup.root"

// Mounts says where the hierarchies are. Paths are directories.
type Mounts struct {
	Version int    // 1 or 2: where the cpu controller is
	CPU     string // root of the cpu controller's tree
	CPUAcct string // v1; the same directory as CPU where both are mounted together
	CPUSet  string // v1; empty when not mounted. On v2 the same as CPU
	Memory  string // v1; empty when not mounted. On v2 the same as CPU
	Unified string // cgroup v2, also where it stands beside v1 without controllers (hybrid); else empty
	// Partial says why less than the host's whole tree is visible. Empty when all of
	// it is, and where it can't be told (a copy of a tree on another file system).
	Partial string
}

// Layout is "v1", "v2" or "hybrid" (v1 controllers, v2 beside them).
func (m Mounts) Layout() string {
	switch {
	case m.Version == 2:
		return "v2"
	case m.Unified != "":
		return "hybrid"
	default:
		return "v1"
	}
}

// Mount is a line of mountinfo (proc_pid_mountinfo(5)).
type Mount struct {
	Root       string // which directory of the file system is mounted
	MountPoint string
	FSType     string
	Options    []string // of the superblock: a v1 mount's controllers are among them
}

// ParseMountinfo reads /proc/<pid>/mountinfo.
func ParseMountinfo(r io.Reader) ([]Mount, error) {
	var mounts []Mount
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, 1<<20) // overlay mounts have long option lists
	for n := 1; sc.Scan(); n++ {
		left, right, ok := strings.Cut(sc.Text(), " - ")
		l, s := strings.Fields(left), strings.Fields(right)
		if !ok || len(l) < 6 || len(s) < 2 {
			return nil, fmt.Errorf("mountinfo line %d: %q is not a mount", n, sc.Text())
		}
		m := Mount{Root: unescape(l[3]), MountPoint: unescape(l[4]), FSType: s[0]}
		if len(s) > 2 {
			m.Options = strings.Split(s[len(s)-1], ",")
		}
		mounts = append(mounts, m)
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("mountinfo: %w", err)
	}
	return mounts, nil
}

// unescape turns mountinfo's \ooo into bytes.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) && isOctal(s[i+1]) && isOctal(s[i+2]) && isOctal(s[i+3]) {
			b = append(b, (s[i+1]-'0')<<6|(s[i+2]-'0')<<3|(s[i+3]-'0'))
			i += 3
			continue
		}
		b = append(b, s[i])
	}
	return string(b)
}

func isOctal(c byte) bool { return c >= '0' && c <= '7' }

// FindMounts locates the hierarchies: below root where one is given, else from
// <procfs>/self/mountinfo. The error wraps ErrNoHierarchy where nothing usable is
// there, and names what to mount.
func FindMounts(root, procfs string) (Mounts, error) {
	var m Mounts
	info, err := readMountinfo(procfs)
	switch {
	case root != "":
		// A root that is given may be no mount at all, so mountinfo is only asked
		// about how much of the tree it shows.
		if m, err = probeRoot(root); err != nil {
			return Mounts{}, err
		}
	case err != nil:
		return Mounts{}, err
	default:
		if m, err = selectMounts(info, isWholeTree, controllersAt); err != nil {
			return Mounts{}, fmt.Errorf("%w (looked in %s)", err, filepath.Join(procfs, "self/mountinfo"))
		}
	}
	m.Partial = partial(m.CPU, info)
	return m, nil
}

func readMountinfo(procfs string) ([]Mount, error) {
	f, err := os.Open(filepath.Join(procfs, "self/mountinfo"))
	if err != nil {
		return nil, fmt.Errorf("finding cgroup mounts: %w", err)
	}
	defer f.Close()
	return ParseMountinfo(f)
}

// selectMounts picks one mount for each controller; of several the one that shows the whole tree.
func selectMounts(mounts []Mount, whole func(dir string) bool, controllers func(dir string) ([]string, error)) (Mounts, error) {
	pick := func(match func(Mount) bool) string {
		var found string
		for _, m := range mounts {
			if !match(m) {
				continue
			}
			if whole(m.MountPoint) {
				return m.MountPoint
			}
			if found == "" {
				found = m.MountPoint
			}
		}
		return found
	}
	v1 := func(controller string) string {
		return pick(func(m Mount) bool { return m.FSType == "cgroup" && slices.Contains(m.Options, controller) })
	}
	unified := pick(func(m Mount) bool { return m.FSType == "cgroup2" })
	if cpu := v1("cpu"); cpu != "" {
		m := Mounts{Version: 1, CPU: cpu, CPUAcct: v1("cpuacct"), CPUSet: v1("cpuset"), Memory: v1("memory"), Unified: unified}
		if m.CPUAcct == "" {
			return Mounts{}, fmt.Errorf("%w: cgroup v1's cpu is mounted at %s but cpuacct, which counts the usage, is not: mount it too", ErrNoHierarchy, cpu)
		}
		return m, nil
	}
	if unified == "" {
		return Mounts{}, fmt.Errorf("%w: %s", ErrNoHierarchy, howToMount)
	}
	available, err := controllers(unified)
	if err != nil {
		return Mounts{}, err
	}
	return unifiedMounts(unified, available)
}

func unifiedMounts(dir string, available []string) (Mounts, error) {
	if !slices.Contains(available, "cpu") {
		return Mounts{}, fmt.Errorf("%w: cgroup v2 at %s has no cpu controller (cgroup.controllers: %q) and no v1 cpu hierarchy is mounted: %s",
			ErrNoHierarchy, dir, strings.Join(available, " "), howToMount)
	}
	return Mounts{Version: 2, CPU: dir, CPUSet: dir, Memory: dir, Unified: dir}, nil
}

func controllersAt(dir string) ([]string, error) {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return nil, fmt.Errorf("reading cgroup v2's controllers: %w", err)
	}
	return strings.Fields(string(b)), nil
}

// probeRoot recognises the layout below a given directory by its files.
func probeRoot(root string) (Mounts, error) {
	root = filepath.Clean(root)
	if available, err := controllersAt(root); err == nil {
		return unifiedMounts(root, available)
	} else if !errors.Is(err, os.ErrNotExist) {
		return Mounts{}, err
	}
	entries, err := os.ReadDir(root)
	if err != nil {
		return Mounts{}, fmt.Errorf("cgroup root: %w", err)
	}
	if exists(filepath.Join(root, "cpu.cfs_quota_us")) || exists(filepath.Join(root, "cpu.shares")) {
		return Mounts{}, fmt.Errorf("%w: %s is one hierarchy of cgroup v1: give the directory above it, which holds cpu and cpuacct", ErrNoHierarchy, root)
	}
	var empty error
	find := func(controller string) string {
		names := []string{controller} // often a symlink to cpu,cpuacct
		for _, e := range entries {
			if e.Name() != controller && slices.Contains(strings.Split(e.Name(), ","), controller) {
				names = append(names, e.Name())
			}
		}
		for _, name := range names {
			dir := filepath.Join(root, name)
			if exists(filepath.Join(dir, "cgroup.procs")) {
				if real, err := filepath.EvalSymlinks(dir); err == nil {
					return real
				}
				return dir
			}
			if below, err := os.ReadDir(dir); err == nil && len(below) == 0 {
				empty = fmt.Errorf("%w: %s is empty: its submounts are missing: %s", ErrNoHierarchy, dir, howToMount)
			}
		}
		return ""
	}
	m := Mounts{Version: 1, CPU: find("cpu"), CPUAcct: find("cpuacct"), CPUSet: find("cpuset"), Memory: find("memory")}
	if dir := filepath.Join(root, "unified"); exists(filepath.Join(dir, "cgroup.controllers")) {
		m.Unified = dir
	}
	switch {
	case m.CPU != "" && m.CPUAcct != "":
		return m, nil
	case empty != nil:
		return Mounts{}, empty
	case m.CPU != "":
		return Mounts{}, fmt.Errorf("%w: %s has cgroup v1's cpu but not cpuacct, which counts the usage: mount it too", ErrNoHierarchy, root)
	default:
		return Mounts{}, fmt.Errorf("%w: %s has neither cgroup.controllers (v2) nor a cpu directory (v1): %s", ErrNoHierarchy, root, howToMount)
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// partial says why dir shows less than the host's tree, if so. The root of a cgroup
// hierarchy always has inode 1 (fs/kernfs); any other number is a subtree.
func partial(dir string, mounts []Mount) string {
	if !isCgroupFS(dir) || isWholeTree(dir) {
		return ""
	}
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		real = dir
	}
	for _, m := range mounts {
		if m.MountPoint != real || !strings.HasPrefix(m.FSType, "cgroup") {
			continue
		}
		return describePartial(dir, m.Root)
	}
	return describePartial(dir, "")
}

// describePartial explains a subtree by the root that mountinfo gives it.
func describePartial(dir, root string) string {
	const remedy = "only cgroups below it are seen; mount the host's /sys/fs/cgroup, or run in the host's cgroup namespace"
	switch {
	case root == "/":
		return fmt.Sprintf("%s shows a private cgroup namespace: %s", dir, remedy)
	case root == "/.." || strings.HasPrefix(root, "/../"):
		return fmt.Sprintf("%s was mounted from another place in the tree (%s as seen from our private cgroup namespace): %s", dir, root, remedy)
	case root == "":
		return fmt.Sprintf("%s is below the root of its hierarchy: %s", dir, remedy)
	default:
		return fmt.Sprintf("%s shows only %s of the host's tree: %s", dir, root, remedy)
	}
}

// isWholeTree tells whether dir is the root of its hierarchy: kernfs numbers it 1.
func isWholeTree(dir string) bool {
	id, err := stat(dir)
	return err == nil && id == 1
}
