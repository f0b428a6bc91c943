package module

import (
	"context"
	"errors"

	"softhem/api"
	"softhem/internal/audit"
	"softhem/internal/keyring"
	"softhem/internal/store"
	"softhem/internal/suite"
)

// errUnfit is what every operation with a key answers that cannot be done:
// unknown kid, wrong type, wrong curve, a signature, MAC or ciphertext that does
// not verify. There is one value, so that none of them can be told from another.
var errUnfit = api.ErrNotAcceptable.Because("refused")

// unfit tells whether an error means that, rather than that something failed.
func unfit(err error) bool {
	return errors.Is(err, keyring.ErrUnknown) || errors.Is(err, suite.ErrMismatch) || errors.Is(err, suite.ErrKey)
}

// A use is one operation with one key, on its way.
type use struct {
	module *Module
	// pkey: the private part of a key pair was used.
	pkey bool
	// made are secrets that the operation made for itself, cleared at its end.
	made [][]byte
}

// clears keeps a secret until the end of the operation.
func (u *use) clears(secret []byte) []byte {
	u.made = append(u.made, secret)
	return secret
}

func (u *use) end() {
	for _, secret := range u.made {
		clear(secret)
	}
}

// record adds what is recorded beside the operation: that it used a private
// key, unless records are kept short.
func (u *use) record(recs []audit.Record, p *Pass, kid store.KID) []audit.Record {
	if !u.pkey || u.module.cfg.AuditCompact {
		return recs
	}
	return append(recs, audit.Record{Type: audit.KeyUsagePKey, Who: p.who(), Arg: kid[:]})
}

// use opens a key, acts with it and records that, whatever came of it, before
// the answer may leave. act must not fail but with errors of suite and keyring.
func (m *Module) use(ctx context.Context, p *Pass, kid store.KID, what audit.Type, act func(*use, *keyring.Key) error) error {
	if !p.admitted && m.rules[p.op].KeyScope {
		panic("module: a key was used without admission")
	}
	u := &use{module: m}
	defer u.end()
	k, err := m.keys.Open(ctx, kid)
	if err == nil {
		err = act(u, k)
	}
	var told error
	result := audit.OK
	switch {
	case err == nil:
	case unfit(err):
		told, result = errUnfit, audit.Failed
	default:
		return m.keyFailure(ctx, p.state, err)
	}
	recs := append(make([]audit.Record, 0, 2), audit.Record{Type: what, Result: result, Who: p.who(), Arg: kid[:]})
	if err := m.append(ctx, u.record(recs, p, kid)...); err != nil {
		return err
	}
	return told
}

// keyFailure deals with a key that could not be read. A damaged one latches the
// fail state: who can change one row may have changed others.
func (m *Module) keyFailure(ctx context.Context, st *state, err error) error {
	damaged, ok := errors.AsType[*keyring.DamagedError](err)
	if !ok {
		return m.refusal(err)
	}
	m.keyDamaged(ctx, st, damaged)
	return api.ErrConflict.Becausef("fail state %02x", st.fls())
}

func (m *Module) keyDamaged(ctx context.Context, st *state, damaged *keyring.DamagedError) {
	if m.wiped.Load() {
		return // nothing opens any more
	}
	st.fail.Or(flsDataIntegrity)
	m.log.ErrorContext(ctx, "a stored key is damaged; the module will not work until it is repaired", "error", damaged)
	if err := m.append(ctx, audit.Record{Type: audit.KeyIntegrityError, Result: audit.Error, Arg: damaged.KID[:]}); err != nil {
		m.log.ErrorContext(ctx, "a damaged key could not be recorded", "error", err)
	}
}

// secret is the raw ECDH secret of a key and a peer, good until the end of u.
func (u *use) secret(ctx context.Context, k *keyring.Key, other peer) ([]byte, error) {
	if !k.Traits.ECDH || !k.Private() {
		return nil, suite.ErrMismatch
	}
	var public *suite.Key
	if other.byKID {
		ext, err := u.module.keys.Open(ctx, other.kid)
		if err != nil {
			return nil, err
		}
		public = ext.Key
	} else {
		var err error
		if public, err = k.Algorithm().OpenPublic(other.public); err != nil {
			return nil, err
		}
	}
	if public.Algorithm() != k.Algorithm() {
		return nil, suite.ErrMismatch // the private part is not touched
	}
	u.pkey = true
	secret, err := k.SharedSecret(public)
	return u.clears(secret), err
}

// What the keys of peer encryption and wrapping are derived for (HKDF info),
// and how long they are in bytes.
const (
	infoCipher  = "encedo-aes"
	infoWrap    = "encedo-kek"
	infoDerive  = "encedo-"
	derivedSize = 32
)

// symmetric is the key for a cipher, good until the end of u: the stored one,
// or one derived from the ECDH secret with a peer.
func (u *use) symmetric(ctx context.Context, k *keyring.Key, other peer, info string, kdfContext []byte) ([]byte, error) {
	if !other.given {
		if !k.Algorithm().Cipher {
			return nil, suite.ErrMismatch
		}
		return k.Secret(), nil
	}
	secret, err := u.secret(ctx, k, other)
	if err != nil {
		return nil, err
	}
	return u.clears(suite.HKDFSHA256(secret, append([]byte(info), kdfContext...), derivedSize)), nil
}
