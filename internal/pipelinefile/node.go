package pipelinefile

// Bounds of one file. They keep a hostile file from costing more than a long
// honest one.
const (
	MaxBytes = 1 << 20
	maxDepth = 48     // of values within values, of which a pipeline needs 7
	maxNodes = 50_000 // after aliases have been followed
	maxRefs  = 1_000  // aliases in one file
	maxKeys  = 20_000 // as written: the YAML parser's time grows with their square
	maxWords = 200_000
)

type kind uint8

const (
	null kind = iota
	scalar
	mapping
	sequence
)

// A pos is a place in the file; both count from 1, columns in characters.
type pos struct{ line, column int }

// A node is one value of a file, whether it was YAML or JSON.
type node struct {
	kind   kind
	pos    pos
	text   string // of a scalar: as written, without quotes
	quoted bool   // in quotes, or in a block
	plain  what   // what an unquoted scalar would be
	pairs  []pair
	items  []*node
}

type what uint8

const (
	aText what = iota
	aNumber
	aBool
)

type pair struct {
	key string
	pos pos // of the key
	val *node
}

// name says what a value is, to whoever expected another.
func (n *node) name() string {
	switch {
	case n.kind == mapping:
		return "a mapping"
	case n.kind == sequence:
		return "a list"
	case n.kind == null:
		return "nothing"
	case !n.quoted && n.plain == aNumber:
		return "a number"
	case !n.quoted && n.plain == aBool:
		return "true or false"
	}
	return "a text"
}

// get returns the value of key, or nil.
func (n *node) get(key string) *node {
	for _, p := range n.pairs {
		if p.key == key {
			return p.val
		}
	}
	return nil
}
