package module

import (
	"context"
	"encoding/hex"
	"errors"
	"slices"
	"strings"

	"softhem/api"
	"softhem/internal/audit"
	"softhem/internal/keyring"
	"softhem/internal/store"
	"softhem/internal/suite"
)

// The operations of /api/keymgmt. A change and its record are one; a change
// that was allowed and could not be made is recorded as FAILED.

// KeyList is a page of all keys. offset and count are as they stand in the
// path, empty for the first page of full length.
func (m *Module) KeyList(ctx context.Context, p *Pass, offset, count string) (api.KeyList, error) {
	p.must(OpKeyList)
	from, ok := pageNumber(offset)
	limit, ok2 := pageNumber(count)
	if !ok || !ok2 {
		return api.KeyList{}, api.ErrNotAcceptable.Because("offset and count are decimal numbers of at most 18 digits")
	}
	mine, _ := m.tlsKeys(p.state)
	page, err := withTLSKeys(mine, from, pageLimit(limit), func(offset, limit int64) (keyring.Page, error) {
		return m.keys.List(ctx, offset, limit)
	})
	if err != nil {
		return api.KeyList{}, m.keyFailure(ctx, p.state, err)
	}
	return m.keyList(from, page), nil
}

// pageNumber reads decimal digits; nothing is 0.
func pageNumber(digits string) (n int64, ok bool) {
	const most = 18 // digits that fit an int64, whichever they are
	if len(digits) > most {
		return 0, false
	}
	for _, d := range []byte(digits) {
		if d < '0' || d > '9' {
			return 0, false
		}
		n = 10*n + int64(d-'0')
	}
	return n, true
}

// pageLimit is how many keys a page has when so many are asked for.
func pageLimit(asked int64) int64 {
	if asked <= 0 || asked > api.MaxPageKeys {
		return api.MaxPageKeys
	}
	return asked
}

func (m *Module) keyList(offset int64, page keyring.Page) api.KeyList {
	list := api.KeyList{
		Offset: offset, Deleted: page.Deleted, Total: page.Total, Listed: len(page.Keys),
		List: make([]api.KeyInfo, len(page.Keys)),
	}
	for i, k := range page.Keys {
		list.List[i] = api.KeyInfo{
			KID: hex.EncodeToString(k.KID[:]), Created: k.Created, Type: k.Traits.String(), Label: k.Label,
			Descr: api.EncodeBase64(k.Descr), Updated: k.Updated,
		}
		if m.cfg.Diag {
			list.List[i].Addr, list.List[i].Len = k.Address()
		}
	}
	return list
}

// KeySearch is a page of the keys whose descr matches. Without a token it
// answers only a search for a long enough beginning, and only where the
// configuration allows that; any other is the 401 of a missing token.
func (m *Module) KeySearch(ctx context.Context, p *Pass, req api.KeySearch) (api.KeyList, error) {
	p.must(OpKeySearch)
	needle, err := searchNeedle(req.Descr)
	if p.claims == nil && (!needle.Start || len(needle.Bytes) < api.MinOpenSearch) { // what is no base64 has no bytes
		return api.KeyList{}, api.ErrUnauthorized
	}
	if err != nil {
		return api.KeyList{}, err
	}
	if req.Offset < 0 || req.Limit < 0 {
		return api.KeyList{}, api.ErrBadRequest.Because("offset and limit cannot be negative")
	}
	leave, err := m.searches.enter(ctx, p.claims == nil)
	if err != nil {
		return api.KeyList{}, err
	}
	mine, _ := m.tlsKeys(p.state)
	mine = slices.DeleteFunc(mine, func(k keyring.Info) bool { return !needle.Matches(k.Descr) })
	page, err := withTLSKeys(mine, req.Offset, pageLimit(req.Limit), func(offset, limit int64) (keyring.Page, error) {
		return m.keys.Search(ctx, needle, offset, limit)
	})
	leave()
	if err != nil {
		return api.KeyList{}, m.keyFailure(ctx, p.state, err)
	}
	return m.keyList(req.Offset, page), nil
}

// SearchUnreadable is what a search is told whose body is not JSON.
func (m *Module) SearchUnreadable(p *Pass, err error) error {
	p.must(OpKeySearch)
	if p.claims == nil {
		return api.ErrUnauthorized // no search that is open to all
	}
	return err
}

// searchNeedle reads ^b64 (starts with), b64$ (ends with), ^b64$ (equals) and
// b64 (contains).
func searchNeedle(descr string) (n store.Needle, err error) {
	text, start := strings.CutPrefix(descr, "^")
	text, end := strings.CutSuffix(text, "$")
	n = store.Needle{Start: start, End: end}
	n.Bytes, err = api.DecodeBase64(text)
	switch {
	case err != nil:
		return n, api.ErrBadRequest.Because("descr is not base64 between its anchors")
	case len(n.Bytes) == 0:
		return n, api.ErrBadRequest.Because("descr is missing or empty")
	case len(n.Bytes) > api.MaxDescrBytes:
		return n, api.ErrNotAcceptable.Becausef("no descr has more than %d bytes", api.MaxDescrBytes)
	}
	return n, nil
}

// KeyGet is what is public of a key.
func (m *Module) KeyGet(ctx context.Context, p *Pass, kid string) (api.Key, error) {
	p.must(OpKeyGet)
	id, err := m.Admit(ctx, p, kid)
	if err != nil {
		return api.Key{}, err
	}
	if answer, ok := m.tlsKey(p.state, id); ok {
		return answer, nil
	}
	k, err := m.keys.Info(ctx, id)
	if errors.Is(err, keyring.ErrUnknown) {
		return api.Key{}, noSuchKey()
	}
	if err != nil {
		return api.Key{}, m.keyFailure(ctx, p.state, err)
	}
	answer := api.Key{
		Type: string(k.Traits.Type), PubKey: api.EncodeBase64(k.Public), Updated: k.Updated,
		Descr: api.EncodeBase64(m.cfg.Quirks.keyDescr(k.Descr)),
	}
	if len(k.Public) == 0 { // as devices have it: for symmetric keys alone, with the attribute
		answer.Type = k.Traits.String()
	}
	return answer, nil
}

func noSuchKey() *api.Error { return api.ErrNotAcceptable.Because("no such key") }

// KeyCreate makes a key.
func (m *Module) KeyCreate(ctx context.Context, p *Pass, req api.KeyCreate) (api.KeyCreated, error) {
	p.must(OpKeyCreate)
	var f fields
	n := f.newKey(f.algorithm(req.Type), req.Label, req.Mode, req.Descr)
	if f.err != nil {
		return api.KeyCreated{}, f.err
	}
	n.Material = n.Algorithm.NewMaterial()
	defer clear(n.Material)
	return m.addKey(ctx, p, audit.KeyGeneration, nil, n)
}

// KeyImport stores a public key.
func (m *Module) KeyImport(ctx context.Context, p *Pass, req api.KeyImport) (api.KeyCreated, error) {
	p.must(OpKeyImport)
	algorithm, ok := suite.AlgorithmOf(req.Type)
	var f fields
	n := f.newKey(algorithm, req.Label, req.Mode, req.Descr)
	n.Public = f.bytes("pubkey", req.PubKey, 1, maxBody)
	if req.Type == "" {
		f.bad("type is missing")
	}
	if f.err != nil {
		return api.KeyCreated{}, f.err
	}
	if !ok || algorithm.PublicSize == 0 {
		return api.KeyCreated{}, m.notDone(ctx, p, audit.KeyImport, "no key type that can be imported", nil)
	}
	if _, err := algorithm.OpenPublic(n.Public); err != nil {
		return api.KeyCreated{}, m.notDone(ctx, p, audit.KeyImport, "pubkey is no public key of this type", nil)
	}
	kid := keyring.KIDOf(n.Public)
	return m.addKey(ctx, p, audit.KeyImport, kid[:], n)
}

// KeyDerive makes a key from the ECDH secret of a key and a peer.
func (m *Module) KeyDerive(ctx context.Context, p *Pass, req api.KeyDerive) (api.KeyCreated, error) {
	p.must(OpKeyDerive)
	var f fields
	kid := f.kid("kid", req.KID)
	n := f.newKey(f.algorithm(req.Type), req.Label, req.Mode, req.Descr)
	other := f.requiredPeer(req.Peer)
	if n.Algorithm != nil && n.Algorithm.DerivedSize() == 0 {
		f.bad("keys of this type cannot be derived")
	}
	if f.err != nil {
		return api.KeyCreated{}, f.err
	}
	u := &use{module: m}
	defer u.end()
	var err error
	n.Material, err = u.derive(ctx, kid, other, n.Algorithm)
	if unfit(err) {
		return api.KeyCreated{}, m.notDone(ctx, p, audit.KeyDerive, errUnfit.Reason, kid[:], u.record(nil, p, kid)...)
	}
	if err != nil {
		return api.KeyCreated{}, m.keyFailure(ctx, p.state, err)
	}
	defer clear(n.Material)
	return m.addKey(ctx, p, audit.KeyDerive, kid[:], n, u.record(nil, p, kid)...)
}

// derive is the material of a new key of type a:
//
//	HKDF-SHA256(ikm = ECDH secret, no salt, info = "encedo-" ‖ type)
//
// as the suite makes it a key.
func (u *use) derive(ctx context.Context, kid store.KID, other peer, a *suite.Algorithm) ([]byte, error) {
	k, err := u.module.keys.Open(ctx, kid)
	if err != nil {
		return nil, err
	}
	secret, err := u.secret(ctx, k, other)
	if err != nil {
		return nil, err
	}
	if len(secret) < a.MinSecret() {
		return nil, suite.ErrMismatch
	}
	return a.MaterialFrom(u.clears(suite.HKDFSHA256(secret, []byte(infoDerive+string(a.Type)), a.DerivedSize())))
}

// addKey stores a new key. about is the kid that a failure is recorded with;
// more are records beside the key's own, whether it is stored or not.
func (m *Module) addKey(ctx context.Context, p *Pass, what audit.Type, about []byte, n keyring.NewKey, more ...audit.Record) (api.KeyCreated, error) {
	if isPairing(n.Descr) {
		return api.KeyCreated{}, m.notDone(ctx, p, what, "this beginning of descr is kept for pairings", about, more...)
	}
	row, err := m.keys.Prepare(n, p.now)
	if err != nil {
		return api.KeyCreated{}, err
	}
	err = m.commit(ctx, func(ctx context.Context, tx store.Tx) ([]audit.Record, error) {
		if err := m.keys.Insert(ctx, tx, row); err != nil {
			return nil, err
		}
		return append([]audit.Record{{Type: what, Who: p.who(), Arg: row.KID[:]}}, more...), nil
	})
	switch {
	case errors.Is(err, keyring.ErrFull):
		return api.KeyCreated{}, m.notDone(ctx, p, what, "the key repository is full", about, more...)
	case errors.Is(err, keyring.ErrDuplicate):
		return api.KeyCreated{}, m.notDone(ctx, p, what, "this key is stored already", about, more...)
	case err != nil:
		return api.KeyCreated{}, err
	}
	return api.KeyCreated{KID: hex.EncodeToString(row.KID[:])}, nil
}

// KeyUpdate replaces label and descr.
func (m *Module) KeyUpdate(ctx context.Context, p *Pass, req api.KeyUpdate) error {
	p.must(OpKeyUpdate)
	var f fields
	kid, label, descr := f.kid("kid", req.KID), f.label(req.Label), f.descr(req.Descr)
	if f.err != nil {
		return f.err
	}
	if _, ok := m.tlsKey(p.state, kid); ok {
		return m.notDone(ctx, p, audit.KeyAttributesChanged, errTLSKey, kid[:])
	}
	err := m.commit(ctx, func(ctx context.Context, tx store.Tx) ([]audit.Record, error) {
		err := m.keys.Update(ctx, tx, kid, label, descr, p.now, func(old keyring.Info) error {
			if (isPairing(old.Descr) || isPairing(descr)) && string(old.Descr) != string(descr) {
				return errPairing
			}
			return nil
		})
		return []audit.Record{{Type: audit.KeyAttributesChanged, Who: p.who(), Arg: kid[:]}}, err
	})
	m.keys.Forget(kid) // also after an error: a log that broke after the commit is one
	switch {
	case errors.Is(err, keyring.ErrUnknown):
		return m.notDone(ctx, p, audit.KeyAttributesChanged, noSuchKey().Reason, kid[:])
	case errors.Is(err, errPairing):
		return m.notDone(ctx, p, audit.KeyAttributesChanged, "a pairing's descr cannot be given or taken", kid[:])
	case err != nil:
		return m.keyFailure(ctx, p.state, err)
	}
	return nil
}

var errPairing = errors.New("the descr of a pairing")

// isPairing tells whether a descr looks like that of a paired authenticator.
func isPairing(descr []byte) bool { return strings.HasPrefix(string(descr), api.PairingPrefix) }

// KeyDelete destroys a key. Whoever is told so can rely on it: no operation
// that begins later uses the key, and no file holds its sealed material.
//
// A crash before the commit leaves the key whole; after it the key is gone, and
// what the store's write-ahead log may still hold of it goes when the store is
// opened again.
func (m *Module) KeyDelete(ctx context.Context, p *Pass, kid string) error {
	p.must(OpKeyDelete)
	id, ok := keyring.ParseKID(kid)
	if !ok {
		return api.ErrBadRequest.Because("the path does not end with 32 hex digits")
	}
	if _, ok := m.tlsKey(p.state, id); ok {
		return m.notDone(ctx, p, audit.KeyDelete, errTLSKey, id[:])
	}
	paired := false
	err := m.commit(ctx, func(ctx context.Context, tx store.Tx) ([]audit.Record, error) {
		if err := m.keys.Delete(ctx, tx, id); err != nil {
			return nil, err
		}
		var err error
		paired, err = m.dropPairing(ctx, tx, id)
		return []audit.Record{{Type: audit.KeyDelete, Who: p.who(), Arg: id[:]}}, err
	})
	m.keys.Forget(id) // also after an error, see KeyUpdate
	if paired {
		m.unpair(ctx, id, err) // so does this: the authenticator's tokens are dead from here on
	}
	if errors.Is(err, keyring.ErrUnknown) {
		return m.notDone(ctx, p, audit.KeyDelete, noSuchKey().Reason, id[:])
	}
	if err != nil {
		return err
	}
	// Not ended by a caller who hangs up: others share the work.
	if err := m.cfg.Store.Scrub(context.WithoutCancel(ctx)); err != nil {
		m.log.ErrorContext(ctx, "a key was deleted, and its sealed material may still stand in the store's write-ahead log; a restart removes it", "error", err)
		return err
	}
	return nil
}

// notDone records a change that was allowed and could not be made, and returns
// the refusal. kid is the key it was about, if there is one; more are records
// beside it.
func (m *Module) notDone(ctx context.Context, p *Pass, what audit.Type, why string, kid []byte, more ...audit.Record) error {
	recs := append([]audit.Record{{Type: what, Result: audit.Failed, Who: p.who(), Arg: kid}}, more...)
	if err := m.append(ctx, recs...); err != nil {
		return err
	}
	return api.ErrNotAcceptable.Because(why)
}
