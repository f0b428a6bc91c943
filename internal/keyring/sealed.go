package keyring

import (
	"bytes"
	"encoding/binary"
	"errors"

	"softhem/api"
	"softhem/internal/store"
)

// The sealed part of a key is a sealed value (internal/seal) of kind "key"
// whose plaintext has one length for all types, so that rows can be overwritten
// in place:
//
//	┌────────────┬──────────────────┬───────────────┐
//	│ n (1 byte) │ material, n bytes │ zeros         │   87 bytes in all
//	└────────────┴──────────────────┴───────────────┘
//
// material is what the suite's table says: a scalar, a seed or a secret; none
// for an imported public key. The id it is bound to is everything of the row
// that stands in clear, but Seq, which the store gives, and the fingerprint,
// which is computed anew:
//
//	┌──────────┬────────────────┬────────────────┬────────────────────────────────┐
//	│ kid (16) │ created uint64 │ updated uint64 │ type, label, descr, public,    │
//	│          │                │                │ each after its length, uint16  │
//	└──────────┴────────────────┴────────────────┴────────────────────────────────┘
//
// integers big-endian. So a changed label, a swapped public key, or the
// material of one key in the row of another does not open.
const (
	sealedKind        = "key"
	fingerprintDomain = "key " // ‖ type: the same bytes under two types are two keys
	sealOverhead      = 1 + 24 + 16
	plainSize         = store.SealedKeyBytes - sealOverhead
	maxMaterial       = plainSize - 1
)

// seal fills row.Sealed from the other fields and the material.
func (r *Ring) seal(row *store.Key, material []byte) {
	if len(material) > maxMaterial {
		panic("keyring: key material longer than a row")
	}
	var plain [plainSize]byte
	defer clear(plain[:])
	plain[0] = byte(len(material))
	copy(plain[1:], material)
	row.Sealed = r.cfg.Sealer.Seal(sealedKind, binding(row), plain[:])
}

// unseal opens a row and returns its material, which the caller has to clear,
// and what stands in clear, now known to be what was written.
func (r *Ring) unseal(row *store.Key) (material []byte, info Info, err error) {
	plain, err := r.cfg.Sealer.Open(sealedKind, binding(row), row.Sealed)
	if err != nil {
		return nil, Info{}, &DamagedError{row.KID, err}
	}
	if len(plain) != plainSize || int(plain[0]) > maxMaterial {
		clear(plain)
		return nil, Info{}, &DamagedError{row.KID, errors.New("the sealed part has another form")}
	}
	material = plain[1 : 1+int(plain[0])]
	traits := api.ParseKeyTraits(row.Type)
	if row.Fingerprint != nil || len(row.Public) == 0 { // a symmetric key has one
		fp, err := r.cfg.Sealer.Fingerprint(fingerprintDomain+string(traits.Type), material)
		if err != nil || !bytes.Equal(fp, row.Fingerprint) {
			clear(plain)
			return nil, Info{}, &DamagedError{row.KID, errors.Join(errors.New("the fingerprint is another key's"), err)}
		}
	}
	return material, Info{
		KID: row.KID, Traits: traits, Created: row.Created, Updated: row.Updated,
		Label: row.Label, Descr: row.Descr, Public: row.Public, seq: row.Seq,
	}, nil
}

// binding is the id a row's sealed part is bound to.
func binding(row *store.Key) string {
	b := make([]byte, 0, 16+8+8+4*2+len(row.Type)+len(row.Label)+len(row.Descr)+len(row.Public))
	b = append(b, row.KID[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(row.Created))
	b = binary.BigEndian.AppendUint64(b, uint64(row.Updated))
	for _, part := range [][]byte{[]byte(row.Type), []byte(row.Label), row.Descr, row.Public} {
		b = binary.BigEndian.AppendUint16(b, uint16(len(part)))
		b = append(b, part...)
	}
	return string(b)
}
