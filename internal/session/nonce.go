package session

import (
	"encoding/binary"
	"sync"

	"softhem/api"
	"softhem/internal/suite"
)

// NonceSize is the length of a nonce in bytes.
const NonceSize = 32

// A Nonce lets the module recognise a challenge of its own without having
// stored it:
//
//	bytes  0-3   the module's clock, Unix seconds, little-endian
//	bytes  4-15  random
//	bytes 16-31  HMAC-SHA256(boot secret, purpose ‖ 0x00 ‖ bytes 0-15 ‖ SHA-256(context))[:16]
//
// One nonce has 16 base64 spellings, so it is compared and remembered as
// bytes.
type Nonce [NonceSize]byte

// A Purpose is what a nonce was made for; it is taken for nothing else.
type Purpose struct {
	name string
	life int64 // seconds
}

// Life is how long a nonce of this purpose is good for, in seconds.
func (p Purpose) Life() int64 { return p.life }

// The purposes, beside those of authorisation requests. Token ids and the
// nonces of the log key and of ext/mac have a life of zero: they are never
// taken back.
func PurposeLogin() Purpose   { return Purpose{"login", 60} }
func PurposeInit() Purpose    { return Purpose{"init", 60} }
func PurposeConfig() Purpose  { return Purpose{"config", 60} }
func PurposeCheckin() Purpose { return Purpose{"checkin", 600} }
func PurposePairing() Purpose { return Purpose{"pairing", 86_400} }
func PurposeTokenID() Purpose { return Purpose{"token", 0} }
func PurposeExtMAC() Purpose  { return Purpose{"extmac", 0} }
func PurposeLogKey() Purpose  { return Purpose{"logkey", 0} }

// NewNonce makes a nonce at the module's time now, in Unix seconds.
func (b *Boot) NewNonce(p Purpose, context []byte, now int64) Nonce {
	var n Nonce
	binary.LittleEndian.PutUint32(n[:4], uint32(now))
	copy(n[4:16], suite.Random(12))
	mac := b.nonceMAC(p, context, n[:16])
	copy(n[16:], mac[:])
	return n
}

func (b *Boot) nonceMAC(p Purpose, context, first []byte) [16]byte {
	digest := suite.SHA256(context)
	mac := b.secret.Sum([]byte(p.name), []byte{0}, first, digest[:])
	return [16]byte(mac[:16])
}

// CheckNonce tells whether n was made by this boot for this purpose and
// context and is still alive. It does not tell whether it was used.
func (b *Boot) CheckNonce(p Purpose, context []byte, n Nonce, now int64) bool {
	if mac := b.nonceMAC(p, context, n[:16]); !suite.Equal(mac[:], n[16:]) {
		return false
	}
	made := n.Made()
	return made <= now && now < made+p.life
}

// Made is the module's time when the nonce was made, in Unix seconds.
func (n Nonce) Made() int64 { return api.NonceTime(n[:]) }

// UseNonce takes a checked nonce once: it returns true for the first caller
// and false for every other, until the nonce has ended by itself.
func (b *Boot) UseNonce(p Purpose, n Nonce, now int64) bool {
	return b.used.Use([16]byte(n[:16]), n.Made()+p.life, now)
}

// UsedNonces remembers nonces until they end. Nodes of one cluster have to
// share it.
type UsedNonces interface {
	// Use records id until the given Unix second and returns true, or
	// returns false if it is recorded already. ids that ended before now may
	// be forgotten.
	Use(id [16]byte, until, now int64) bool
}

const nonceShards = 32

// memNonces is UsedNonces for one process: sharded by a random byte of the id,
// and within a shard one set for each minute in which nonces end, so that
// forgetting costs nothing per nonce.
//
// Invariant: an id is in the set of the minute its end falls into, and a set
// is dropped only when that minute and the next are over. The module's clock
// never goes backwards while a Boot lives (a step back replaces the Boot), and
// callers read it right before they check a nonce; the minute more is for the
// moments between one's reading and another's sweep.
type memNonces [nonceShards]struct {
	sync.Mutex
	swept int64 // minute of the last sweep
	ends  map[int64]map[[16]byte]struct{}
}

func (m *memNonces) Use(id [16]byte, until, now int64) bool {
	s := &m[id[4]%nonceShards]
	minute := until / 60
	s.Lock()
	defer s.Unlock()
	if current := now / 60; s.swept != current {
		for end := range s.ends {
			if end < current-1 {
				delete(s.ends, end)
			}
		}
		s.swept = current
	}
	if s.ends == nil {
		s.ends = make(map[int64]map[[16]byte]struct{})
	}
	set := s.ends[minute]
	if set == nil {
		set = make(map[[16]byte]struct{})
		s.ends[minute] = set
	}
	if _, used := set[id]; used {
		return false
	}
	set[id] = struct{}{}
	return true
}
