package suite

import (
	"crypto/sha512"
	"hash"
)

// NewSHA512 is SHA-512 of what is written to it, for what is too long to be held in
// memory.
func NewSHA512() hash.Hash { return sha512.New() }
