// Package logstore keeps what executions print: frames (package logframe) in
// compressed chunks, with an index by line and by byte.
//
// A short log lies within its row, which is written with the execution's result:
// it costs no file and no sync of its own. A longer one has a file of chunks, each
// with a header that says where in the log it stands, so that a file that was cut
// off by a crash is whole up to there and the log goes on from it. An empty log
// writes nothing. While an execution runs, readers follow its log from memory and
// from the file; they never hold the writer up.
package logstore
