package bpf

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

const btfPath = "/sys/kernel/btf/vmlinux"

var (
	errUnknownProbe = errors.New("no such probe")
	errNoBTF        = errors.New("no kernel BTF")
)

// explain says in a sentence which requirement err tells of.
func (h host) explain(p Probe, err error) string {
	var rejected *ebpf.VerifierError
	switch {
	case errors.Is(err, errUnknownProbe):
		return fmt.Sprintf("there is no probe %q", p)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return "the start was interrupted"
	case errors.Is(err, errNoBTF):
		return "there is no kernel BTF at " + btfPath + ": the kernel needs CONFIG_DEBUG_INFO_BTF"
	case errors.Is(err, unix.ENOSYS):
		return "this kernel has no bpf system call: it needs CONFIG_BPF_SYSCALL"
	case denied(err) && !h.bpf:
		return "the bpf system call is refused: it needs CAP_BPF and CAP_PERFMON, or CAP_SYS_ADMIN"
	case denied(err) && h.lockdown == "confidentiality":
		return "the bpf system call is refused: the kernel is locked down (confidentiality)"
	case denied(err) && (p == ProbeThrottle || p == ProbeOOM && !h.victimIsTask):
		return "fentry programs are refused by this kernel (EPERM) although the capabilities are there"
	case denied(err):
		return "the bpf system call is refused (EPERM) although the capabilities are there: a seccomp profile, an LSM or RLIMIT_MEMLOCK"
	case errors.Is(err, unix.ENOMEM):
		return "the kernel had no memory for the maps: fewer cgroups would need less"
	case errors.Is(err, btf.ErrNotFound):
		return fmt.Sprintf("this kernel lacks what %s is attached to: %s", p, hookOf(p))
	case errors.Is(err, ebpf.ErrNotSupported):
		return fmt.Sprintf("this kernel does not support it: %s", firstLine(err))
	case errors.As(err, &rejected):
		return fmt.Sprintf("the kernel's verifier rejected it: %s", firstLine(rejected))
	}
	return firstLine(err)
}

func hookOf(p Probe) string {
	switch p {
	case ProbeThrottle:
		return "the function unthrottle_cfs_rq (CONFIG_CFS_BANDWIDTH, not inlined)"
	case ProbeSyscalls:
		return "the tracepoint sys_enter (CONFIG_FTRACE_SYSCALLS)"
	case ProbeRunqueue:
		return "the tracepoints sched_switch and sched_wakeup, or CONFIG_SCHED_INFO"
	case ProbeReclaim:
		return "the tracepoints mm_vmscan_direct_reclaim_* and mm_vmscan_memcg_reclaim_* (CONFIG_MEMCG)"
	case ProbeOOM:
		return "the function oom_kill_process for fentry, or a tracepoint mark_victim that tells the task (about 6.9)"
	case ProbeNetwork:
		return "one of the tracepoints inet_sock_set_state, tcp_retransmit_skb, tcp_retransmit_synack, tcp_receive_reset, tcp_send_reset, tcp_probe, net_dev_queue and kfree_skb (CONFIG_INET)"
	case ProbeBirth:
		return "one of the tracepoints sched_process_fork, sched_process_exec, sched_process_exit, cgroup_mkdir, cgroup_attach_task, sys_enter and sys_exit (CONFIG_CGROUPS, CONFIG_FTRACE_SYSCALLS)"
	case ProbeSecurity:
		return "one of the tracepoints sys_enter (CONFIG_FTRACE_SYSCALLS), task_newtask, sched_process_exec, sched_process_free and cgroup_attach_task (CONFIG_CGROUPS)"
	case ProbeDemand:
		return "the tracepoint sched_stat_runtime, or CONFIG_CFS_BANDWIDTH"
	}
	return "its hook"
}

func denied(err error) bool {
	return errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) && !isVerifier(err) || errors.Is(err, os.ErrPermission) && !isVerifier(err)
}

func isVerifier(err error) bool {
	var rejected *ebpf.VerifierError
	return errors.As(err, &rejected) && len(rejected.Log) > 0
}

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

// mayTrace reads the effective capabilities out of /proc/PID/status. Without them,
// because the file can't be read, it assumes they are there.
func mayTrace(status []byte) bool {
	_, rest, ok := strings.Cut(string(status), "\nCapEff:")
	if !ok {
		return true
	}
	line, _, _ := strings.Cut(rest, "\n")
	caps, err := strconv.ParseUint(strings.TrimSpace(line), 16, 64)
	if err != nil {
		return true
	}
	has := func(c uint) bool { return caps&(1<<c) != 0 }
	return has(unix.CAP_SYS_ADMIN) || has(unix.CAP_BPF) && has(unix.CAP_PERFMON)
}

// lockdownMode is the bracketed word of "none [integrity] confidentiality".
func lockdownMode(file string) string {
	_, rest, _ := strings.Cut(file, "[")
	mode, _, _ := strings.Cut(rest, "]")
	return mode
}
