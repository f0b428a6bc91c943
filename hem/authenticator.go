package hem

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"softhem/api"
)

// A Pairing is the authenticator's half of a pairing: with it, requests for a
// token are read, and allowed or denied. Its fields are what has to be kept; Private is as
// secret as a passphrase.
type Pairing struct {
	Private  []byte `json:"private"` // X25519 scalar, 32 bytes, made for this pairing alone
	EID      string `json:"eid"`     // the module
	PID      string `json:"pid"`     // what the broker calls the pairing
	Broker   string `json:"broker"`  // base URL
	User     string `json:"user"`    // as the offer said; nobody vouches for these three
	Email    string `json:"email"`
	Hostname string `json:"hostname"`
	// Answered are the requests that were answered, and the Unix second until
	// which that is remembered; see [Authenticator.Keep].
	Answered map[string]int64 `json:"answered,omitempty"`
}

// Remember notes in Answered that a request was answered, and forgets those
// that ended long ago.
func (p *Pairing) Remember(request string, until, now time.Time) {
	answered := map[string]int64{request: until.Unix()}
	for id, end := range p.Answered {
		if now.Unix() < end {
			answered[id] = end
		}
	}
	p.Answered = answered
}

// Format implements [fmt.Formatter]: module and pairing, and no key, whatever the verb.
func (p Pairing) Format(s fmt.State, _ rune) { fmt.Fprintf(s, "hem.Pairing(%s with %s)", p.PID, p.EID) }

// KID is the kid under which the module keeps the pairing.
func (p *Pairing) KID() (KID, error) {
	key, err := KeyFromSeed(p.Private)
	if err != nil {
		return KID{}, err
	}
	defer key.Wipe()
	return kidOfPublic(key.Public()), nil
}

// An Authenticator approves for one pairing.
//
// What it shows was written by the module, and is judged by what the module
// wrote: the broker can keep requests back, but not change one, make an old one
// look new, or have one that was answered asked again.
type Authenticator struct {
	// Keep, if not nil, is told of each request that is answered, before the answer
	// leaves; if it fails, no answer does. What it is given belongs into
	// [Pairing.Answered] ([Pairing.Remember]), or a broker can show the
	// request again to the next Authenticator of the pairing. Set it before use.
	Keep func(request string, until time.Time) error
	// LeftOut, if not nil, is told why something the broker showed is no request to
	// be answered: [ErrRequestEnded], by the clock here, or [ErrRequestForged].
	// Set it before use.
	LeftOut func(r Request, why error)

	p      Pairing // Answered is guarded by mu
	key    *PersonaKey
	eid    []byte
	broker *Broker
	now    func() time.Time
	mu     sync.Mutex
}

const (
	opAccept       = "take a pairing"
	opAllow        = "allow a request"
	opDeny         = "deny a request"
	opRequests     = "read requests"
	pathChallenges = "/notify/register/challenge/"
)

// AcceptPairing takes an offer, the JSON of a QR code or the bare link in it, and calls
// itself label. cfg says how to reach the broker; its URL is taken from the offer.
//
// The pairing works once the one who showed the code has finished. Before that, have
// the person compare [Pairing.KID]'s first 8 digits if proven is false: then the
// offer had no secret, and the broker could have answered in our place.
func AcceptPairing(ctx context.Context, cfg BrokerConfig, offer, label string) (p *Pairing, proven bool, err error) {
	var o api.PairingOffer
	if strings.HasPrefix(strings.TrimSpace(offer), "{") {
		if json.Unmarshal([]byte(offer), &o) != nil {
			return nil, false, badArgument(opAccept, "the offer is not JSON")
		}
	} else {
		o.Link = strings.TrimSpace(offer)
	}
	link, err := url.Parse(o.Link)
	at := -1
	if err == nil {
		at = strings.LastIndex(link.Path, pathChallenges)
	}
	if at < 0 {
		return nil, false, badArgument(opAccept, "the offer has no link to a broker")
	}
	cfg.URL = (&url.URL{Scheme: link.Scheme, Host: link.Host, Path: link.Path[:at]}).String()
	b, err := NewBroker(cfg)
	if err != nil {
		return nil, false, err
	}
	var ch api.RegisterChallenge
	if _, err := b.doAt(ctx, opAccept, http.MethodGet, link, nil, &ch); err != nil {
		return nil, false, err
	}
	if hash := sha256.Sum256([]byte(ch.Request)); o.K != "" && o.Hash != api.EncodeBase64(hash[:]) {
		return nil, false, &OpError{Op: opAccept, Err: ErrPairingForged}
	}
	var req api.PairingRequestClaims
	if readClaims(ch.Request, &req) != nil {
		return nil, false, badAnswer(opAccept, "GET "+pathChallenges, "no pairing request")
	}
	eid, err1 := decode32("iss", req.Iss)
	epk, err2 := decode32("aud", req.Aud)
	if err := errors.Join(err1, err2); err != nil {
		return nil, false, badAnswer(opAccept, "GET "+pathChallenges, "%v", err)
	}
	seed := make([]byte, keySize)
	rand.Read(seed)
	key, err := KeyFromSeed(seed)
	if err != nil {
		return nil, false, err
	}
	defer key.Wipe()
	claims := api.PairingReplyClaims{JTI: req.JTI, Iss: api.EncodeBase64(key.Public()), Aud: req.Iss, EPK: req.Aud, Label: label}
	if o.K != "" {
		k, err := api.DecodeBase64(o.K)
		if err != nil || len(k) != pairingSecret {
			return nil, false, badArgument(opAccept, "k of the offer is not %d bytes", pairingSecret)
		}
		claims.KP, proven = api.EncodeBase64(pairingProof(k, key.Public())), true
	}
	reply, err := signEJWT(key, eid, claims)
	if err != nil {
		return nil, false, &OpError{Op: opAccept, Err: err}
	}
	mac, err := brokerMAC(key, eid, epk, []byte(reply))
	if err != nil {
		return nil, false, &OpError{Op: opAccept, Err: err}
	}
	var pid api.RegisterPID
	if _, err := b.doAt(ctx, opAccept, http.MethodPost, link, api.RegisterReply{Reply: reply, MAC: mac, AID: claims.Iss}, &pid); err != nil {
		return nil, false, err
	}
	if _, err := decode32("pid", pid.PID); err != nil {
		return nil, false, badAnswer(opAccept, "POST "+pathChallenges, "%v", err)
	}
	return &Pairing{Private: seed, EID: req.Iss, PID: pid.PID, Broker: b.URL(), User: o.User, Email: o.Email, Hostname: o.Hostname}, proven, nil
}

// brokerMAC proves to the broker that key's owner sends parts. A broker that gives
// the module's key for its own, in whatever spelling, is refused: it would get a MAC
// under the secret that scopes are sealed with, and could show requests of its own.
func brokerMAC(key *PersonaKey, eid, epk []byte, parts ...[]byte) (string, error) {
	module, err := key.shared(eid)
	if err != nil {
		return "", err
	}
	defer clear(module)
	secret, err := key.shared(epk)
	if err != nil {
		return "", err
	}
	defer clear(secret)
	if hmac.Equal(module, secret) {
		return "", fmt.Errorf("%w: the broker's key is the module's", ErrProtocol)
	}
	mac := hmac.New(sha256.New, secret)
	for _, part := range parts {
		mac.Write(part)
	}
	return api.EncodeBase64(mac.Sum(nil)), nil
}

// NewAuthenticator makes an authenticator of a pairing. cfg says how to reach
// the broker; its URL is the pairing's.
func NewAuthenticator(p Pairing, cfg BrokerConfig) (*Authenticator, error) {
	cfg.URL = p.Broker
	b, err := NewBroker(cfg)
	if err != nil {
		return nil, err
	}
	eid, err := decode32("EID", p.EID)
	if err != nil {
		return nil, fmt.Errorf("%w: the pairing's %w", ErrArgument, err)
	}
	key, err := KeyFromSeed(p.Private)
	if err != nil {
		return nil, err
	}
	p.Answered = maps.Clone(p.Answered)
	return &Authenticator{p: p, key: key, eid: eid, broker: b, now: b.cfg.Now}, nil
}

// Unpair ends the pairing at the broker. The module keeps its half until the
// key of [Pairing.KID] is deleted there.
func (a *Authenticator) Unpair(ctx context.Context) error {
	const op = "end a pairing"
	aid := api.EncodeBase64(a.key.Public())
	var session api.BrokerSession
	if _, err := a.broker.do(ctx, op, http.MethodPost, "/notify/session", "", api.BrokerSessionFor{AID: aid}, &session); err != nil {
		return err
	}
	epk, err := decode32("epk", session.EPK)
	if err != nil {
		return badAnswer(op, "POST /notify/session", "%v", err)
	}
	nonce := make([]byte, keySize)
	rand.Read(nonce)
	mac, err := brokerMAC(a.key, a.eid, epk, nonce)
	if err != nil {
		return &OpError{Op: op, Err: err}
	}
	_, err = a.broker.do(ctx, op, http.MethodPost, "/notify/subscribers/delete", "", api.SubscriberProof{
		PID: a.p.PID, EPK: session.EPK, AID: aid, Nonce: api.EncodeBase64(nonce), MAC: mac,
	}, nil)
	return err
}

// Close wipes the key.
func (a *Authenticator) Close() { a.key.Wipe() }

// A sealed scope, scheme A:
//
//	K      = HMAC-SHA256(X25519(aid, eid), jti)
//	sealed = "A" ‖ base64(AES-128-CBC(key K[0:16], iv K[16:32], scope, PKCS #7) ‖ HMAC-SHA256(K, scope))
//
// Where a request came from is sealed in the same way, under
//
//	K      = HMAC-SHA256(X25519(aid, eid), jti ‖ "from")
const (
	scopeScheme = "A"
	ofScope     = ""
	ofFrom      = "from"
)

var errSealed = errors.New("a sealed text that does not open")

// sealKey is K.
func (a *Authenticator) sealKey(jti, label string) ([]byte, error) {
	raw, err := decode32("jti", jti)
	if err != nil {
		return nil, err
	}
	secret, err := a.key.shared(a.eid)
	if err != nil {
		return nil, err
	}
	defer clear(secret)
	return sum256(secret, append(raw, label...)), nil
}

func sum256(key, msg []byte) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write(msg)
	return mac.Sum(nil)
}

func (a *Authenticator) sealScope(jti, scope string) (string, error) {
	k, err := a.sealKey(jti, ofScope)
	if err != nil {
		return "", err
	}
	defer clear(k)
	block, err := aes.NewCipher(k[:16])
	if err != nil {
		return "", err
	}
	n := aes.BlockSize - len(scope)%aes.BlockSize
	text := append([]byte(scope), bytes.Repeat([]byte{byte(n)}, n)...)
	cipher.NewCBCEncrypter(block, k[16:]).CryptBlocks(text, text)
	return scopeScheme + api.EncodeBase64(append(text, sum256(k, []byte(scope))...)), nil
}

func (a *Authenticator) openScope(jti, sealed string) (string, error) {
	return a.unseal(jti, ofScope, sealed)
}

func (a *Authenticator) unseal(jti, label, sealed string) (string, error) {
	text, ok := strings.CutPrefix(sealed, scopeScheme)
	raw, err := api.DecodeBase64(text)
	if !ok || err != nil || len(raw) < sha256.Size+aes.BlockSize || len(raw)%aes.BlockSize != 0 {
		return "", errSealed
	}
	k, err := a.sealKey(jti, label)
	if err != nil {
		return "", err
	}
	defer clear(k)
	block, err := aes.NewCipher(k[:16])
	if err != nil {
		return "", err
	}
	plain, mac := raw[:len(raw)-sha256.Size], raw[len(raw)-sha256.Size:]
	cipher.NewCBCDecrypter(block, k[16:]).CryptBlocks(plain, plain)
	n := int(plain[len(plain)-1])
	if n < 1 || n > aes.BlockSize {
		return "", errSealed
	}
	opened := plain[:len(plain)-n]
	for _, c := range plain[len(plain)-n:] {
		if int(c) != n {
			return "", errSealed
		}
	}
	// What opens is of the module, or of ourselves: only they have K.
	if !hmac.Equal(mac, sum256(k, opened)) {
		return "", errSealed
	}
	return string(opened), nil
}
