package suite

import "crypto/sha1"

// SHA1 is the SHA-1 of b. The protocol names keys by it; it secures nothing.
func SHA1(b []byte) [sha1.Size]byte { return sha1.Sum(b) }
