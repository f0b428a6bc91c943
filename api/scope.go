package api

import (
	"strconv"
	"strings"
)

// A Role is the claim "sub" of a bearer token: who the module takes the
// bearer for. Besides the two below it may be the base64 of the 16-byte key
// id of a paired authenticator.
type Role string

const (
	RoleUser   Role = "U" // the local user
	RoleMaster Role = "M" // the administrator
)

// Scopes. A token carries one, and opens the operations that ask for it.
const (
	ScopeSystemConfig   = "system:config"
	ScopeSystemUpgrade  = "system:upgrade"
	ScopeSystemShutdown = "system:shutdown"
	ScopeExtPair        = "auth:ext:pair"
	ScopeLoggerGet      = "logger:get"
	ScopeKeyList        = "keymgmt:list"
	ScopeKeySearch      = "keymgmt:search"
	ScopeKeyGet         = "keymgmt:get"
	ScopeKeyGen         = "keymgmt:gen"
	ScopeKeyImport      = "keymgmt:imp"
	ScopeKeyDerive      = "keymgmt:derive"
	ScopeKeyUpdate      = "keymgmt:upd"
	ScopeKeyDelete      = "keymgmt:del"
)

// ScopeDisks is what the scopes of all disks begin with, see ScopeDisk.
const ScopeDisks = "storage:disk"

// ScopeDisk is the scope of one disk, 0 or 1. With writable it opens unlocking
// for writing too.
func ScopeDisk(n int, writable bool) string {
	scope := ScopeDisks + strconv.Itoa(n)
	if writable {
		scope += diskWritable
	}
	return scope
}

const diskWritable = ":rw"

// DiskOf is the disk that a scope is for, and whether it may be written. What
// stands between the number and a last ":rw" is free text, as after any scope,
// but no digit: disk10 is not disk 1.
func DiskOf(scope string) (n int, writable, ok bool) {
	number, ok := strings.CutPrefix(scope, ScopeDisks)
	if !ok || number == "" || number[0] != '0' && number[0] != '1' || len(number) > 1 && number[1] >= '0' && number[1] <= '9' {
		return 0, false, false
	}
	return int(number[0] - '0'), strings.HasSuffix(scope, diskWritable), true
}

// Scopes lists the scopes above. Two families are open-ended and not among
// them: keymgmt:use:<kid> and storage:disk<N>[:rw].
func Scopes() []string {
	return []string{
		ScopeSystemConfig, ScopeSystemUpgrade, ScopeSystemShutdown, ScopeExtPair, ScopeLoggerGet,
		ScopeKeyList, ScopeKeySearch, ScopeKeyGet, ScopeKeyGen, ScopeKeyImport, ScopeKeyDerive, ScopeKeyUpdate, ScopeKeyDelete,
	}
}

// Limits of what a token request may ask for.
const (
	MaxScopeChars   = 127 // longest scope of a login
	MaxContextChars = 63  // longest ctx of a login
)

// ScopeKeyUse is the scope of every operation with one key. kid is 32 hex
// digits in either case.
func ScopeKeyUse(kid string) string { return "keymgmt:use:" + strings.ToLower(kid) }

// ScopeSatisfies tells whether a token whose scope is held opens an operation
// that wants required: held must start with it, literally.
func ScopeSatisfies(held, required string) bool { return strings.HasPrefix(held, required) }
