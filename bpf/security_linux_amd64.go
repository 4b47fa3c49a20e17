package bpf

// compatNumbers are the numbers that 32-bit programs use for the watched calls
// (arch/x86/entry/syscalls/syscall_32.tbl).
func compatNumbers() map[string][]int {
	return map[string][]int{
		"setns":        {346},
		"unshare":      {310},
		"mount":        {21},
		"fsmount":      {432},
		"open_tree":    {428},
		"ptrace":       {26},
		"init_module":  {128},
		"finit_module": {350},
		"bpf":          {357},
		"execve":       {11},
		"execveat":     {358},
		"open":         {5},
		"openat":       {295},
		"openat2":      {437},
		"creat":        {8},
		"setuid":       {23, 213},
		"setreuid":     {70, 203},
		"setresuid":    {164, 208},
	}
}

// x32Numbers are those of programs with short pointers that differ
// (arch/x86/entry/syscalls/syscall_64.tbl).
func x32Numbers() map[int]string {
	return map[int]string{520: "execve", 521: "ptrace", 545: "execveat"}
}
