// Package sqldb is a room's database: a SQLite file with one writer that gathers
// concurrent transactions into one durable commit, and an outbox that is written
// with them.
//
// What Write promises: when it returns nil, everything its function wrote and
// every event it emitted is on the disk (WAL, synchronous=FULL), in one
// transaction with whatever ran beside it. When it returns an error, nothing of
// it is. Group commit is what makes this fast: the fsync of one commit is the
// time in which the next batch gathers.
package sqldb
