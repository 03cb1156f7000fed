// Package httpapi is the door through which the house is spoken to: it reads
// requests strictly, asks whose they are, and answers what is wrong with them in
// one form, RFC 9457 problem details.
//
// What it promises of every operation registered on the API of [New], served
// behind [Handler]:
//
//   - no input makes a 5xx: what cannot be read is a 400, what can be read and is
//     wrong a 422 with every fault and its place;
//   - no answer about an input repeats a value of it, for it may be a secret;
//   - no handler runs without a verified principal, except where [Options.Open]
//     lets it;
//   - a body, a header, a wait and an answer's list of faults each have a bound.
package httpapi
