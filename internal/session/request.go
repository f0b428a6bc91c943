package session

import (
	"encoding/binary"

	"softhem/api"
	"softhem/internal/suite"
)

// The nonce of an authorisation request comes back in an approval, and the
// module has to tell three things apart without having stored anything: that
// it made the nonce, that it made it for who sends the approval, and that it
// made it for the scope that was approved. Its context is the scope and what
// it was bound to, and bytes 12 to 15 are no random ones but
//
//	HMAC-SHA256(boot secret, purpose ‖ 0x01 ‖ bytes 0-11 ‖ SHA-256(bind))[:4]
//
// which says the first two. They decide which refusal is given; bytes 16 to 31
// decide whether there is one.

// The purposes of authorisation requests; those for the use of a key end sooner.
func PurposeRequest() Purpose       { return Purpose{"extreq", api.ExtRequestLife} }
func PurposeKeyUseRequest() Purpose { return Purpose{"extreqkey", api.ExtKeyUseRequestLife} }

const requestTag = 12 // where the tag begins

func (b *Boot) tagRequest(p Purpose, bind, first []byte) []byte {
	digest := suite.SHA256(bind)
	mac := b.secret.Sum([]byte(p.name), []byte{1}, first, digest[:])
	return mac[:16-requestTag]
}

func requestContext(scope string, bind []byte) []byte {
	return append(append([]byte(scope), 0), bind...) // no scope has a zero byte
}

// NewRequestNonce makes the nonce of a request for scope, bound to bind, which
// is empty or a SHA-256.
func (b *Boot) NewRequestNonce(p Purpose, scope string, bind []byte, now int64) Nonce {
	var n Nonce
	binary.LittleEndian.PutUint32(n[:4], uint32(now))
	copy(n[4:requestTag], suite.Random(requestTag-4))
	copy(n[requestTag:16], b.tagRequest(p, bind, n[:requestTag]))
	mac := b.nonceMAC(p, requestContext(scope, bind), n[:16])
	copy(n[16:], mac[:])
	return n
}

// OwnRequest tells for which of the two purposes n seems to be made, with this
// bind and still alive. [Boot.CheckRequest] alone makes it certain.
func (b *Boot) OwnRequest(n Nonce, bind []byte, now int64) (Purpose, bool) {
	for _, p := range []Purpose{PurposeRequest(), PurposeKeyUseRequest()} {
		if suite.Equal(b.tagRequest(p, bind, n[:requestTag]), n[requestTag:16]) {
			return p, n.Made() <= now && now < n.Made()+p.life
		}
	}
	return Purpose{}, false
}

// CheckRequest tells whether n was made for a request for scope with this bind,
// and is still alive.
func (b *Boot) CheckRequest(p Purpose, scope string, bind []byte, n Nonce, now int64) bool {
	return b.CheckNonce(p, requestContext(scope, bind), n, now)
}
