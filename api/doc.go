// Package api holds what both ends of the HEM protocol share: the JSON bodies
// of every endpoint, the scopes a bearer token can carry, and the one table
// that ties an error to its HTTP status.
//
// It depends on the standard library alone and does no input or output, so
// that a client, a server and a test can all import it.
//
// Binary fields are base64 strings here. [DecodeBase64] reads every spelling
// the protocol allows and [EncodeBase64] writes the one it prescribes.
// Times are Unix seconds unless a name or comment says otherwise.
package api
