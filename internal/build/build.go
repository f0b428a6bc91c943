// Package build says what this program is: its version, and the signature of
// that version by the key that released it.
//
// A release sets the variables below with -ldflags -X, from what
// `go run ./internal/build/sign` prints. Any other build signs itself with a
// fixed development key whose seed stands here for all to read; it proves
// nothing and says so by its key.
package build

import (
	"encoding/base64"
	"runtime"

	"softhem/internal/suite"
)

// Set by the linker; never changed at run time.
var (
	version = "0.1.0-dev"
	key     = "" // base64 Ed25519 public key
	fwSig   = "" // base64 signature of Firmware().Name
	rtSig   = "" // base64 signature of Runtime().Name
)

// developmentSeed makes the key of every build that is not a release.
const developmentSeed = "SoftHEM development key, public."

// An Image is a piece of what runs: its name and who vouches for it.
type Image struct {
	Name      string
	PublicKey string // base64, 32 bytes
	Signature string // base64, 64 bytes: Ed25519 over the 32 bytes of SHA-256(Name)
}

// Version is the version without a prefix, such as 1.2.0.
func Version() string { return version }

// Product names program and version, as in the first line of a log file.
func Product() string { return "softhem v" + version }

// Firmware is the program.
func Firmware() Image { return image(Product(), fwSig) }

// Runtime is what the program runs on; it stands where hardware has a boot loader.
func Runtime() Image { return image(runtime.Version(), rtSig) }

func image(name, sig string) Image {
	if key != "" && sig != "" {
		return Image{name, key, sig}
	}
	dev, err := suite.NewEd25519Key([]byte(developmentSeed))
	if err != nil {
		panic("build: the development seed is not 32 bytes")
	}
	return Sign(name, dev)
}

// Sign vouches for name with k.
func Sign(name string, k *suite.Ed25519Key) Image {
	digest := suite.SHA256([]byte(name))
	b64 := base64.StdEncoding.EncodeToString
	return Image{name, b64(k.Public()), b64(k.Sign(digest[:]))}
}
