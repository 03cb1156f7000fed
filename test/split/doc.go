// Package split tries the program with its services in several processes: what it
// promises in one process holds there as well, also when each of them is killed.
package split
