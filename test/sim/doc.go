// Package sim runs the whole house, but for its outer walls, in a bubble of
// virtual time: real rooms on real databases, a bus that loses, repeats, delays
// and reorders by a seed, and workers that are made up (machine.go). A checker
// (check.go) holds what came out against what the platform promises.
package sim
