package cgroup

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	mountinfoV2 = `22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
28 22 0:25 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot
`
	mountinfoV1 = `22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
30 22 0:26 / /sys/fs/cgroup ro,nosuid shared:9 - tmpfs tmpfs ro,mode=755
31 30 0:27 / /sys/fs/cgroup/unified rw shared:10 - cgroup2 cgroup2 rw
32 30 0:28 / /sys/fs/cgroup/systemd rw shared:11 - cgroup cgroup rw,xattr,name=systemd
33 30 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:12 - cgroup cgroup rw,cpu,cpuacct
34 30 0:30 / /sys/fs/cgroup/cpuset rw shared:13 - cgroup cgroup rw,cpuset
35 30 0:31 / /sys/fs/cgroup/memory rw shared:14 - cgroup cgroup rw,memory
`
	mountinfoSeparate = `31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
33 31 0:30 / /sys/fs/cgroup/cpuacct rw,relatime - cgroup cgroup rw,cpuacct
`
	// A container with the runtime's view of its own cgroup and the host's tree beside it.
	mountinfoTwice = `28 22 0:25 / /sys/fs/cgroup ro - cgroup2 cgroup rw
29 22 0:25 /../../.. /host/sys/fs/cgroup ro - cgroup2 cgroup rw
`
)

func TestSelectMounts(t *testing.T) {
	all := func(string) ([]string, error) { return []string{"cpuset", "cpu", "io", "memory"}, nil }
	none := func(string) ([]string, error) { return []string{"hugetlb"}, nil }
	anything := func(string) bool { return true }
	const cg = "/sys/fs/cgroup"
	tests := []struct {
		name, mountinfo string
		controllers     func(string) ([]string, error)
		whole           func(string) bool
		want            Mounts
		err             string
	}{
		{"v2", mountinfoV2, all, anything, Mounts{Version: 2, CPU: cg, CPUSet: cg, Memory: cg, Unified: cg}, ""},
		{"hybrid, joint", mountinfoV1, none, anything, Mounts{Version: 1, CPU: cg + "/cpu,cpuacct", CPUAcct: cg + "/cpu,cpuacct", CPUSet: cg + "/cpuset", Memory: cg + "/memory", Unified: cg + "/unified"}, ""},
		{"v1, separate", mountinfoSeparate, none, anything, Mounts{Version: 1, CPU: cg + "/cpu", CPUAcct: cg + "/cpuacct"}, ""},
		{"the whole tree is preferred", mountinfoTwice, all, func(dir string) bool { return strings.HasPrefix(dir, "/host") }, Mounts{Version: 2, CPU: "/host" + cg, CPUSet: "/host" + cg, Memory: "/host" + cg, Unified: "/host" + cg}, ""},
		{"nothing", "22 1 254:1 / / rw - ext4 /dev/vda1 rw\n", all, anything, Mounts{}, "mount cgroup v2 at /sys/fs/cgroup"},
		{"v2 without the controller", mountinfoV2, none, anything, Mounts{}, `cgroup v2 at /sys/fs/cgroup has no cpu controller (cgroup.controllers: "hugetlb")`},
		{"cpu without cpuacct", "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n", all, anything, Mounts{}, "cpuacct, which counts the usage, is not"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			mounts, err := ParseMountinfo(strings.NewReader(test.mountinfo))
			require.NoError(t, err)
			got, err := selectMounts(mounts, test.whole, test.controllers)
			if test.err != "" {
				assert.ErrorIs(t, err, ErrNoHierarchy)
				assert.ErrorContains(t, err, test.err)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, test.want, got)
		})
	}
}

func TestParseMountinfo(t *testing.T) {
	got, err := ParseMountinfo(strings.NewReader("36 35 98:0 /a\\040b /mnt\\134x\\011 rw,noatime master:1 propagate_from:2 - cgroup none rw,cpu,cpuacct\n"))
	require.NoError(t, err)
	assert.Equal(t, []Mount{{Root: "/a b", MountPoint: "/mnt\\x\t", FSType: "cgroup", Options: []string{"rw", "cpu", "cpuacct"}}}, got)

	for _, in := range []string{"\n", "36 35 98:0 / /mnt rw,noatime\n", "36 35 98:0 / /mnt - cgroup none rw\n", "36 35 98:0 / /mnt rw - cgroup\n"} {
		_, err := ParseMountinfo(strings.NewReader(mountinfoV2 + in))
		assert.ErrorContains(t, err, "mountinfo line 3", "%q", in)
	}
}

func TestFindMountsFromMountinfo(t *testing.T) {
	cg := fixture(t, "v2-cgroupfs-docker")
	procfs := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(procfs, "self"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(procfs, "self/mountinfo"), []byte("28 22 0:25 / "+cg+" rw - cgroup2 cgroup2 rw\n"), 0o644))
	m, err := FindMounts("", procfs)
	require.NoError(t, err)
	assert.Equal(t, Mounts{Version: 2, CPU: cg, CPUSet: cg, Memory: cg, Unified: cg}, m)

	_, err = FindMounts("", t.TempDir())
	assert.ErrorIs(t, err, os.ErrNotExist)
}

func TestFindMountsRefuses(t *testing.T) {
	mkdir := func(names ...string) string {
		dir := t.TempDir()
		for _, name := range names {
			if strings.HasSuffix(name, "/") {
				require.NoError(t, os.MkdirAll(filepath.Join(dir, name), 0o755))
				continue
			}
			require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
			require.NoError(t, os.WriteFile(filepath.Join(dir, name), nil, 0o644))
		}
		return dir
	}
	tests := []struct{ name, root, want string }{
		{"not there", filepath.Join(t.TempDir(), "x"), "no such file"},
		{"empty", mkdir(), "neither cgroup.controllers (v2) nor a cpu directory (v1)"},
		{"submounts missing", mkdir("cpu/", "cpuacct/"), "is empty: its submounts are missing"},
		{"one hierarchy of v1", mkdir("cpu.shares", "cgroup.procs"), "give the directory above it"},
		{"no cpuacct", mkdir("cpu/cgroup.procs"), "has cgroup v1's cpu but not cpuacct"},
		{"v2 without the controller", mkdir("cgroup.controllers"), "no cpu controller"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := Open(Config{Root: test.root, Log: quiet()})
			assert.ErrorContains(t, err, test.want)
		})
	}
}

func TestDescribePartial(t *testing.T) {
	for root, want := range map[string]string{
		"/":            "private cgroup namespace",
		"/..":          "as seen from our private cgroup namespace",
		"/../..":       "as seen from our private cgroup namespace",
		"/docker/0123": "only /docker/0123 of the host's tree",
		"/..x":         "only /..x of the host's tree",
		"":             "below the root of its hierarchy",
	} {
		got := describePartial("/sys/fs/cgroup", root)
		assert.Contains(t, got, want)
		assert.Contains(t, got, "mount the host's /sys/fs/cgroup")
	}
}

func FuzzMountinfo(f *testing.F) {
	for _, seed := range []string{mountinfoV2, mountinfoV1, mountinfoSeparate, mountinfoTwice, "", "\n", "1 2 3 4 5 6 - a b c\n", `1 2 3 \057 \1 6 - cgroup b cpu` + "\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		mounts, err := ParseMountinfo(strings.NewReader(in))
		if err != nil {
			assert.ErrorContains(t, err, "mountinfo")
			return
		}
		for _, m := range mounts {
			assert.NotEmpty(t, m.MountPoint)
			assert.NotEmpty(t, m.FSType)
		}
		m, err := selectMounts(mounts, func(string) bool { return false }, func(string) ([]string, error) { return []string{"cpu"}, nil })
		if err != nil {
			assert.ErrorIs(t, err, ErrNoHierarchy)
			return
		}
		assert.NotEmpty(t, m.CPU)
		assert.True(t, m.Version == 2 || m.CPUAcct != "")
	})
}
