package birth

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// identify knows the paths of the cgroupfs driver, which are enough here.
func identify(path string) (pod, container string) {
	parts := strings.Split(path, "/")
	for i, part := range parts {
		if uid, ok := strings.CutPrefix(part, "pod"); ok && strings.Contains(path, "kubepods") {
			if i+1 < len(parts) {
				container = parts[i+1]
			}
			return uid, container
		}
	}
	return "", ""
}

// play gives an Assembler what was recorded from a kernel, an event or a reading of
// counters a line, and lets it come to rest.
func play(t *testing.T, file string, cfg Config) []Certificate {
	t.Helper()
	cfg.Identify = identify
	a := New(cfg)
	a.Counted(true, 1)
	f, err := os.Open(filepath.Join("testdata", file))
	require.NoError(t, err)
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 16<<20)
	var out []Certificate
	var counts []Count
	for lines.Scan() {
		if bytes.HasPrefix(lines.Bytes(), []byte("[")) {
			counts = nil
			require.NoError(t, json.Unmarshal(lines.Bytes(), &counts))
			out = append(out, a.Tick(a.now, func() []Count { return counts }, Losses{})...)
			continue
		}
		var e Event
		require.NoError(t, json.Unmarshal(lines.Bytes(), &e))
		a.Event(&e)
	}
	require.NoError(t, lines.Err())
	for range 300 {
		out = append(out, a.Tick(a.now+time.Second, func() []Count { return counts }, Losses{})...)
	}
	assert.Zero(t, a.InFlight())
	assert.False(t, a.Counting(), "it rests")
	return out
}

// A run of runc 1.1.5 on Linux 6.18, of which strace -f counted 3,773 system calls, 4
// execves, 43 mounts and one namespace of each kind but two (exporter's integration test).
func TestRuncRun(t *testing.T) {
	all := play(t, "runc.jsonl", Config{})
	require.Len(t, all, 1)
	c := all[0]
	assert.Regexp(t, "^runc-[0-9]+$", c.Container)
	assert.Empty(t, c.Failure)
	assert.Empty(t, c.Incomplete)
	assert.EqualValues(t, 3771, c.Total)
	assert.EqualValues(t, 1461, c.Setup)
	assert.EqualValues(t, 4, c.Execs)
	assert.EqualValues(t, 43, c.Mounts)
	assert.EqualValues(t, 24, c.CgroupWrites)
	assert.Equal(t, []Namespaces{{"net", 1, 0}, {"mnt", 1, 0}, {"pid", 1, 0}, {"ipc", 1, 0}, {"uts", 1, 0}}, c.Namespaces)
	require.Len(t, c.Containers, 1)
	x := c.Containers[0]
	assert.Equal(t, "/bin/busybox", x.Entrypoint)
	assert.Equal(t, c.Total, x.Syscalls)
	require.NotNil(t, x.Created)
	assert.Zero(t, *x.Created)
	require.NotNil(t, x.Returned)
	assert.Equal(t, c.Duration, *x.Returned)
	assert.Less(t, *x.Entered, *x.Returned)
	var sum, roles uint64
	for _, s := range c.Syscalls {
		sum += s.N
		assert.GreaterOrEqual(t, s.First, time.Duration(0), s.Name)
	}
	for _, r := range c.Roles {
		roles += r.Syscalls
	}
	assert.Equal(t, c.Total, sum)
	assert.Equal(t, c.Total, roles)
	require.Len(t, c.Roles, 2, "where it executes itself by a file's number, it is runc init still")
	assert.ElementsMatch(t, []string{"runc run", "runc init"}, []string{c.Roles[0].Name, c.Roles[1].Name})
	last := time.Duration(0)
	var actions []string
	for _, s := range c.Steps {
		assert.GreaterOrEqual(t, s.Offset, last, "in order")
		last = s.Offset
		actions = append(actions, s.Action)
	}
	for _, want := range []string{"runc run", "new namespaces", "mounts", "new root", "capabilities dropped", "entrypoint"} {
		assert.Contains(t, actions, want)
	}
}

// crun 1.8.1 executes no second time: strace counted 797 system calls, 3 execves, 56 mounts.
func TestCrunRun(t *testing.T) {
	all := play(t, "crun.jsonl", Config{})
	require.Len(t, all, 1)
	c := all[0]
	assert.Empty(t, c.Failure)
	assert.Empty(t, c.Incomplete)
	assert.EqualValues(t, 796, c.Total)
	assert.EqualValues(t, 3, c.Execs)
	assert.EqualValues(t, 56, c.Mounts)
	assert.Equal(t, "/bin/busybox", c.Containers[0].Entrypoint)
}

// The same runc in the cgroup of a pod, on cgroup v1 with one hierarchy a controller.
func TestRuncInAPod(t *testing.T) {
	all := play(t, "pod.jsonl", Config{PodsOnly: true, Expect: func(string) (int, bool) { return 1, true }})
	require.Len(t, all, 1)
	c := all[0]
	assert.Equal(t, "5f0c9a3e-4b7d-4c53-9a51-0d6c1f2b3a4d", c.PodUID)
	assert.Empty(t, c.Container)
	assert.Empty(t, c.Failure)
	assert.Empty(t, c.Incomplete)
	require.Len(t, c.Containers, 1)
	assert.Equal(t, strings.Repeat("0123456789abcdef", 4), c.Containers[0].ID)
	assert.Equal(t, c.Total, c.Containers[0].Syscalls)
	assert.Equal(t, "made the pod's cgroup", c.Steps[0].Action)
	assert.GreaterOrEqual(t, *c.Containers[0].Created, 200*time.Millisecond, "the kubelet had other things to do first")
	assert.Len(t, c.Stages[StagePrepare], 1)
}

// story makes events at millisecond steps.
type story struct {
	a  *Assembler
	at time.Duration
}

func (s *story) tell(e Event) {
	s.at += time.Millisecond
	e.At = s.at
	s.a.Event(&e)
}

func (s *story) wait(d time.Duration, counts ...Count) []Certificate {
	s.at += d
	return s.a.Tick(s.at, func() []Count { return counts }, s.a.losses)
}

const (
	daemon  = 1
	podPath = "/kubepods/burstable/poduid-1"
)

func newStory(cfg Config) *story {
	cfg.Identify = identify
	s := &story{a: New(cfg)}
	s.tell(Event{Kind: Exec, Image: daemon, PID: 100, Root: 100, Daemon: true, File: "containerd"})
	return s
}

// container is what a runtime does for one; its images are id and the next ones.
func (s *story) container(image uint64, id string, enters bool) {
	pid := uint32(image)
	s.tell(Event{Kind: Fork, Image: daemon, PID: 100, Root: 100, Daemon: true, Child: image, ChildPID: pid})
	s.tell(Event{Kind: Exec, Image: image + 1, Previous: image, PID: pid, Root: pid, File: "/usr/bin/runc", Arguments: "runc\x00create\x00" + id + "\x00"})
	s.tell(Event{Kind: Fork, Image: image + 1, PID: pid, Root: pid, Child: image + 2, ChildPID: pid + 2})
	s.tell(Event{Kind: Attach, Image: image + 1, PID: pid, Root: pid, Task: pid + 2, Path: podPath + "/" + id})
	s.tell(Event{Kind: Call, Image: image + 2, PID: pid + 2, Root: pid, Name: "unshare", Detail: 0x20000})
	s.tell(Event{Kind: Call, Image: image + 2, PID: pid + 2, Root: pid, Name: "mount"})
	s.tell(Event{Kind: Call, Image: image + 2, PID: pid + 2, Root: pid, Name: "mount", Result: -1})
	s.tell(Event{Kind: Exit, Image: image + 1, PID: pid, Root: pid})
	if enters {
		s.tell(Event{Kind: Exec, Image: image + 3, Previous: image + 2, PID: pid + 2, Root: pid, File: "/app", Entrypoint: true})
		s.tell(Event{Kind: Returned, Image: image + 3, PID: pid + 2, Root: pid})
	} else {
		s.tell(Event{Kind: Exit, Image: image + 2, PID: pid + 2, Root: pid})
	}
}

func TestPodOfKnownSizeWaitsForAll(t *testing.T) {
	s := newStory(Config{PodsOnly: true, Expect: func(uid string) (int, bool) { return 2, uid == "uid-1" }})
	assert.False(t, s.a.Counting())
	s.tell(Event{Kind: Mkdir, Path: podPath})
	assert.True(t, s.a.Counting(), "from the pod's cgroup on")
	s.a.Counted(true, s.at)
	s.tell(Event{Kind: Fork, Image: daemon, PID: 100, Root: 100, Daemon: true, Child: 10, ChildPID: 10})
	s.tell(Event{Kind: Exec, Image: 11, Previous: 10, PID: 10, Root: 10, File: "/opt/cni/bin/bridge",
		CNI: "CNI_COMMAND=ADD\x00CNI_CONTAINERID=sandbox\x00CNI_ARGS=K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart;K8S_POD_UID=uid-1\x00"})
	s.tell(Event{Kind: Exit, Image: 11, PID: 10, Root: 10})
	s.container(20, "sandbox", true)
	s.container(30, "first", true)
	assert.Empty(t, s.wait(time.Minute), "one is to come")
	s.container(40, "second", true)
	counts := []Count{
		{Image: 11, Name: "sendto", N: 5, First: s.at}, {Image: 21, Name: "futex", N: 100, First: s.at},
		{Image: 31, Name: "mount", N: 7, First: s.at}, {Image: daemon, Name: "read", N: 1000, First: s.at},
		{Image: 999, Name: "read", N: 1 << 40, First: s.at},
	}
	all := s.wait(time.Second, counts...)
	require.Len(t, all, 1)
	c := all[0]
	assert.Equal(t, "uid-1", c.PodUID)
	assert.Equal(t, "shop", c.Namespace)
	assert.Equal(t, "cart", c.Pod)
	assert.Empty(t, c.Incomplete)
	assert.EqualValues(t, 112, c.Total)
	assert.EqualValues(t, 12, c.Setup)
	assert.EqualValues(t, 1000, c.Shared, "the daemon's, apart")
	assert.Equal(t, 1, c.SharedBy)
	assert.EqualValues(t, 3, c.Mounts, "what failed is none")
	require.Len(t, c.Containers, 3)
	assert.True(t, c.Containers[0].Sandbox)
	assert.Len(t, c.Stages[StageContainer], 2)
	assert.Len(t, c.Stages[StageSandbox], 1)
	assert.Len(t, c.Stages[StageNetwork], 1)
	assert.Len(t, c.Stages[StagePrepare], 1)

	// A restart is no birth.
	s.container(50, "again", true)
	assert.Empty(t, s.wait(time.Minute))
	assert.Zero(t, s.a.InFlight())
}

// A container that ends at once is started again before its pod's birth has settled.
func TestRestartBeforeTheCertificate(t *testing.T) {
	s := newStory(Config{PodsOnly: true, Expect: func(string) (int, bool) { return 1, true }})
	s.tell(Event{Kind: Mkdir, Path: podPath})
	s.a.Counted(true, s.at)
	s.container(20, "first", true)
	s.container(30, "again", true)
	all := s.wait(time.Minute)
	require.Len(t, all, 1)
	require.Len(t, all[0].Containers, 1)
	assert.Equal(t, "first", all[0].Containers[0].ID)
	assert.Empty(t, all[0].Failure)
	assert.Zero(t, s.a.InFlight())
}

func TestContainerThatNeverReachesItsEntrypoint(t *testing.T) {
	s := newStory(Config{PodsOnly: true, Expect: func(string) (int, bool) { return 1, true }})
	s.tell(Event{Kind: Mkdir, Path: podPath})
	s.a.Counted(true, s.at)
	s.container(20, "bad", false)
	all := s.wait(time.Minute)
	require.Len(t, all, 1)
	assert.Contains(t, all[0].Failure, "container bad never reached its entrypoint")
	assert.Nil(t, all[0].Containers[0].Entered)
	assert.True(t, all[0].Containers[0].Failed)
	assert.NotContains(t, all[0].Stages, StageTotal)
}

func TestCauseOfAFailure(t *testing.T) {
	assert.Equal(t, "ended with status 127", Ended(127<<8).String())
	assert.Equal(t, "was killed by signal 9 (killed)", Ended(9).String())
	assert.Equal(t, "was killed by signal 11 (segmentation fault)", Ended(0x80|11).String())
	for _, tc := range []struct {
		name string
		told []Event
		want string
	}{
		{"nothing is known", []Event{{Kind: Exit, Image: 21}}, "the runtime's processes have ended"},
		{"killed", []Event{{Kind: Exit, Image: 21, Code: 9}}, "runc create was killed by signal 9 (killed)"},
		{"refused", []Event{
			{Kind: Call, Image: 21, Name: "execveat", Result: -int64(syscall.ENOENT), Text: [3]string{"", "/bin/x\n"}},
			{Kind: Exit, Image: 21, Code: 1 << 8},
		}, "execveat of /bin/x?: no such file or directory; runc create ended with status 1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newStory(Config{})
			s.tell(Event{Kind: Exec, Image: 21, PID: 20, Root: 20, File: "/usr/bin/runc", Arguments: "runc\x00create\x00one\x00"})
			for _, e := range tc.told {
				e.PID, e.Root = 20, 20
				s.tell(e)
			}
			all := s.wait(time.Minute)
			require.Len(t, all, 1)
			assert.Equal(t, "container one never reached its entrypoint: "+tc.want, all[0].Failure)
			assert.Equal(t, tc.want, all[0].Containers[0].Cause)
		})
	}
}

func TestAgeIsBounded(t *testing.T) {
	s := newStory(Config{PodsOnly: true, Expect: func(string) (int, bool) { return 2, true }})
	s.tell(Event{Kind: Mkdir, Path: podPath})
	s.a.Counted(true, s.at)
	s.container(20, "one", true)
	assert.Empty(t, s.wait(time.Minute))
	all := s.wait(time.Minute)
	require.Len(t, all, 1)
	assert.Contains(t, all[0].Incomplete, "of 2 containers 1 had reached their entrypoints after 2m0s")
	assert.Empty(t, all[0].Failure)
}

func TestWhatIsMissingIsSaid(t *testing.T) {
	for _, tc := range []struct {
		name   string
		cfg    Config
		told   func(s *story)
		losses Losses
		want   string
	}{
		{"the ring was full", Config{}, func(*story) {}, Losses{Events: 3}, "3 events were lost"},
		{"a table was full", Config{}, func(*story) {}, Losses{Counts: 9}, "9 system calls were not counted"},
		{"processes were lost", Config{}, func(*story) {}, Losses{Processes: 1}, "1 processes were not followed"},
		{"arguments were lost", Config{}, func(*story) {}, Losses{Unreadable: 2}, "2 arguments could not be read"},
		{"too many processes", Config{MaxImages: 4}, func(*story) {}, Losses{}, "more than 4 processes"},
		{"too many steps", Config{MaxSteps: 2}, func(*story) {}, Losses{}, "the first 2 are here"},
		{"too many routes", Config{}, func(s *story) {
			for i := range networkOfOne + 1 {
				b := message(newRoute, append([]byte{2, 0}, make([]byte, 10)...), kindOf(5), []byte{10, 244, 0, byte(i)})
				s.tell(Event{Kind: Netlink, Image: 21, PID: 20, Root: 20, Protocol: netlinkRoute, Length: len(b), Message: b})
			}
		}, Losses{}, "not every interface, address and route is listed"},
		{"too long a message", Config{}, func(s *story) {
			s.tell(Event{Kind: Netlink, Image: 21, PID: 20, Root: 20, Protocol: netlinkRoute, Length: 5000, Unread: true})
		}, Losses{}, "not every interface, address and route is listed"},
		{"too many rules", Config{}, func(s *story) {
			s.tell(Event{Kind: Netlink, Image: 21, PID: 20, Root: 20, Protocol: netlinkNetfilter, Rules: 1000, Unread: true})
		}, Losses{}, "not every rule of the firewall is counted"},
		{"counting began late", Config{}, func(s *story) { s.a.counting = false; s.a.Counted(true, s.at) }, Losses{}, "were not counted: counting began then"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.cfg.Expect = func(string) (int, bool) { return 1, true }
			s := newStory(tc.cfg)
			s.tell(Event{Kind: Mkdir, Path: podPath})
			s.a.Counted(true, s.at)
			s.container(20, "one", true)
			tc.told(s)
			s.a.losses = tc.losses
			var all []Certificate
			for range 150 {
				all = append(all, s.wait(time.Second)...)
			}
			require.Len(t, all, 1)
			assert.Contains(t, strings.Join(all[0].Incomplete, "\n"), tc.want)
		})
	}
}

func TestBirthsInFlightAreBounded(t *testing.T) {
	s := newStory(Config{MaxBirths: 2})
	for _, uid := range []string{"a", "b", "c"} {
		s.tell(Event{Kind: Mkdir, Path: "/kubepods/pod" + uid})
	}
	assert.Equal(t, 2, s.a.InFlight())
	assert.EqualValues(t, 1, s.a.Refused())
	all := s.wait(3 * time.Minute)
	require.Len(t, all, 2)
	assert.Equal(t, 2, all[0].SharedBy)
	assert.Contains(t, all[0].Failure, "no container was made within 2m0s")
	assert.Zero(t, s.a.InFlight())
}

// A shim, or runc run, stays: what it does after the last entrypoint is not the birth's.
func TestEpochs(t *testing.T) {
	s := newStory(Config{})
	s.a.Counted(true, 1)
	s.tell(Event{Kind: Exec, Image: 10, PID: 10, Root: 10, File: "/usr/bin/runc", Arguments: "runc\x00run\x00box\x00"})
	s.tell(Event{Kind: Fork, Image: 10, PID: 10, Root: 10, Child: 11, ChildPID: 11})
	s.tell(Event{Kind: Exec, Image: 12, Previous: 11, PID: 11, Root: 10, Entrypoint: true, File: "/app", Parent: 10, ParentEpoch: 1})
	all := s.wait(time.Second, Count{Image: 10, Name: "read", N: 3}, Count{Image: 10, Name: "read", N: 500, Epoch: 1})
	require.Len(t, all, 1)
	assert.EqualValues(t, 3, all[0].Total)
	assert.Equal(t, "box", all[0].Container)
}

func TestExecIntoAContainerIsNoBirth(t *testing.T) {
	s := newStory(Config{})
	s.tell(Event{Kind: Exec, Image: 10, PID: 10, Root: 10, File: "/usr/bin/runc", Arguments: "runc\x00exec\x00box\x00sh\x00"})
	assert.Zero(t, s.a.InFlight())
	assert.False(t, s.a.Counting(), "health checks come all the time")
	assert.Empty(t, s.wait(time.Minute))
}

// A node makes containers for months: what is over is forgotten.
func TestNothingIsKept(t *testing.T) {
	s := newStory(Config{PodsOnly: true, Expect: func(string) (int, bool) { return 1, true }})
	s.tell(Event{Kind: Mkdir, Path: podPath})
	s.a.Counted(true, s.at)
	for image := uint64(1000); image < 20_000; image += 10 {
		s.container(image, fmt.Sprint("restart-", image), true)
		if image%1000 == 0 {
			s.wait(time.Minute)
		}
	}
	s.wait(time.Hour)
	s.wait(time.Hour)
	assert.Len(t, s.a.images, 1, "the daemon")
	assert.True(t, s.a.Keeps(daemon))
	assert.Empty(t, s.a.podOf)
	assert.Empty(t, s.a.told)
	assert.Len(t, s.a.byPID, 1)
}
