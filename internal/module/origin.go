package module

import (
	"net/url"
	"strings"
)

// The CORS allow-list is one string of entries parted by commas or blanks:
//
//	*               every origin
//	*.domain.tld    every host below domain.tld, any scheme and port
//	https://host    this origin, scheme, host and port
//
// An empty list allows none.

// originAllowed tells whether list lets origin in.
func originAllowed(list, origin string) bool {
	for entry := range strings.FieldsFuncSeq(list, isListSeparator) {
		if entry == "*" || strings.EqualFold(entry, origin) {
			return true
		}
		if suffix, ok := strings.CutPrefix(entry, "*"); ok {
			u, err := url.Parse(origin)
			if err == nil && isOrigin(u) && hasSuffixFold(u.Hostname(), suffix) && len(u.Hostname()) > len(suffix) {
				return true
			}
		}
	}
	return false
}

// isOrigin tells whether u is scheme://host[:port] and nothing more.
func isOrigin(u *url.URL) bool {
	return u.Scheme != "" && u.Hostname() != "" && u.User == nil && u.Path == "" && u.RawQuery == "" && !u.ForceQuery && u.Fragment == ""
}

func hasSuffixFold(s, suffix string) bool {
	return len(s) >= len(suffix) && strings.EqualFold(s[len(s)-len(suffix):], suffix)
}

func isListSeparator(r rune) bool { return r == ',' || r == ' ' }

// validOrigins tells whether list can be a CORS allow-list.
func validOrigins(list string) bool {
	if len(list) > 1024 {
		return false
	}
	for entry := range strings.FieldsFuncSeq(list, isListSeparator) {
		if entry == "*" {
			continue
		}
		if domain, ok := strings.CutPrefix(entry, "*."); ok {
			if !validHostname(domain) {
				return false
			}
			continue
		}
		u, err := url.Parse(entry)
		if err != nil || !isOrigin(u) || u.String() != entry {
			return false
		}
	}
	return true
}
