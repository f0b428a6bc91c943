package main

import (
	"strings"

	"softhem/api"
)

// scopesInWords says what scopes open, in the order they are listed in. A scope
// that ends with a colon stands for all that begin with it.
func scopesInWords() []struct{ scope, words string } {
	return []struct{ scope, words string }{
		{api.ScopeSystemConfig, "read and change the configuration, reboot, shut down, upgrade, pair authenticators"},
		{api.ScopeSystemUpgrade, "upload, check and install upgrades, reboot"},
		{api.ScopeSystemShutdown, "shut down and reboot"},
		{api.ScopeExtPair, "pair authenticators, read the configuration, search keys"},
		{api.ScopeLoggerGet, "read the audit log and the configuration"},
		{api.ScopeKeyList, "list and search keys"},
		{api.ScopeKeySearch, "search keys"},
		{api.ScopeKeyGet, "read the attributes of keys"},
		{api.ScopeKeyGen, "create and derive keys, read their attributes"},
		{api.ScopeKeyImport, "import keys"},
		{api.ScopeKeyDerive, "derive keys"},
		{api.ScopeKeyUpdate, "change the attributes of keys"},
		{api.ScopeKeyDelete, "delete keys"},
		{api.ScopeKeyUse(""), "use the key named, and read its attributes"},
		{"storage:", "lock and unlock the disk named"},
	}
}

// scopeInWords says what a token of a scope opens, or "" for a scope it does
// not know. A module matches from the left, so a token for more text than a scope
// opens that scope too.
func scopeInWords(held string) string {
	for _, s := range scopesInWords() {
		if api.ScopeSatisfies(held, s.scope) && (held != s.scope || !strings.HasSuffix(s.scope, ":")) {
			return s.words
		}
	}
	return ""
}

// scopeNames are the scopes that are complete as they stand.
func scopeNames() (names []string) {
	for _, s := range scopesInWords() {
		names = append(names, s.scope+"\t"+s.words)
	}
	return names
}
