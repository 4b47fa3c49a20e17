package birth

import (
	"fmt"
	"syscall"
	"time"
)

// Kind is what an Event tells of.
type Kind string

// The kinds of events.
const (
	Fork     Kind = "fork"
	Exec     Kind = "exec"
	Exit     Kind = "exit"
	Call     Kind = "call"
	Netlink  Kind = "netlink"
	Mkdir    Kind = "mkdir"
	Attach   Kind = "attach"
	Returned Kind = "returned"
)

// Event is a step of a birth as the kernel saw it. Fields that a kind does not mention
// are zero.
type Event struct {
	Kind Kind          `json:"kind"`
	At   time.Duration `json:"at"` // CLOCK_MONOTONIC
	// Image is a process from its fork or execve to its next execve or end; 0 for one
	// that belongs to no lineage. Root is the process that its lineage began with.
	Image uint64 `json:"image,omitempty"`
	PID   uint32 `json:"pid,omitempty"`
	TID   uint32 `json:"tid,omitempty"`
	Root  uint32 `json:"root,omitempty"`

	// Fork
	Child    uint64 `json:"child,omitempty"` // image
	ChildPID uint32 `json:"child_pid,omitempty"`
	// Fork: the parent is a daemon; Exec: the new image is one.
	Daemon bool `json:"daemon,omitempty"`

	// Exec. Arguments and CNI are separated by NUL.
	Previous    uint64 `json:"previous,omitempty"` // image, 0 where a lineage begins
	Entrypoint  bool   `json:"entrypoint,omitempty"`
	Comm        string `json:"comm,omitempty"`
	File        string `json:"file,omitempty"`
	Arguments   string `json:"arguments,omitempty"`
	CNI         string `json:"cni,omitempty"`
	Parent      uint32 `json:"parent,omitempty"` // of an entrypoint
	ParentEpoch uint32 `json:"parent_epoch,omitempty"`
	RootEpoch   uint32 `json:"root_epoch,omitempty"`

	// Call
	Name   string    `json:"name,omitempty"`
	Args   [5]uint64 `json:"args,omitzero"`
	Detail uint32    `json:"detail,omitempty"` // CLONE_NEW… flags
	Text   [3]string `json:"text,omitzero"`

	Code Ended `json:"code,omitempty"` // Exit

	Result int64 `json:"result,omitempty"` // Call, Netlink

	// Netlink
	Protocol uint32 `json:"protocol,omitempty"`
	Length   int    `json:"length,omitempty"` // of what was sent, of which Message is the beginning
	Message  []byte `json:"message,omitempty"`
	Rules    int    `json:"rules,omitempty"`  // of nftables that it adds
	Unread   bool   `json:"unread,omitempty"` // not all of it was looked at

	// Mkdir, Attach
	Path string `json:"path,omitempty"`
	Task uint32 `json:"task,omitempty"`
}

// Ended is how a process ended, as wait(2) tells it: the status in the second byte, the
// signal that killed it in the first.
type Ended uint32

func (e Ended) String() string {
	if signal := syscall.Signal(e & 0x7f); signal != 0 {
		return fmt.Sprintf("was killed by signal %d (%s)", signal, signal)
	}
	return fmt.Sprintf("ended with status %d", e>>8&0xff)
}

// Count is how often an image made a system call.
type Count struct {
	Image uint64        `json:"image"`
	Name  string        `json:"name"`
	Epoch uint32        `json:"epoch,omitempty"`
	N     uint64        `json:"n"`
	First time.Duration `json:"first"` // CLOCK_MONOTONIC
}

// Losses is what the kernel's side could not tell, since it began.
type Losses struct {
	Events     uint64
	Processes  uint64
	Counts     uint64
	Unreadable uint64
}
