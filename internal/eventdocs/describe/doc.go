// Package describe writes the descriptions of the events that stand in git. It
// reads comments from the source, and so belongs to tests and generation alone.
package describe
