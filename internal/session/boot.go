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

	personaKeys sync.Map // of [32]byte, an issuer, to *suite.MACKey; see Know

	bearerKeys sync.Map // of bearerID to *suite.MACKey; one for each sub and generation met
	tokens     openedTokens
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

// OpenEJWT is [OpenEJWT] for an eJWT to this boot's session key.
func (b *Boot) OpenEJWT(token string, claims any) (issuer [32]byte, err error) {
	return openEJWT(token, claims, func(issuer [32]byte) (*suite.MACKey, error) {
		if key, ok := b.personaKeys.Load(issuer); ok {
			return key.(*suite.MACKey), nil
		}
		return macKey(b.key, issuer)
	})
}

// Know keeps the MAC key between this boot and an issuer, so that X25519 is not
// computed for every one of its tokens: half of what a login costs. It is for
// the few whose proof was accepted; a stranger must not decide what is kept.
//
// A token of a known issuer is then checked some 40 µs faster than one of a
// stranger. That tells a caller, who chose the issuer, that it has logged in
// before; the damping, which has every answer wait for the same moment, does
// not let it through.
func (b *Boot) Know(issuer [32]byte) {
	if _, known := b.personaKeys.Load(issuer); known {
		return
	}
	if key, err := macKey(b.key, issuer); err == nil {
		b.personaKeys.Store(issuer, key)
	}
}

// LocalBoots makes the secrets of boots in this process, for it alone.
type LocalBoots struct{}

// Begin makes a boot with fresh secrets.
func (LocalBoots) Begin() *Boot { return NewBoot() }

// Renew replaces the secrets of a boot that goes on.
func (LocalBoots) Renew(b *Boot) *Boot { return b.Renewed() }
