package conformance

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"softhem/api"
)

// An object is a JSON object of an answer whose fields have been looked at.
type object map[string]any

// object reads the answer as an object with the fields that form names, parted by
// blanks:
//
//	name:kind    has to be there
//	name?:kind   may be there
//
// and kind is int, bool, str, list, obj, b64 (any length), b64=N (N bytes),
// hex=N (N digits, lower case), or true or false (that very value). Fields that
// form does not name are wrong in a SoftHEM; another module may have more.
func (s *step) object(a *answer, form string) object {
	o, err := parseObject(a.body)
	if err != nil {
		s.failAt(a, "the body is no JSON object: %v", err)
	}
	if why := o.fits(form, s.softhem); why != "" {
		s.failAt(a, "%s", why)
	}
	return o
}

func parseObject(raw []byte) (object, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var o object
	if err := dec.Decode(&o); err != nil {
		return nil, err
	}
	if o == nil {
		return nil, fmt.Errorf("it is null")
	}
	return o, nil
}

// fits says what is wrong with the object, or nothing.
func (o object) fits(form string, strict bool) string {
	var named []string
	for _, f := range strings.Fields(form) {
		name, kind, _ := strings.Cut(f, ":")
		name, optional := strings.CutSuffix(name, "?")
		named = append(named, name)
		v, here := o[name]
		if !here && !optional {
			return fmt.Sprintf("the field %s is missing", name)
		}
		if here {
			if why := isKind(v, kind); why != "" {
				return fmt.Sprintf("the field %s %s", name, why)
			}
		}
	}
	if strict {
		for name := range o {
			if !slices.Contains(named, name) {
				return fmt.Sprintf("the field %s is none of the documented ones", name)
			}
		}
	}
	return ""
}

func isKind(v any, kind string) string {
	kind, size, sized := strings.Cut(kind, "=")
	n, _ := strconv.Atoi(size)
	text, isText := v.(string)
	switch kind {
	case "int":
		number, ok := v.(json.Number)
		if _, err := number.Int64(); !ok || err != nil {
			return "is no whole number"
		}
	case "bool":
		if _, ok := v.(bool); !ok {
			return "is neither true nor false"
		}
	case "true", "false":
		if v != (kind == "true") {
			return "is not " + kind
		}
	case "list":
		if _, ok := v.([]any); !ok {
			return "is no list"
		}
	case "obj":
		if _, ok := v.(map[string]any); !ok {
			return "is no object"
		}
	case "str":
		if !isText {
			return "is no text"
		}
	case "b64":
		raw, err := api.DecodeBase64(text)
		if !isText || err != nil || api.EncodeBase64(raw) != text {
			return "is no standard base64 with padding"
		}
		if sized && len(raw) != n {
			return fmt.Sprintf("has %d bytes, not %d", len(raw), n)
		}
	case "hex":
		raw, err := hex.DecodeString(text)
		if !isText || err != nil || hex.EncodeToString(raw) != text {
			return "is not hex in lower case"
		}
		if sized && len(text) != n {
			return fmt.Sprintf("has %d hex digits, not %d", len(text), n)
		}
	default:
		panic("conformance: no such kind: " + kind)
	}
	return ""
}

func (o object) str(name string) string { s, _ := o[name].(string); return s }

func (o object) int(name string) int64 {
	n, _ := o[name].(json.Number)
	i, _ := n.Int64()
	return i
}

func (o object) bool(name string) bool { b, _ := o[name].(bool); return b }

func (o object) has(name string) bool { _, ok := o[name]; return ok }

// bytes is a base64 field; nil when it is none.
func (o object) bytes(name string) []byte {
	raw, err := api.DecodeBase64(o.str(name))
	if err != nil {
		return nil
	}
	return raw
}

// objects is a list of objects; what is no object is left out.
func (o object) objects(name string) []object {
	list, _ := o[name].([]any)
	var all []object
	for _, v := range list {
		if m, ok := v.(map[string]any); ok {
			all = append(all, m)
		}
	}
	return all
}

func (o object) strings(name string) []string {
	list, _ := o[name].([]any)
	var all []string
	for _, v := range list {
		if text, ok := v.(string); ok {
			all = append(all, text)
		}
	}
	return all
}
