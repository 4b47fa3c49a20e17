package birth

import (
	"path"
	"strings"
)

// words are the strings of a block in which each ends with NUL. One that is cut at the
// end is kept: it begins as it began.
func words(block string) []string {
	var out []string
	for word := range strings.SplitSeq(block, "\x00") {
		out = append(out, word)
	}
	if n := len(out); out[n-1] == "" {
		out = out[:n-1]
	}
	return out
}

// cni is what a CNI plugin's environment says (CNI specification 1.0, section 2).
type cni struct {
	command                string // ADD, DEL, CHECK, …
	containerID            string // the sandbox
	netns                  string
	ifname                 string
	podUID, namespace, pod string
}

func parseCNI(block string) (c cni) {
	for _, variable := range words(block) {
		name, value, _ := strings.Cut(variable, "=")
		switch name {
		case "CNI_COMMAND":
			c.command = value
		case "CNI_CONTAINERID":
			c.containerID = value
		case "CNI_NETNS":
			c.netns = value
		case "CNI_IFNAME":
			c.ifname = value
		case "CNI_ARGS":
			for argument := range strings.SplitSeq(value, ";") {
				key, value, _ := strings.Cut(argument, "=")
				switch key {
				case "K8S_POD_UID":
					c.podUID = value
				case "K8S_POD_NAMESPACE":
					c.namespace = value
				case "K8S_POD_NAME":
					c.pod = value
				}
			}
		}
	}
	return c
}

// command is what a runtime or a shim is called to do.
type command struct {
	program string // runc, crun, containerd-shim-runc-v2, …
	verb    string // create, start, run, init, …; shim
	id      string // the container's, for a shim its sandbox's
}

// makesContainer tells of the verbs under which a container comes to life; the others
// look after one that lives.
func (c command) makesContainer() bool {
	switch c.verb {
	case "create", "start", "run", "init", "restore", "shim":
		return true
	}
	return false
}

// isRuntimeVerb has the commands of the OCI runtimes (runc, crun, youki, runsc).
func isRuntimeVerb(word string) bool {
	switch word {
	case "create", "start", "run", "init", "restore", "exec", "delete", "kill", "state", "ps",
		"pause", "resume", "update", "events", "features", "list", "checkpoint", "spec":
		return true
	}
	return false
}

// parseCommand reads the arguments of a process that executes file.
func parseCommand(file string, arguments []string) command {
	c := command{program: path.Base(file)}
	if strings.HasPrefix(c.program, "containerd-shim") || strings.HasPrefix(c.program, "conmon") {
		c.verb = "shim"
		for i, a := range arguments {
			if (a == "-id" || a == "--id" || a == "-c" || a == "--cid") && i+1 < len(arguments) {
				c.id = arguments[i+1]
				break
			}
		}
		return c
	}
	if !isRuntime(c.program) {
		return c
	}
	for i, a := range arguments {
		if i == 0 || !isRuntimeVerb(a) {
			continue
		}
		c.verb = a
		switch last := arguments[len(arguments)-1]; a {
		case "create", "start", "run", "restore", "state":
			if last != a && !strings.HasPrefix(last, "-") {
				c.id = last
			}
		}
		break
	}
	return c
}

func isRuntime(program string) bool {
	switch program {
	case "runc", "crun", "youki", "runsc":
		return true
	}
	return false
}

// changesFirewall tells of a call of iptables that adds a rule.
func changesFirewall(program string, arguments []string) bool {
	if !strings.HasPrefix(program, "iptables") && !strings.HasPrefix(program, "ip6tables") && !strings.HasPrefix(program, "xtables") {
		return false
	}
	for _, a := range arguments {
		switch a {
		case "-A", "--append", "-I", "--insert":
			return true
		}
	}
	return false
}
