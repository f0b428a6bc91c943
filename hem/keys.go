package hem

import (
	"context"
	"fmt"
	"iter"
	"net/http"
	"strconv"
	"time"

	"softhem/api"
)

// A KeyInfo is a key in a list.
type KeyInfo struct {
	KID     KID
	Created time.Time
	Updated time.Time // moves forward with every change, by a second at least
	Traits  api.KeyTraits
	Label   string
	Descr   []byte // at most [api.MaxDescrBytes]; nil when there is none
}

// A KeyPage is a part of a list of keys, in order of creation.
type KeyPage struct {
	Offset  int // of the first key
	Total   int // keys in the whole list, or keys found
	Deleted int // keys deleted in this module so far; when it grows, keys may have moved to lower offsets
	Keys    []KeyInfo
}

// Last tells whether no page follows: the list ends here, or the page is empty.
func (p *KeyPage) Last() bool { return len(p.Keys) == 0 || p.Offset+len(p.Keys) >= p.Total }

// ListKeys lists at most count keys after skipping offset: GET
// /api/keymgmt/list/{offset}/{count}, scope keymgmt:list. A module gives at most
// [api.MaxPageKeys] at a time, which is also what a count of 0 asks for. [Client.AllKeys]
// lists all.
//
// Errors: those of [Client.Login]; [ErrArgument], 403 for the administrator.
func (c *Client) ListKeys(ctx context.Context, offset, count int) (*KeyPage, error) {
	const op = opList
	if offset < 0 || count < 0 {
		return nil, badArgument(op, "offset and count cannot be negative")
	}
	path := "/api/keymgmt/list"
	if offset > 0 || count > 0 {
		path += "/" + strconv.Itoa(offset)
	}
	if count > 0 {
		path += "/" + strconv.Itoa(count)
	}
	var list api.KeyList
	if err := c.getAs(ctx, op, path, api.ScopeKeyList, &list); err != nil {
		return nil, err
	}
	return readPage(op, "GET "+path, &list)
}

// AllKeys iterates over all keys in order of creation, asking for pages as it goes. Keys
// may be created and deleted meanwhile: every key that is there from beginning to end
// comes exactly once, others at most once. An error ends it and comes with a zero
// KeyInfo.
//
// Errors: those of [Client.ListKeys].
func (c *Client) AllKeys(ctx context.Context) iter.Seq2[KeyInfo, error] {
	return allPages(opList, func(offset int) (*KeyPage, error) { return c.ListKeys(ctx, offset, 0) })
}

// A KeySearch looks for keys by their description. Bytes are compared, not text.
type KeySearch struct {
	Descr  []byte // what to look for, 1 to [api.MaxDescrBytes] bytes
	Start  bool   // the description begins with Descr
	End    bool   // the description ends with it; with Start too, it equals it
	Offset int    // matches to skip
	Limit  int    // keys on the page; 0 or more than [api.MaxPageKeys] gives that many
}

func (s KeySearch) request(op string) (api.KeySearch, error) {
	if err := checkSize(op, "text to look for", s.Descr, api.MaxDescrBytes); err != nil {
		return api.KeySearch{}, err
	}
	if s.Offset < 0 || s.Limit < 0 {
		return api.KeySearch{}, badArgument(op, "offset and limit cannot be negative")
	}
	text := api.EncodeBase64(s.Descr)
	if s.Start {
		text = "^" + text
	}
	if s.End {
		text += "$"
	}
	return api.KeySearch{Descr: text, Offset: int64(s.Offset), Limit: int64(s.Limit)}, nil
}

const (
	opList     = "list the keys"
	opSearch   = "search for keys"
	pathSearch = "/api/keymgmt/search"
)

// SearchKeys lists keys by their description: POST /api/keymgmt/search, scope
// keymgmt:search, keymgmt:list or auth:ext:pair, whichever a token is at hand for, else
// the first. Finding none is no error.
//
// A Client without a credential asks without a token, which the module answers under the
// conditions of [Client.SearchKeysOpen].
//
// Errors: those of [Client.Login]; [ErrArgument], 403 for the administrator, 410 while
// the module is not ready to search.
func (c *Client) SearchKeys(ctx context.Context, s KeySearch) (*KeyPage, error) {
	body, err := s.request(opSearch)
	if err != nil {
		return nil, err
	}
	scope := c.heldScope(ctx, api.ScopeKeySearch, api.ScopeKeyList, api.ScopeExtPair)
	var list api.KeyList
	if err := c.postAs(ctx, opSearch, pathSearch, scope, body, &list); err != nil {
		return nil, err
	}
	return readPage(opSearch, "POST "+pathSearch, &list)
}

// SearchKeysOpen is [Client.SearchKeys] without a token, whatever the Client has. A
// module whose setting allow_keysearch is on answers it when Start is set and Descr has
// at least [api.MinOpenSearch] bytes; shorter ones are [ErrArgument].
//
// Errors: [ErrArgument], 401 when the setting is off, 409 when the module is not
// personalised or has failed, 410 as for [Client.SearchKeys].
func (c *Client) SearchKeysOpen(ctx context.Context, s KeySearch) (*KeyPage, error) {
	body, err := s.request(opSearch)
	if err != nil {
		return nil, err
	}
	if !s.Start || len(s.Descr) < api.MinOpenSearch {
		return nil, badArgument(opSearch, "without a token only the first %d bytes or more of a description can be looked for", api.MinOpenSearch)
	}
	var list api.KeyList
	if err := c.post(ctx, opSearch, pathSearch, body, &list); err != nil {
		return nil, err
	}
	return readPage(opSearch, "POST "+pathSearch, &list)
}

// AllMatches iterates over all keys that s finds, like [Client.AllKeys], after skipping
// s.Offset of them. s.Limit does not count.
//
// Errors: those of [Client.SearchKeys].
func (c *Client) AllMatches(ctx context.Context, s KeySearch) iter.Seq2[KeyInfo, error] {
	return allPages(opSearch, func(offset int) (*KeyPage, error) {
		page := s
		page.Offset, page.Limit = s.Offset+offset, 0
		p, err := c.SearchKeys(ctx, page)
		if err == nil {
			p.Total -= s.Offset
		}
		return p, err
	})
}

// readPage decodes a page. A module writes 32-bit times and counts its keys in millions;
// what is far beyond is no module's.
func readPage(op, path string, list *api.KeyList) (*KeyPage, error) {
	const most = 1 << 30
	if min(list.Offset, list.Total, list.Deleted) < 0 || max(list.Offset, list.Total) > most || list.Deleted > 1<<31-1 {
		return nil, badAnswer(op, path, "its counts cannot be")
	}
	p := &KeyPage{
		Offset: int(list.Offset), Total: int(list.Total), Deleted: int(list.Deleted),
		Keys: make([]KeyInfo, len(list.List)),
	}
	for i, k := range list.List {
		kid, err := ParseKID(k.KID)
		if err != nil {
			return nil, badAnswer(op, path, "key %d on the page has no kid", i)
		}
		descr, err := api.DecodeBase64(k.Descr)
		if err != nil {
			return nil, badAnswer(op, path, "descr of key %v is %w", kid, err)
		}
		p.Keys[i] = KeyInfo{
			KID: kid, Created: time.Unix(k.Created, 0), Updated: time.Unix(k.Updated, 0),
			Traits: api.ParseKeyTraits(k.Type), Label: k.Label, Descr: orNil(descr),
		}
	}
	return p, nil
}

func orNil(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	return b
}

// A Key is what a module tells of one key. There is never private material in it.
type Key struct {
	KID     KID
	Type    api.KeyType
	Public  []byte // of asymmetric keys, as on the wire; see [ParsePublic]
	DER     []byte // of certificates
	Updated time.Time
	Descr   []byte // nil when there is none; firmware 1.2.2 never tells it here
}

// GetKey reads one key: GET /api/keymgmt/get/{kid}, scope keymgmt:get, keymgmt:gen or
// keymgmt:use:<kid>, whichever a token is at hand for, else the first. A [Config.Token]
// with any of them does.
//
// Errors: those of [Client.Login]; 403 for the administrator, 406 when there is no such
// key.
func (c *Client) GetKey(ctx context.Context, kid KID) (*Key, error) {
	return c.getKey(ctx, kid, c.heldScope(ctx, api.ScopeKeyGet, kid.scopeUse(), api.ScopeKeyGen))
}

// getKey is GetKey with a given scope. Who is going to use the key reads it with the
// scope of using it, and logs in once instead of twice.
func (c *Client) getKey(ctx context.Context, kid KID, scope string) (*Key, error) {
	const op = "read a key"
	path := "/api/keymgmt/get/" + kid.String()
	var answer api.Key
	if err := c.getAs(ctx, op, path, scope, &answer); err != nil {
		return nil, err
	}
	k := &Key{KID: kid, Type: api.ParseKeyTraits(answer.Type).Type, Updated: time.Unix(answer.Updated, 0)}
	if k.Type == "" {
		return nil, badAnswer(op, http.MethodGet+" "+path, "no type in it")
	}
	for _, field := range []struct {
		name, text string
		to         *[]byte
	}{{"pubkey", answer.PubKey, &k.Public}, {"der", answer.DER, &k.DER}, {"descr", answer.Descr, &k.Descr}} {
		raw, err := api.DecodeBase64(field.text)
		if err != nil {
			return nil, badAnswer(op, http.MethodGet+" "+path, "%s is %w", field.name, err)
		}
		*field.to = orNil(raw)
	}
	return k, nil
}

// allPages iterates over a list that may change meanwhile. Pages are asked for by offset
// and new keys come at the end, so only a deletion moves a key, to a lower offset: it may
// then lie where pages have been read already, and would be missed.
//
// So every page overlaps the one before it by a key. What was seen is always a beginning
// of the list, as far as it still exists; a page that begins with a key seen before
// therefore continues it without a gap. Any other may have lost keys before it, and the
// page before is asked for again.
//
// It ends for any module: so many pages in a row that bring nothing new are more than
// going back to the beginning and forth again takes.
func allPages(op string, page func(offset int) (*KeyPage, error)) iter.Seq2[KeyInfo, error] {
	return func(yield func(KeyInfo, error) bool) {
		const most = 1 << 24 // keys; no module holds as many
		seen := make(map[KID]struct{})
		for offset, idle := 0, 0; ; {
			p, err := page(offset)
			if idle++; err == nil && (idle > 16+len(seen) || len(seen) > most) {
				err = &OpError{Op: op, Err: fmt.Errorf("%w: the pages of the list do not fit together", ErrProtocol)}
			}
			if err != nil {
				yield(KeyInfo{}, err)
				return
			}
			if offset > 0 && !beginsKnown(p, seen) {
				offset = max(0, offset-api.MaxPageKeys)
				continue
			}
			for _, k := range p.Keys {
				if _, again := seen[k.KID]; again {
					continue
				}
				seen[k.KID], idle = struct{}{}, 0
				if !yield(k, nil) {
					return
				}
			}
			// By what was asked for, not by what the answer says its offset is.
			n := len(p.Keys)
			if n == 0 || offset+n >= p.Total {
				return
			}
			offset += max(1, n-1)
		}
	}
}

func beginsKnown(p *KeyPage, seen map[KID]struct{}) bool {
	if len(p.Keys) == 0 {
		return false
	}
	_, known := seen[p.Keys[0].KID]
	return known
}
