package bpf

// compatNumbers are the numbers that 32-bit programs use for the watched calls
// (arch/arm/tools/syscall.tbl).
func compatNumbers() map[string][]int {
	return map[string][]int{
		"setns":        {375},
		"unshare":      {337},
		"mount":        {21},
		"fsmount":      {432},
		"open_tree":    {428},
		"ptrace":       {26},
		"init_module":  {128},
		"finit_module": {379},
		"bpf":          {386},
		"execve":       {11},
		"execveat":     {387},
		"open":         {5},
		"openat":       {322},
		"openat2":      {437},
		"creat":        {8},
		"setuid":       {23, 213},
		"setreuid":     {70, 203},
		"setresuid":    {164, 208},
	}
}

// x32Numbers: this architecture has no other short pointers.
func x32Numbers() map[int]string {
	return nil
}
