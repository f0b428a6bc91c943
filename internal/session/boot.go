package session

import (
	"sync"

	"softhem/api"
	"softhem/internal/suite"
)

// Boot is one boot of the module: the keys that are made when it starts and
// die when it ends, and the nonces used meanwhile. A Boot is never changed;
// a reboot, or a clock set backwards, makes another.
type Boot struct {
	key    *suite.X25519Key // public part: the session key spk
	secret *suite.MACKey    // MACs nonces and derives the token keys
	used   UsedNonces
	spk    string // base64 of the session key, as it goes out

	bearerKeys sync.Map // of bearerID to *suite.MACKey; one for each sub and generation met
}

// NewBoot makes a boot with fresh secrets.
func NewBoot() *Boot {
	key, err := suite.NewX25519Key(suite.Random(suite.X25519Size))
	if err != nil {
		panic("session: 32 random bytes are no X25519 scalar")
	}
	return &Boot{key: key, secret: newSecret(), used: new(memNonces), spk: api.EncodeBase64(key.Public())}
}

func newSecret() *suite.MACKey { return suite.NewMACKey(suite.Random(32)) }

// Renewed keeps the session key and replaces everything that nonces and tokens
// hang on: all of them die. It is for a clock that was set backwards, which
// would otherwise bring ended ones back to life.
func (b *Boot) Renewed() *Boot {
	return &Boot{key: b.key, secret: newSecret(), used: new(memNonces), spk: b.spk}
}

// Key is the session key pair.
func (b *Boot) Key() *suite.X25519Key { return b.key }

// SPK is the public session key as it goes out, base64.
func (b *Boot) SPK() string { return b.spk }
