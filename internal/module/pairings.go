package module

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"slices"

	"softhem/api"
	"softhem/internal/keyring"
	"softhem/internal/records"
	"softhem/internal/store"
	"softhem/internal/suite"
)

// Pairings are kept in one record, beside the keys they belong to and changed
// in the same transactions. It is what makes a key a pairing: nothing but
// ExtValidate adds to it, and what a key's descr says counts for nothing.
const kindPairings store.Kind = "pairings"

// pairingRecord is a pairing as it is kept, sealed.
type pairingRecord struct {
	KID store.KID `json:"kid"` // of the stored key
	PID [32]byte  `json:"pid"` // what the broker calls the pairing
	AID [32]byte  `json:"aid"` // X25519 public key of the authenticator
	// Generation is drawn anew for each pairing, so that the tokens of one that
	// ended stay dead when the same authenticator is paired again.
	Generation uint64 `json:"generation"`
}

type pairingsRecord struct {
	Pairings []pairingRecord `json:"pairings"`
}

// pairing is a paired authenticator, ready for use.
type pairing struct {
	pairingRecord
	sub    api.Role      // of its tokens
	pid    string        // base64
	secret *suite.MACKey // set up with X25519(eid, aid)
}

func (id *identity) openPairing(rec pairingRecord) (pairing, error) {
	secret, err := id.key.Shared(rec.AID[:])
	if err != nil {
		return pairing{}, err
	}
	defer clear(secret)
	return pairing{
		pairingRecord: rec, sub: subOf(rec.KID), pid: api.EncodeBase64(rec.PID[:]), secret: suite.NewMACKey(secret),
	}, nil
}

// subOf is the claim sub of the tokens of an authenticator.
func subOf(kid store.KID) api.Role { return api.Role(api.EncodeBase64(kid[:])) }

// auditName is a sub as the audit log names it: U, M, or the kid in hex.
func auditName(sub api.Role) string {
	if sub == api.RoleUser || sub == api.RoleMaster {
		return string(sub)
	}
	kid, err := api.DecodeBase64(string(sub))
	if err != nil {
		return "" // no token of ours has such a sub
	}
	return hex.EncodeToString(kid)
}

// paired finds a pairing by the authenticator's key.
func (s *state) paired(aid [32]byte) *pairing {
	for i := range s.pairings {
		if suite.Equal(s.pairings[i].AID[:], aid[:]) {
			return &s.pairings[i]
		}
	}
	return nil
}

func (m *Module) readPairings(ctx context.Context, r store.Reader) (pairingsRecord, error) {
	rec, err := records.Load[pairingsRecord](ctx, r, m.cfg.Sealer, kindPairings, idOnly)
	if errors.Is(err, store.ErrNotFound) {
		err = nil
	}
	return rec, err
}

// loadPairings reads the pairings whose keys are there, and are what they were.
func (m *Module) loadPairings(ctx context.Context, r store.Reader, id *identity) ([]pairing, error) {
	rec, err := m.readPairings(ctx, r)
	if err != nil {
		return nil, err
	}
	var all []pairing
	for _, one := range rec.Pairings {
		row, err := r.GetKey(ctx, one.KID)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return nil, err
		}
		if err != nil || !suite.Equal(row.Public, one.AID[:]) {
			m.log.Warn("a paired authenticator's key is gone; the pairing does not count", "kid", hex.EncodeToString(one.KID[:]))
			continue
		}
		p, err := id.openPairing(one)
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}

var errDuplicatePairing = errors.New("the authenticator, or the pairing id, is paired already")

// addPairing puts a pairing and its key into a transaction: keyring.ErrFull,
// keyring.ErrDuplicate, errDuplicatePairing.
func (m *Module) addPairing(ctx context.Context, tx store.Tx, add pairingRecord, row store.Key) error {
	rec, err := m.readPairings(ctx, tx)
	if err != nil {
		return err
	}
	kept := rec.Pairings[:0:0]
	for _, one := range rec.Pairings {
		if _, err := tx.GetKey(ctx, one.KID); errors.Is(err, store.ErrNotFound) {
			continue // it does not count, see loadPairings
		} else if err != nil {
			return err
		}
		if suite.Equal(one.PID[:], add.PID[:]) || suite.Equal(one.AID[:], add.AID[:]) {
			return errDuplicatePairing
		}
		kept = append(kept, one)
	}
	if len(kept) >= api.MaxPairings {
		return keyring.ErrFull
	}
	if err := m.keys.Insert(ctx, tx, row); err != nil {
		return err
	}
	rec.Pairings = append(kept, add)
	return records.Save(ctx, tx, m.cfg.Sealer, kindPairings, idOnly, rec)
}

// dropPairing takes the pairing of a key out of a transaction, and tells
// whether there was one.
func (m *Module) dropPairing(ctx context.Context, tx store.Tx, kid store.KID) (bool, error) {
	rec, err := m.readPairings(ctx, tx)
	if err != nil {
		return false, err
	}
	for i, one := range rec.Pairings {
		if one.KID == kid {
			rec.Pairings = append(rec.Pairings[:i:i], rec.Pairings[i+1:]...)
			return true, records.Save(ctx, tx, m.cfg.Sealer, kindPairings, idOnly, rec)
		}
	}
	return false, nil
}

// unpair ends a pairing here, after it has ended in the store: from its return
// on, no token of it is taken and no approval either. A pairing of the same key
// that is just being made is waited for, so the older state does not win. With
// an error of the commit the store is asked what became of it, and whoever it
// cannot answer for is not paired.
func (m *Module) unpair(ctx context.Context, kid store.KID, failed error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if failed != nil && m.stillPaired(context.WithoutCancel(ctx), kid) {
		return
	}
	m.replace(func(st *state) {
		left := make([]pairing, 0, len(st.pairings))
		for _, p := range st.pairings {
			if p.KID != kid {
				left = append(left, p)
			}
		}
		st.pairings = left
	})
}

func (m *Module) stillPaired(ctx context.Context, kid store.KID) bool {
	var rec pairingsRecord
	err := m.cfg.Store.View(ctx, func(r store.Reader) (err error) {
		rec, err = m.readPairings(ctx, r)
		return err
	})
	return err == nil && slices.ContainsFunc(rec.Pairings, func(one pairingRecord) bool { return one.KID == kid })
}

// newGeneration draws a generation.
func newGeneration() uint64 { return binary.LittleEndian.Uint64(suite.Random(8)) }
