// Package security says who someone is, what they may do, and what was decided.
//
// It answers, as interfaces of contract/, four questions that other rooms ask at
// once: whose a token is ([Room.Verify]), whether its owner may do something
// ([Room.Decide]), a certificate for a process ([Room.Authority]), and the secrets
// of a step ([Room.Vault]). Everything else it hears: every decision of every room
// comes as an event, and is kept once.
//
// What may be done stands in policies/*.cedar, and what these may speak of in
// fragua.cedarschema; a policy that does not fit the schema keeps the room from
// opening. When in doubt the answer is no: an error, an attribute that the schema
// does not declare, an obligation that nobody can meet, each denies, and says so.
package security
