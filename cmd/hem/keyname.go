package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"softhem/api"
	"softhem/hem"
)

// minPrefix is how many hex digits may stand for a kid.
const minPrefix = 4

// labelPrefix says that what follows is a label, whatever it looks like.
const labelPrefix = "label:"

// helpNames is the part of the help that all commands with a KEY share.
const helpNames = `KEY is a full kid, the first 4 or more hex digits of one, or a label, letter by letter. 32 hex
digits are always a kid. Any other name is looked up in the list of keys, which needs a token
for keymgmt:list, and must fit one key alone: labels and beginnings of kids count alike, so
what is the label of one key and begins the kid of another is refused, like a label that two
keys have. label:NAME is the label NAME and nothing else.`

// A nameError is a name that stands for no key, or for several.
type nameError struct {
	text string
	code int
}

func (e *nameError) Error() string { return e.text }

// A namedKey is a key that was named. Of a key named by its full kid, nothing
// else need be known.
type namedKey struct {
	hem.KeyInfo
	known bool // the attributes, from the list
}

func (k namedKey) String() string {
	if !k.known {
		return k.KID.String()
	}
	return fmt.Sprintf("%v (%s, %s)", k.KID, clean(string(k.Traits.Type)), clean(k.Label))
}

// keyUse is what a command wants of the keys it was given.
type keyUse struct {
	names      []string
	attributes bool                 // look up full kids, too, to know their attributes
	scope      func(hem.KID) string // of what is done with the first key; for advice
}

// useKey is for commands that use the key, and perhaps a peer that is in the module.
func useKey(names ...string) keyUse {
	return keyUse{names: names, scope: func(kid hem.KID) string { return api.ScopeKeyUse(kid.String()) }}
}

func always(scope string) func(hem.KID) string { return func(hem.KID) string { return scope } }

// withKeys finds the keys and has do talk to the module, like with.
func (o *options) withKeys(ctx context.Context, u keyUse, do func(*hem.Client, []namedKey) error) error {
	scope, looking := api.ScopeKeyList, true
	err := o.with(ctx, need{scope: scope}, func(m *hem.Client) error {
		keys, err := o.findKeys(ctx, m, u)
		if err != nil {
			return err
		}
		scope, looking = u.scope(keys[0].KID), false
		return do(m, keys)
	})
	if where, ok := errors.AsType[*clientError](err); ok {
		where.scope, where.lookup = scope, looking
	}
	return err
}

// A keyName is a name as it was given.
type keyName struct {
	text   string
	kid    hem.KID
	isKID  bool
	label  string // "" if it can be none
	prefix string // of a kid; "" if it can be none
	found  []hem.KeyInfo
}

func parseKeyName(text string) keyName {
	n := keyName{text: text, label: text}
	if label, ok := strings.CutPrefix(text, labelPrefix); ok {
		n.label = label
		return n
	}
	if kid, err := hem.ParseKID(text); err == nil {
		return keyName{text: text, kid: kid, isKID: true}
	}
	if lower := strings.ToLower(text); len(text) >= minPrefix && strings.Trim(lower, "0123456789abcdef") == "" {
		n.prefix = lower
	}
	return n
}

func (n *keyName) fits(k hem.KeyInfo) bool {
	if n.isKID {
		return k.KID == n.kid
	}
	return n.label != "" && k.Label == n.label || n.prefix != "" && strings.HasPrefix(k.KID.String(), n.prefix)
}

// findKeys looks the keys up, reading the list as far as need be. Names that are not kids take
// all of it: only then it is known that nothing else has them.
func (o *options) findKeys(ctx context.Context, m *hem.Client, u keyUse) ([]namedKey, error) {
	names := make([]keyName, len(u.names))
	unknown, all := 0, false
	for i, text := range u.names {
		names[i] = parseKeyName(text)
		if !names[i].isKID {
			all = true
		}
		if !names[i].isKID || u.attributes {
			unknown++
		}
	}
	if unknown > 0 {
		count := o.progress.count("looking through the keys, %d so far")
		for k, err := range m.AllKeys(ctx) {
			if err != nil {
				return nil, err
			}
			count.add(1)
			for i := range names {
				if names[i].fits(k) {
					names[i].found = append(names[i].found, k)
					unknown--
				}
			}
			if !all && unknown == 0 {
				break
			}
		}
	}
	keys := make([]namedKey, len(names))
	for i, n := range names {
		switch {
		case len(n.found) == 1:
			keys[i] = namedKey{n.found[0], true}
		case len(n.found) > 1:
			return nil, n.ambiguous()
		case n.isKID && !u.attributes:
			keys[i].KID = n.kid
		case n.isKID:
			return nil, &nameError{fmt.Sprintf("no key has the kid %v; see: hem key list", n.kid), exitNotFound}
		case n.text == "":
			return nil, &usageError{"hem", "the name of the key is empty"}
		default:
			return nil, &nameError{n.missing(), exitNotFound}
		}
	}
	return keys, nil
}

func (n *keyName) missing() string {
	text := fmt.Sprintf("no key has the label %q", clean(n.label))
	if n.prefix != "" {
		text += " or a kid that begins so"
	} else if strings.Trim(strings.ToLower(n.text), "0123456789abcdef") == "" {
		text += fmt.Sprintf(", and a kid wants %d digits at least", minPrefix)
	}
	return text + "; see: hem key list"
}

// ambiguous lists whom a name fits.
func (n *keyName) ambiguous() error {
	const most = 10
	var b strings.Builder
	fmt.Fprintf(&b, "%q fits %d keys; name one by its kid:", clean(n.text), len(n.found))
	for i, k := range n.found {
		if i == most {
			b.WriteString("\n  ...")
			break
		}
		fmt.Fprintf(&b, "\n  %v  %-10s  %s", k.KID, clean(string(k.Traits.Type)), clean(k.Label))
	}
	return &nameError{b.String(), exitUsage}
}

// typeOf is the type of a key. It asks with the token that the key is going to
// be used with, so that one login does.
func typeOf(ctx context.Context, m *hem.Client, k namedKey) (api.KeyType, error) {
	if k.known {
		return k.Traits.Type, nil
	}
	key, err := readToUse(ctx, m, k.KID)
	if err != nil {
		return "", err
	}
	return key.Type, nil
}

func readToUse(ctx context.Context, m *hem.Client, kid hem.KID) (*hem.Key, error) {
	if _, err := m.Login(ctx, api.ScopeKeyUse(kid.String())); err != nil {
		return nil, err
	}
	return m.GetKey(ctx, kid)
}

// A count tells how far something has got, once it takes long.
type count struct {
	p      *progress
	format string
	n      int64
	next   time.Time // when to tell
}

// count shows the number that goes into format.
func (p *progress) count(format string) *count {
	return &count{p: p, format: format, next: time.Now().Add(patience)}
}

func (c *count) add(n int64) {
	c.n += n
	if now := time.Now(); now.After(c.next) {
		c.p.say(fmt.Sprintf(c.format, c.n))
		c.next = now.Add(patience / 5)
	}
}
