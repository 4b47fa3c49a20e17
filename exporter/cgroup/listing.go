package cgroup

import (
	"cmp"
	"slices"
	"sync"
	"time"
)

// listing is what Groups, Owner and Stats answer with. It is changed in place, so that
// where containers come and go all the time nothing is sorted or built anew; what is
// handed out is copied once after each change, when somebody asks.
type listing struct {
	mu     sync.RWMutex
	groups []Group // by path, then by when they were seen; the dead among them
	shared []Group // handed out and still right; nil: none
	owners map[ID]ID
	stats  Stats
}

func byPath(a, b Group) int {
	return cmp.Or(cmp.Compare(a.Path, b.Path), a.Seen.Compare(b.Seen))
}

func (l *listing) all() []Group {
	l.mu.RLock()
	shared := l.shared
	l.mu.RUnlock()
	if shared != nil {
		return shared
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.shared == nil {
		l.shared = append(make([]Group, 0, len(l.groups)), l.groups...)
	}
	return l.shared
}

func (l *listing) owner(id ID) (ID, bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	owner, ok := l.owners[id]
	return owner, ok
}

func (l *listing) put(g Group) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i, _ := slices.BinarySearchFunc(l.groups, g, byPath)
	l.groups = slices.Insert(l.groups, i, g)
	l.shared = nil
}

// bury says since when a group is gone.
func (l *listing) bury(g Group, gone time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := l.index(g); i >= 0 {
		l.groups[i].Gone = gone
		l.shared = nil
	}
}

func (l *listing) drop(g Group) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := l.index(g); i >= 0 {
		l.groups = slices.Delete(l.groups, i, i+1)
		l.shared = nil
	}
}

// index finds the very group among those of its path; -1 where it is not.
func (l *listing) index(g Group) int {
	i, _ := slices.BinarySearchFunc(l.groups, g, byPath)
	for ; i < len(l.groups) && byPath(l.groups[i], g) == 0; i++ {
		if l.groups[i].ID == g.ID {
			return i
		}
	}
	return -1
}

func (l *listing) own(id, owner ID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.owners[id] = owner
}

func (l *listing) disown(id ID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.owners, id)
}

func (l *listing) account() Stats {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.stats
}

func (l *listing) settle(s Stats) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stats = s
}
