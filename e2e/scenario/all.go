package scenario

// SideBySide are the scenarios that run all at once, but for those that are After another;
// each has pods of its own names.
func SideBySide() []Scenario {
	return []Scenario{Lie, Figures, Neighbour, Containers, Static, Recreated, Crowd, Memory, Network, Births, BirthTraced, Security}
}

// Last are those that judge what the others have left, when all have ended.
func Last() []Scenario { return []Scenario{Orphans} }

// OnGuest are those of the node in a virtual machine, with cgroup v2, fentry
// and netem.
func OnGuest() []Scenario { return []Scenario{Lie, OwnFile, Netem} }
