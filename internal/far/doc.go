// Package far lets rooms ask rooms of other processes what they ask those beside
// them: the ports of contract/, with the wire between. Each file holds both ends of
// one room's questions: what is asked here, and how it is answered there.
//
// Who is away is waited for, within the caller's deadline and a bound of its own: a
// process that starts again is not missed. A decision that cannot be had is a denial.
package far
