package birth

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Config bounds an Assembler. The zero value of a bound is its default.
type Config struct {
	// Identify tells pod UID and container ID from a cgroup's path; empty what it does not tell.
	Identify func(path string) (podUID, containerID string)
	// Expect is how many containers a pod is to have, init containers included; false
	// where that is not known (yet).
	Expect func(podUID string) (int, bool)
	// PodsOnly leaves out containers that belong to no pod.
	PodsOnly bool

	MaxBirths int           // in flight; default 256
	MaxImages int           // processes that are remembered; default 16384
	MaxSteps  int           // of a birth; default 256
	MaxAge    time.Duration // of a birth; default 2 minutes
	Settle    time.Duration // quiet time after which a birth of unknown size is over; default 2 s
}

// Assembler makes certificates. Its methods must not be called concurrently.
type Assembler struct {
	cfg    Config
	images map[uint64]*image
	byPID  map[uint32]*image
	births map[string]*birth
	podOf  map[string]string        // by container
	told   map[string]time.Duration // births that are over, and when

	unshared map[uint32]time.Duration // network namespaces that daemons' threads made, until they are bound
	netns    map[string]time.Duration // and then by name

	now         time.Duration
	awake       time.Duration // when something last hinted at a birth
	hinted      bool
	countedFrom time.Duration
	counting    bool
	counts      []Count // as last read
	countsRead  time.Duration
	begun       bool // a birth, since they were
	losses      Losses
	daemons     uint64 // their system calls, as last read
	refused     uint64
}

// image is a process from its fork or execve to the next execve or its end.
type image struct {
	id          uint64
	pid         uint32
	root        uint32
	before      *image // what it was forked from, or was before its execve
	role        string
	command     command
	cni         cni
	container   string // that it says it is about
	pod         string
	daemon      bool
	executed    bool
	entrypoint  bool
	begin, end  time.Duration
	ended       Ended
	refused     string // the last execve that failed, and why
	epoch       uint32 // entrypoints that came of it
	mayFirewall bool

	namespaces                     [kinds]struct{ created, entered uint64 }
	mounts, cgroupWrites           uint64
	firstMount, lastMount          time.Duration
	pivoted, capabilities, seccomp time.Duration
	unshared                       time.Duration
	unsharedKinds                  uint32
	network                        Network
	rules                          uint64
	unreadRules                    bool
	moreNetwork                    bool // than is kept
}

type container struct {
	id                                  string
	created, started, entered, returned time.Duration
	entrypoint                          string
	sandbox                             bool
}

type birth struct {
	key        string
	pod        string
	namespace  string
	name       string
	begin      time.Duration
	cgroupMade time.Duration
	last       time.Duration
	containers map[string]*container
	sandbox    string
	steps      []Step // at absolute times
	netns      uint64 // network namespaces that a daemon made for it
	daemons    uint64 // the daemons' system calls before it
	sharedBy   int
	losses     Losses
	incomplete []string
	late       bool // seen from the middle on
}

// New returns an Assembler.
func New(cfg Config) *Assembler {
	cfg.MaxBirths = cmp.Or(cfg.MaxBirths, 256)
	cfg.MaxImages = cmp.Or(cfg.MaxImages, 16384)
	cfg.MaxSteps = cmp.Or(cfg.MaxSteps, 256)
	cfg.MaxAge = cmp.Or(cfg.MaxAge, 2*time.Minute)
	cfg.Settle = cmp.Or(cfg.Settle, 2*time.Second)
	if cfg.Expect == nil {
		cfg.Expect = func(string) (int, bool) { return 0, false }
	}
	return &Assembler{
		cfg: cfg, images: map[uint64]*image{}, byPID: map[uint32]*image{}, births: map[string]*birth{},
		podOf: map[string]string{}, told: map[string]time.Duration{},
		unshared: map[uint32]time.Duration{}, netns: map[string]time.Duration{},
	}
}

// linger is how long after a hint of a birth its system calls are counted.
const linger = 5 * time.Second

// InFlight is the number of births that are not over.
func (a *Assembler) InFlight() int { return len(a.births) }

// Refused is the number of births that were not followed because there were too many.
func (a *Assembler) Refused() uint64 { return a.refused }

// Counting tells whether system calls are to be counted now.
func (a *Assembler) Counting() bool {
	return len(a.births) > 0 || a.hinted && a.now-a.awake < linger
}

// Counted is to be called when the kernel begins or ceases to count system calls.
func (a *Assembler) Counted(on bool, at time.Duration) {
	if on && !a.counting {
		a.countedFrom = at
	}
	a.counting = on
}

// Keeps tells whether the counters of an image are wanted still.
func (a *Assembler) Keeps(id uint64) bool { return a.images[id] != nil }

// Event takes the next event.
func (a *Assembler) Event(e *Event) {
	a.now = max(a.now, e.At)
	switch e.Kind {
	case Fork:
		a.fork(e)
	case Exec:
		a.exec(e)
	case Exit:
		if i := a.images[e.Image]; i != nil {
			i.ended = e.Code
			a.ends(i, e.At)
			a.touch(i, e.At)
		}
	case Call:
		a.call(e)
	case Netlink:
		a.netlink(e)
	case Mkdir:
		a.mkdir(e)
	case Attach:
		a.attach(e)
	case Returned:
		if i := a.images[e.Image]; i != nil {
			a.ends(i, e.At) // from here on it is the application, which nobody follows
			if b, c := a.containerOf(i); c != nil && c.entered > 0 && c.returned == 0 {
				c.returned, b.last = e.At, e.At
			}
		}
	}
}

func (a *Assembler) ends(i *image, at time.Duration) {
	i.end = at
	if a.byPID[i.pid] == i {
		delete(a.byPID, i.pid)
	}
}

func (a *Assembler) hint(at time.Duration) { a.awake, a.hinted = at, true }

func (a *Assembler) remember(i *image) {
	if len(a.images) >= a.cfg.MaxImages {
		for _, b := range a.births {
			b.lack(fmt.Sprintf("more than %d processes were to be remembered", a.cfg.MaxImages))
		}
		return
	}
	a.images[i.id] = i
	a.byPID[i.pid] = i
}

// daemonImage is a daemon that was there before.
func (a *Assembler) daemonImage(e *Event) *image {
	i := a.images[e.Image]
	if i == nil {
		i = &image{id: e.Image, pid: e.PID, root: e.Root, daemon: true, begin: e.At, role: "daemon"}
		a.remember(i)
	}
	return i
}

func (a *Assembler) fork(e *Event) {
	i := &image{id: e.Child, pid: e.ChildPID, begin: e.At, before: a.images[e.Image], root: e.Root}
	if e.Daemon {
		i.root = e.ChildPID
		i.before = a.daemonImage(e)
	} else if i.before != nil {
		i.role = i.before.role
	}
	a.remember(i)
	a.touch(i, e.At)
}

func (a *Assembler) exec(e *Event) {
	arguments := words(e.Arguments)
	i := &image{
		id: e.Image, pid: e.PID, root: e.Root, before: a.images[e.Previous], begin: e.At,
		daemon: e.Daemon, executed: true, entrypoint: e.Entrypoint,
	}
	if i.before != nil && i.before.end == 0 {
		i.before.end = e.At
	}
	if e.Daemon {
		i.role = path.Base(e.File)
		a.remember(i)
		return
	}
	if e.Entrypoint {
		i.role = "entrypoint"
		a.remember(i)
		a.entrypoint(i, e)
		return
	}
	i.command, i.cni = parseCommand(e.File, arguments), parseCNI(e.CNI)
	// Itself again, by a name that says nothing: /proc/self/exe, /proc/self/fd/6, /dev/fd/6.
	if i.before != nil && (strings.HasPrefix(e.File, "/proc/") || strings.HasPrefix(e.File, "/dev/fd/")) {
		i.command = parseCommand(i.before.program(), arguments)
	}
	switch {
	case i.cni.command != "":
		i.role = "cni " + printable([]byte(path.Base(e.File)))
		i.pod = i.cni.podUID
		if i.pod != "" && i.cni.containerID != "" {
			a.belongs(i.cni.containerID, i.pod, e.At)
		} else if i.pod == "" {
			i.container = i.cni.containerID
		}
	case i.command.verb == "shim":
		i.role = "shim"
		i.container = i.command.id
	case i.command.verb != "":
		i.role = i.command.program + " " + i.command.verb
		i.container = i.command.id
	default:
		i.role = printable([]byte(i.command.program))
		i.pod = a.podNamed(arguments)
	}
	i.mayFirewall = changesFirewall(i.command.program, arguments)
	a.remember(i)
	// Not for what only looks after containers: health checks come all the time.
	if e.Previous == 0 && !a.cfg.PodsOnly && (i.command.verb == "" || i.command.makesContainer()) {
		a.hint(e.At)
	}
	if i.container != "" && i.command.makesContainer() {
		a.make(i, e.At)
	}
	if i.cni.command == "ADD" && i.pod != "" {
		if b := a.births[i.pod]; b != nil {
			b.namespace, b.name = i.cni.namespace, i.cni.pod
			b.sandbox = cmp.Or(b.sandbox, i.cni.containerID)
			if made, ok := a.netns[path.Base(i.cni.netns)]; ok {
				b.netns++
				a.step(b, Step{Offset: made, Actor: ActorRuntime, Action: "made the network namespace", Details: printable([]byte(i.cni.netns))})
				delete(a.netns, path.Base(i.cni.netns))
			}
		}
	}
	a.touch(i, e.At)
}

// make is a runtime, or a shim, that is about to make a container.
func (a *Assembler) make(i *image, at time.Duration) {
	id := i.container
	b := a.birthOf(id)
	if b == nil {
		verb := i.command.verb
		if a.cfg.PodsOnly || a.isTold(id) || verb == "start" || verb == "init" || i.root != i.pid && a.ofTold(i) {
			return
		}
		if b = a.begin(id, "", at); b == nil {
			return
		}
		// What its lineage did before it named the container was for it, too.
		for _, other := range a.images {
			if other.root == i.root && other.begin < b.begin && !other.daemon {
				b.begin = other.begin
			}
		}
	}
	if i.command.verb == "shim" {
		// containerd's is one to a pod; CRI-O's conmon is one to a container, and a pod of its
		// may do without a sandbox's container.
		if b.pod != "" && !strings.HasPrefix(i.command.program, "conmon") {
			b.sandbox = cmp.Or(b.sandbox, id)
		}
		return
	}
	c := b.container(id)
	switch {
	case i.command.verb == "start":
		c.started = cmp.Or(c.started, at)
	case c.created == 0 || at < c.created:
		c.created = at
	}
}

// ofTold tells that an image looks after what has its certificate already.
func (a *Assembler) ofTold(i *image) bool {
	for i = i.before; i != nil; i = i.before {
		if i.container != "" && a.isTold(i.container) || i.pod != "" && a.isTold(i.pod) {
			return true
		}
	}
	return false
}

// program is what an image or what it came of executed last under a name of its own.
func (i *image) program() string {
	for ; i != nil; i = i.before {
		if i.executed && i.command.program != "" {
			return i.command.program
		}
	}
	return ""
}

func (a *Assembler) entrypoint(i *image, e *Event) {
	if p := a.byPID[e.Parent]; p != nil {
		p.epoch = max(p.epoch, e.ParentEpoch)
	}
	if p := a.byPID[e.Root]; p != nil {
		p.epoch = max(p.epoch, e.RootEpoch)
	}
	b, c := a.containerOf(i)
	if c == nil {
		return
	}
	if c.entered == 0 {
		c.entered, c.entrypoint = e.At, printable([]byte(e.File))
	}
	b.last = e.At
}

// containerOf is the container that an image is about, in a birth in flight.
func (a *Assembler) containerOf(i *image) (*birth, *container) {
	id, _ := a.owner(i)
	b := a.birthOf(id)
	if b == nil {
		return nil, nil
	}
	return b, b.containers[id]
}

// owner is the nearest that an image or what it came of says it is about.
func (a *Assembler) owner(i *image) (container, pod string) {
	for ; i != nil && !i.daemon; i = i.before {
		if i.container != "" || i.pod != "" {
			return i.container, i.pod
		}
	}
	return "", ""
}

// birthOf is the birth in flight that a container belongs to.
func (a *Assembler) birthOf(container string) *birth {
	if container == "" {
		return nil
	}
	if pod := a.podOf[container]; pod != "" {
		return a.births[pod]
	}
	return a.births[container]
}

func (a *Assembler) birthOfImage(i *image) *birth {
	container, pod := a.owner(i)
	if pod != "" {
		return a.births[pod]
	}
	return a.birthOf(container)
}

func (a *Assembler) touch(i *image, at time.Duration) {
	if b := a.birthOfImage(i); b != nil {
		b.last = max(b.last, at)
	}
}

func (a *Assembler) isTold(key string) bool {
	if _, told := a.told[key]; told {
		return true
	}
	_, told := a.told[a.podOf[key]]
	return told
}

// whole tells that all containers that a pod is to have came to their entrypoints.
func (a *Assembler) whole(b *birth) bool {
	entered := 0
	for _, c := range b.containers {
		if c.entered > 0 && c.id != b.sandbox {
			entered++
		}
	}
	expected, known := a.cfg.Expect(b.pod)
	return known && entered >= expected
}

// begin starts a birth; nil where there are too many.
func (a *Assembler) begin(key, pod string, at time.Duration) *birth {
	if b := a.births[key]; b != nil {
		return b
	}
	if len(a.births) >= a.cfg.MaxBirths {
		a.refused++
		return nil
	}
	b := &birth{key: key, pod: pod, begin: at, last: at, containers: map[string]*container{}, daemons: a.daemons, losses: a.losses}
	a.births[key], a.begun = b, true
	for _, other := range a.births {
		other.sharedBy = max(other.sharedBy, len(a.births))
	}
	return b
}

func (b *birth) container(id string) *container {
	c := b.containers[id]
	if c == nil {
		c = &container{id: id}
		b.containers[id] = c
	}
	return c
}

func (b *birth) lack(reason string) {
	if !slices.Contains(b.incomplete, reason) {
		b.incomplete = append(b.incomplete, reason)
	}
}

func (a *Assembler) mkdir(e *Event) {
	pod, container := a.cfg.Identify(e.Path)
	switch {
	case pod == "":
	case container != "":
		a.belongs(container, pod, e.At)
	case !a.isTold(pod):
		b := a.begin(pod, pod, e.At)
		if b != nil && b.cgroupMade == 0 && !b.late {
			b.cgroupMade = e.At
		}
	}
}

// belongs is that a container is a pod's.
func (a *Assembler) belongs(container, pod string, at time.Duration) {
	if a.podOf[container] == pod {
		return
	}
	b, early := a.births[pod], a.births[container] // begun before its pod was known
	delete(a.births, container)
	if b == nil && early == nil || a.isTold(pod) || b != nil && a.whole(b) {
		return // a restart
	}
	a.podOf[container] = pod
	if b == nil {
		if b = a.begin(pod, pod, early.begin); b == nil {
			return
		}
		b.late = true
	}
	b.last = max(b.last, at)
	// The runtime was executed before it made the cgroup that tells whose this is.
	for _, i := range a.images {
		if i.container == container && i.executed && i.command.makesContainer() {
			a.make(i, i.begin)
		}
	}
}

func (a *Assembler) attach(e *Event) {
	pod, container := a.cfg.Identify(e.Path)
	if pod != "" && container != "" {
		a.belongs(container, pod, e.At)
	}
	i := a.byPID[e.Task]
	if i == nil {
		return
	}
	if have, havePod := a.owner(i); have != "" || havePod != "" {
		return
	}
	if container != "" {
		i.container = container
	} else {
		i.pod = pod
	}
}

// podNamed is the pod in flight whose UID an argument has in its path.
func (a *Assembler) podNamed(texts []string) string {
	for _, text := range texts {
		if key, _ := a.keyNamed(text); key != "" && a.births[key].pod != "" {
			return key
		}
	}
	return ""
}

// keyNamed is the birth in flight that a path names by pod UID or container ID.
func (a *Assembler) keyNamed(text string) (key, container string) {
	if !strings.Contains(text, "/") {
		return "", ""
	}
	for part := range strings.SplitSeq(text, "/") {
		if part == "" {
			continue
		}
		if a.births[part] != nil {
			return part, ""
		}
		if b := a.birthOf(part); b != nil {
			return b.key, part
		}
	}
	return "", ""
}

func (a *Assembler) call(e *Event) {
	i := a.images[e.Image]
	if i == nil {
		return
	}
	if e.Result < 0 {
		// It made nothing; that it was tried is in the counts. Why nothing was executed is worth a word.
		switch e.Name {
		case "execve":
			i.refused = refusal(e.Name, e.Text[0], e.Result)
		case "execveat":
			i.refused = refusal(e.Name, e.Text[1], e.Result)
		}
		return
	}
	if i.daemon {
		a.daemonCall(e)
		return
	}
	switch e.Name {
	case "clone", "clone3", "unshare":
		for k, kind := range namespaceKinds() {
			if e.Detail&kind.flag != 0 {
				i.namespaces[k].created++
			}
		}
		i.unshared = cmp.Or(i.unshared, e.At)
		i.unsharedKinds |= e.Detail
	case "setns":
		for k, kind := range namespaceKinds() {
			if e.Detail&kind.flag != 0 {
				i.namespaces[k].entered++
			}
		}
	case "mount", "move_mount":
		i.mounts++
		i.firstMount, i.lastMount = cmp.Or(i.firstMount, e.At), e.At
	case "pivot_root", "chroot":
		i.pivoted = e.At
	case "capset":
		i.capabilities = e.At
	case "seccomp":
		if e.Args[0] <= 1 { // SECCOMP_SET_MODE_STRICT, SECCOMP_SET_MODE_FILTER; others ask
			i.seccomp = e.At
		}
	case "prctl":
		switch e.Args[0] {
		case 22: // PR_SET_SECCOMP
			i.seccomp = e.At
		case 24, 47: // PR_CAPBSET_DROP, PR_CAP_AMBIENT
			i.capabilities = e.At
		}
	case "write", "pwrite64", "writev": // told of files of a cgroup alone
		i.cgroupWrites++
	case "setsockopt": // the legacy iptables replaces its table
		if i.mayFirewall {
			i.rules++
			i.mayFirewall = false
		}
	}
	a.touch(i, e.At)
}

func refusal(call, file string, result int64) string {
	return fmt.Sprintf("%s of %s: %s", call, printable([]byte(file)), syscall.Errno(-result))
}

// daemonCall takes what a daemon does of which a path, or a thread of its own, names the pod.
func (a *Assembler) daemonCall(e *Event) {
	const newNet, most = 0x40000000, 4096
	switch e.Name {
	case "unshare":
		if e.Detail&newNet != 0 && len(a.unshared) < most {
			a.unshared[e.TID] = e.At
		}
	case "mount", "move_mount":
		target := e.Text[1]
		if e.Name == "move_mount" {
			target = e.Text[2]
		}
		// The thread binds the namespace that it has made to a name, which CNI is told.
		if made, ok := a.unshared[e.TID]; ok && strings.Contains(target, "/netns/") && len(a.netns) < most {
			a.netns[path.Base(target)] = made
			delete(a.unshared, e.TID)
			return
		}
		if key, container := a.keyNamed(target); key != "" {
			b := a.births[key]
			actor := ActorRuntime
			if strings.Contains(target, "/pods/") {
				actor = ActorKubelet
			}
			a.step(b, Step{Offset: e.At, Actor: actor, Action: "mount", Details: printable([]byte(e.Text[2] + " on " + target)), Container: container})
		}
	}
}

func (a *Assembler) netlink(e *Event) {
	i := a.images[e.Image]
	if i == nil || i.daemon || e.Result < 0 {
		return
	}
	switch e.Protocol {
	case netlinkRoute:
		n := parseNetlink(e.Message)
		i.moreNetwork = add(&i.network, n.interfaces, n.addresses, n.routes, networkOfOne) || e.Unread || i.moreNetwork
	case netlinkNetfilter:
		i.rules += uint64(e.Rules)
		i.unreadRules = e.Unread || i.unreadRules
	}
	a.touch(i, e.At)
}

// Interfaces, addresses and routes that are kept, of each.
const (
	networkOfOne = 16 // process
	networkOfAll = 64
)

// add adds what is not there, up to a number of each, and tells whether there was more.
func add(to *Network, interfaces, addresses, routes []string, most int) (more bool) {
	for _, l := range []struct {
		to  *[]string
		add []string
	}{{&to.Interfaces, interfaces}, {&to.Addresses, addresses}, {&to.Routes, routes}} {
		for _, s := range l.add {
			switch {
			case slices.Contains(*l.to, s):
			case len(*l.to) < most:
				*l.to = append(*l.to, s)
			default:
				more = true
			}
		}
	}
	return more
}

func (a *Assembler) step(b *birth, s Step) {
	if len(b.steps) >= a.cfg.MaxSteps {
		b.lack(fmt.Sprintf("more than %d steps", a.cfg.MaxSteps))
		return
	}
	b.steps = append(b.steps, s)
}
