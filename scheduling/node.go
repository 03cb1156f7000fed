package scheduling

import (
	"fragua.dev/fragua/contract/ident"
	"fragua.dev/fragua/contract/spec"
)

// A Node is a machine, or a pool of machines that act as one, that jobs can be
// given to.
type Node struct {
	ID       ident.Node
	Provider string // kind of the workers it makes: process, docker, kubernetes
	Zone     string
	Pool     string
	Labels   map[string]string
	Total    spec.Quota // of an empty node
	Offer    ident.Offer
	Retired  bool // takes no new jobs; gone once the last one left

	hash uint64 // of ID, for breaking ties
}

// An Ask is what a job wants of a node. Jobs that ask for the same are of one
// shape: where the first of them finds no place, the others find none.
type Ask struct {
	Resources spec.Quota
	Affinity  spec.Affinity
}

// welcomes says whether n, if it were empty, could take a job that asks for a.
func (n *Node) welcomes(a *Ask) bool {
	return !n.Retired && n.suits(&a.Affinity) && n.Total.Holds(a.Resources)
}

// suits says whether n is a node of the kind that a wants.
func (n *Node) suits(a *spec.Affinity) bool {
	return (a.ByExecutorType == "" || a.ByExecutorType == n.Provider) &&
		(a.ByZone == "" || a.ByZone == n.Zone) &&
		(a.ByPool == "" || a.ByPool == n.Pool)
}

// left rates how much of n would stay unused, in thousandths of each thing it
// has, if free were what is left. The node with the least is the best fit.
func (n *Node) left(free spec.Quota) int64 {
	return share(free.CPUm, n.Total.CPUm) + share(free.MemoryMB, n.Total.MemoryMB) +
		share(free.GPU, n.Total.GPU) + share(free.IO, n.Total.IO)
}

func share(part, whole int64) int64 {
	if whole <= 0 {
		return 0
	}
	return part * 1000 / whole
}

// none returns q with nothing below zero: a node that shrank below what runs on
// it has nothing free, not less than nothing.
func none(q spec.Quota) spec.Quota {
	return spec.Quota{CPUm: max(q.CPUm, 0), MemoryMB: max(q.MemoryMB, 0), GPU: max(q.GPU, 0), IO: max(q.IO, 0), Workers: max(q.Workers, 0)}
}

// hash is FNV-1a; mix scrambles it, as SplitMix64 does.
func hash(h uint64, s string) uint64 {
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return h
}

const hashSeed = 14695981039346656037

func mix(h uint64) uint64 {
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}
