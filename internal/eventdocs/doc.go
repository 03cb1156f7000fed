// Package eventdocs writes the catalog of events down for people and for
// programs: a page, a JSON Schema for the data of each event, and an AsyncAPI
// description. All are made from contract/event, and kept in git, so that a
// changed event is a visible difference.
package eventdocs
