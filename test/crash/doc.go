// Package crash ends the real program in every way that a machine can, again and
// again and under load, and holds what happened against what is promised.
//
// A short campaign runs with all tests. The long one is make crash, with KILLS
// faults; SEED repeats one.
package crash
