// Command tracing begins as many traces as its argument says, of nobody, and stays
// until its input ends. It is not the test binary, whose libraries ask bpf what it can
// as they start.
package main

import (
	"bufio"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

func main() {
	n, err := strconv.Atoi(os.Args[1])
	if err != nil {
		panic(err)
	}
	for range n {
		_, _, _ = unix.RawSyscall6(unix.SYS_PTRACE, unix.PTRACE_SEIZE, 1<<30, 0, 0, 0, 0)
	}
	fmt.Println(n)
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
}
