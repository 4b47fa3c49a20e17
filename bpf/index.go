package bpf

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
)

// What headers/index.h shares with user space.
const (
	indexMap     = syscallsMapIndexes // the index of each cgroup
	unusedMap    = syscallsMapUnused  // those that are free
	forgottenVar = syscallsVarForgotten
)

// indexedMap is the array of a probe whose cgroups have an index into one; else empty.
func indexedMap(p Probe) string {
	switch p {
	case ProbeSyscalls:
		return syscallsMapSyscalls
	case ProbeRunqueue:
		return runqueueMapWaits
	case ProbeDemand:
		return demandMapDemands
	}
	return ""
}

// openIndex has every index free; the lowest are given first, so that those in use are
// few to read.
func openIndex(coll *ebpf.Collection) error {
	unused := coll.Maps[unusedMap]
	for index := unused.MaxEntries(); index > 0; index-- {
		if err := unused.Update(nil, index-1, ebpf.UpdateAny); err != nil {
			return fmt.Errorf("filling the stack of indexes: %w", err)
		}
	}
	return nil
}

// forgetIndex takes a cgroup's index back, and what is there is zero again.
func forgetIndex(coll *ebpf.Collection, values *ebpf.Map, id uint64) error {
	var index uint32
	if err := coll.Maps[indexMap].Lookup(id, &index); err != nil {
		return err
	}
	if err := coll.Maps[indexMap].Delete(id); err != nil {
		return err
	}
	var forgotten uint32
	if err := coll.Variables[forgottenVar].Get(&forgotten); err != nil {
		return fmt.Errorf("reading how many were forgotten: %w", err)
	}
	if err := coll.Variables[forgottenVar].Set(forgotten + 1); err != nil {
		return fmt.Errorf("having what is near forgotten: %w", err)
	}
	var zero any = make([]byte, values.ValueSize())
	if values.Type() == ebpf.PerCPUArray {
		cpus := make([][]byte, ebpf.MustPossibleCPU())
		for cpu := range cpus {
			cpus[cpu] = make([]byte, values.ValueSize())
		}
		zero = cpus
	}
	if err := values.Update(index, zero, ebpf.UpdateAny); err != nil {
		return fmt.Errorf("clearing an index: %w", err)
	}
	if err := coll.Maps[unusedMap].Update(nil, index, ebpf.UpdateAny); err != nil {
		return fmt.Errorf("freeing an index: %w", err)
	}
	return nil
}

// readIndexed calls visit for each cgroup with its value, or that on each CPU, as readMap does.
func readIndexed[V any](coll *ebpf.Collection, values *ebpf.Map, visit func(id uint64, cpus []V)) error {
	ids := make(map[uint32]uint64)
	err := readMap(coll.Maps[indexMap], func(id uint64, index []uint32) { ids[index[0]] = id })
	if err != nil {
		return err
	}
	cpus := 1
	if values.Type() == ebpf.PerCPUArray {
		if cpus, err = ebpf.PossibleCPU(); err != nil {
			return err
		}
	}
	const usual = 32
	size := min(usual, int(values.MaxEntries()))
	indexes, all := make([]uint32, size), make([]V, size*cpus)
	var cursor ebpf.MapBatchCursor
	for left := len(ids); left > 0; {
		n, err := values.BatchLookup(&cursor, indexes, all, nil)
		if errors.Is(err, ebpf.ErrNotSupported) { // before 5.13
			return readEachIndex(values, ids, all[:cpus], visit)
		}
		done := errors.Is(err, ebpf.ErrKeyNotExist)
		if err != nil && !done {
			return err
		}
		for i, index := range indexes[:n] {
			if id, used := ids[index]; used {
				visit(id, all[i*cpus:(i+1)*cpus])
				left--
			}
		}
		if done {
			break
		}
	}
	return nil
}

func readEachIndex[V any](values *ebpf.Map, ids map[uint32]uint64, cpus []V, visit func(uint64, []V)) error {
	for index, id := range ids {
		var err error
		if values.Type() == ebpf.PerCPUArray {
			err = values.Lookup(index, cpus)
		} else {
			err = values.Lookup(index, &cpus[0])
		}
		if err != nil {
			return err
		}
		visit(id, cpus)
	}
	return nil
}
