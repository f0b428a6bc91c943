package httpapi

import (
	"net/http"
	"strings"

	"softhem/api"
	"softhem/internal/module"
)

// A route ties a method and a path to an operation of the module. The table
// below is the whole API of this version, with upgrade.go, but for diag.go; api_test.go
// walks it.
type route struct {
	method string
	// path has at most two segments {…}, its last ones, each of which matches
	// one non-empty segment and is handed to serve.
	path   string
	op     module.Op
	ppa    bool // only on the PPA form factor; elsewhere there is no such path
	closes bool // the connection is closed after a success
	blanks bool // blanks may follow the path
	// maxBody is the longest body in bytes, if not maxJSONBody.
	maxBody int64
	serve   func(*call) (answer any, err error)
}

// maxJSONBody is the longest request body in bytes.
const maxJSONBody = 7300

func routes() []route {
	return append(upgradeRoutes(), []route{
		{method: "GET", path: "/api/auth/token", op: module.OpChallenge, serve: func(c *call) (any, error) {
			return c.module.Challenge(c.pass), nil
		}},
		{method: "POST", path: "/api/auth/token", op: module.OpLogin, serve: func(c *call) (any, error) {
			return decoded(c, c.module.Login)
		}},
		{method: "GET", path: "/api/auth/init", op: module.OpInitChallenge, serve: func(c *call) (any, error) {
			return c.module.InitChallenge(c.pass), nil
		}},
		{method: "POST", path: "/api/auth/init", op: module.OpInit, serve: func(c *call) (any, error) {
			return decoded(c, c.module.Init)
		}},
		{method: "POST", path: "/api/auth/ext/init", op: module.OpExtInit, serve: func(c *call) (any, error) {
			return decoded(c, c.module.ExtInit)
		}},
		{method: "POST", path: "/api/auth/ext/validate", op: module.OpExtValidate, serve: func(c *call) (any, error) {
			return decoded(c, c.module.ExtValidate)
		}},
		{method: "POST", path: "/api/auth/ext/mac", op: module.OpExtMAC, serve: func(c *call) (any, error) {
			return decoded(c, c.module.ExtMAC)
		}},
		{method: "POST", path: "/api/auth/ext/request", op: module.OpExtRequest, serve: func(c *call) (any, error) {
			return decoded(c, c.module.ExtRequest)
		}},
		{method: "POST", path: "/api/auth/ext/token", op: module.OpExtToken, serve: func(c *call) (any, error) {
			return decoded(c, c.module.ExtToken)
		}},

		{method: "GET", path: "/api/system/version", op: module.OpVersion, serve: func(c *call) (any, error) {
			c.nameBroker()
			return c.module.Version(c.pass), nil
		}},
		{method: "GET", path: "/api/system/status", op: module.OpStatus, serve: func(c *call) (any, error) {
			return c.module.Status(c.pass), nil
		}},
		{method: "GET", path: "/api/system/checkin", op: module.OpCheckinStart, serve: func(c *call) (any, error) {
			return c.module.CheckinStart(c.pass)
		}},
		{method: "POST", path: "/api/system/checkin", op: module.OpCheckinFinish, serve: func(c *call) (any, error) {
			return c.checkedIn()
		}},
		{method: "GET", path: "/api/system/config", op: module.OpConfigGet, serve: func(c *call) (any, error) {
			return c.module.Config(c.pass), nil
		}},
		{method: "POST", path: "/api/system/config", op: module.OpConfigUpdate, serve: (*call).configUpdate},
		{method: "GET", path: "/api/system/config/attestation", op: module.OpAttestation, ppa: true, serve: func(c *call) (any, error) {
			return c.module.Attestation(c.pass)
		}},
		{method: "POST", path: "/api/system/config/provisioning", op: module.OpProvision, ppa: true, serve: func(c *call) (any, error) {
			return confirmed(c, c.module.Provision)
		}},
		{method: "GET", path: "/api/system/selftest", op: module.OpSelfTest, serve: func(c *call) (any, error) {
			return c.module.SelfTest(c.ctx, c.pass)
		}},
		{method: "GET", path: "/api/system/reboot", op: module.OpReboot, closes: true, serve: func(c *call) (any, error) {
			return nothing{}, c.module.Reboot(c.ctx, c.pass)
		}},
		{method: "GET", path: "/api/system/shutdown", op: module.OpShutdown, closes: true, serve: func(c *call) (any, error) {
			err := c.module.Shutdown(c.ctx, c.pass)
			if err == nil {
				c.after = c.shutdown
			}
			return nothing{}, err
		}},

		{method: "GET", path: "/api/logger/key", op: module.OpLoggerKey, serve: func(c *call) (any, error) {
			return c.module.LoggerKey(c.pass), nil
		}},
		{method: "GET", path: "/api/logger/list", op: module.OpLoggerList, ppa: true, serve: (*call).logList},
		{method: "GET", path: "/api/logger/list/{offset}", op: module.OpLoggerList, ppa: true, serve: (*call).logList},
		{method: "GET", path: "/api/logger/{id}", op: module.OpLoggerGet, ppa: true, serve: func(c *call) (any, error) {
			content, size, err := c.module.LoggerGet(c.ctx, c.pass, c.args[0])
			return text{content, size}, err
		}},

		{method: "GET", path: "/api/logger/checkpoint", op: module.OpLoggerCheckpoint, serve: func(c *call) (any, error) {
			return plain(c.module.LoggerCheckpoint(c.ctx, c.pass))
		}},
		{method: "GET", path: "/api/logger/tail/{leaf}", op: module.OpLoggerTail, ppa: true, serve: func(c *call) (any, error) {
			return plain(c.module.LoggerTail(c.ctx, c.pass, c.args[0]))
		}},

		{method: "GET", path: "/api/storage/unlock", op: module.OpStorageUnlock, ppa: true, serve: func(c *call) (any, error) {
			return nothing{}, c.module.StorageUnlock(c.ctx, c.pass, module.UnlockAsScoped)
		}},
		{method: "GET", path: "/api/storage/unlock/rw", op: module.OpStorageUnlock, ppa: true, serve: func(c *call) (any, error) {
			return nothing{}, c.module.StorageUnlock(c.ctx, c.pass, module.UnlockWritable)
		}},
		{method: "GET", path: "/api/storage/unlock/ro", op: module.OpStorageUnlock, ppa: true, serve: func(c *call) (any, error) {
			return nothing{}, c.module.StorageUnlock(c.ctx, c.pass, module.UnlockReadOnly)
		}},
		{method: "GET", path: "/api/storage/lock", op: module.OpStorageLock, ppa: true, serve: func(c *call) (any, error) {
			return nothing{}, c.module.StorageLock(c.ctx, c.pass)
		}},

		{method: "GET", path: "/api/keymgmt/list", op: module.OpKeyList, serve: (*call).keyList},
		{method: "GET", path: "/api/keymgmt/list/{offset}", op: module.OpKeyList, serve: (*call).keyList},
		{method: "GET", path: "/api/keymgmt/list/{offset}/{count}", op: module.OpKeyList, serve: (*call).keyList},
		{method: "POST", path: "/api/keymgmt/search", op: module.OpKeySearch, serve: func(c *call) (any, error) {
			answer, err := decoded(c, c.module.KeySearch)
			if err == error(errUnreadable) { // not errors.Is: that is every 400
				err = c.module.SearchUnreadable(c.pass, err)
			}
			return answer, err
		}},
		{method: "GET", path: "/api/keymgmt/get/{kid}", op: module.OpKeyGet, serve: func(c *call) (any, error) {
			return c.module.KeyGet(c.ctx, c.pass, c.args[0])
		}},
		{method: "POST", path: "/api/keymgmt/create", op: module.OpKeyCreate, serve: func(c *call) (any, error) {
			return decoded(c, c.module.KeyCreate)
		}},
		{method: "POST", path: "/api/keymgmt/import", op: module.OpKeyImport, serve: func(c *call) (any, error) {
			return decoded(c, c.module.KeyImport)
		}},
		{method: "POST", path: "/api/keymgmt/derive", op: module.OpKeyDerive, serve: func(c *call) (any, error) {
			return decoded(c, c.module.KeyDerive)
		}},
		{method: "POST", path: "/api/keymgmt/update", op: module.OpKeyUpdate, serve: func(c *call) (any, error) {
			return confirmed(c, c.module.KeyUpdate)
		}},
		{method: "DELETE", path: "/api/keymgmt/delete/{kid}", op: module.OpKeyDelete, serve: func(c *call) (any, error) {
			return nil, c.module.KeyDelete(c.ctx, c.pass, c.args[0])
		}},

		{method: "POST", path: "/api/crypto/hmac/hash", op: module.OpHMACHash, serve: func(c *call) (any, error) {
			return decoded(c, c.module.HMACHash)
		}},
		{method: "POST", path: "/api/crypto/hmac/verify", op: module.OpHMACVerify, serve: func(c *call) (any, error) {
			return confirmed(c, c.module.HMACVerify)
		}},
		{method: "POST", path: "/api/crypto/exdsa/sign", op: module.OpSign, serve: func(c *call) (any, error) {
			return decoded(c, c.module.Sign)
		}},
		{method: "POST", path: "/api/crypto/exdsa/verify", op: module.OpVerify, serve: func(c *call) (any, error) {
			return confirmed(c, c.module.Verify)
		}},
		{method: "POST", path: "/api/crypto/cipher/encrypt", op: module.OpEncrypt, serve: func(c *call) (any, error) {
			return decoded(c, c.module.Encrypt)
		}},
		{method: "POST", path: "/api/crypto/cipher/decrypt", op: module.OpDecrypt, serve: func(c *call) (any, error) {
			return decoded(c, c.module.Decrypt)
		}},
		{method: "POST", path: "/api/crypto/cipher/wrap", op: module.OpWrap, serve: func(c *call) (any, error) {
			return decoded(c, c.module.Wrap)
		}},
		{method: "POST", path: "/api/crypto/cipher/unwrap", op: module.OpUnwrap, serve: func(c *call) (any, error) {
			return decoded(c, c.module.Unwrap)
		}},
		{method: "POST", path: "/api/crypto/ecdh", op: module.OpECDH, serve: func(c *call) (any, error) {
			return decoded(c, c.module.ECDH)
		}},
		{method: "POST", path: "/api/crypto/pqc/mlkem/encaps", op: module.OpEncapsulate, serve: func(c *call) (any, error) {
			return decoded(c, c.module.Encapsulate)
		}},
		{method: "POST", path: "/api/crypto/pqc/mlkem/decaps", op: module.OpDecapsulate, serve: func(c *call) (any, error) {
			return decoded(c, c.module.Decapsulate)
		}},
		{method: "POST", path: "/api/crypto/pqc/mldsa/sign", op: module.OpMLDSASign, serve: func(c *call) (any, error) {
			return decoded(c, c.module.MLDSASign)
		}},
		{method: "POST", path: "/api/crypto/pqc/mldsa/verify", op: module.OpMLDSAVerify, serve: func(c *call) (any, error) {
			return confirmed(c, c.module.MLDSAVerify)
		}},
	}...)
}

func (c *call) logList() (any, error) { return c.module.LoggerList(c.ctx, c.pass, c.args[0]) }

func (c *call) keyList() (any, error) {
	return c.module.KeyList(c.ctx, c.pass, c.args[0], c.args[1])
}

// A router finds routes. Paths are compared as they are: nothing is cleaned,
// nothing redirected.
type router struct {
	routes map[routeKey]map[string]*route // -> method -> route
	blanks map[string]bool                // paths that blanks may follow
}

// A routeKey is a path up to its first {…}, and how many of those there are.
type routeKey struct {
	fixed string
	args  int
}

// routeArgs are the texts of a path's {…}, empty where it has fewer.
type routeArgs [2]string

func newRouter(profile module.Profile, diag bool) *router {
	r := &router{make(map[routeKey]map[string]*route), make(map[string]bool)}
	all := routes()
	if diag {
		all = append(all, diagRoutes()...)
	}
	for _, rt := range all {
		if rt.ppa && profile != module.PPA {
			continue
		}
		fixed, _, _ := strings.Cut(rt.path, "{")
		key := routeKey{fixed, strings.Count(rt.path, "{")}
		if r.routes[key] == nil {
			r.routes[key] = make(map[string]*route)
		}
		r.routes[key][rt.method] = &rt
		if rt.blanks {
			r.blanks[rt.path] = true
		}
	}
	return r
}

// find returns the route of a request and the texts of its {…}. The route with
// the fewest of them wins.
//
// A path that spells a letter or a slash as %XX is no other spelling of an
// endpoint: whoever filters paths in front of the module would take it for another one.
func (r *router) find(req *http.Request) (*route, routeArgs, error) {
	fixed, args := req.URL.Path, routeArgs{}
	if req.URL.RawPath != "" { // not the one way to write Path
		return nil, args, api.ErrNotFound.Because("no such endpoint; paths are not percent-encoded")
	}
	if bare := strings.TrimRight(fixed, " "); r.blanks[bare] {
		fixed = bare
	}
	for n := 0; ; n++ {
		if methods, ok := r.routes[routeKey{fixed, n}]; ok {
			if rt := methods[req.Method]; rt != nil {
				return rt, args, nil
			}
			return nil, args, api.ErrNotFound.Because("no such method on this endpoint")
		}
		last := strings.LastIndexByte(strings.TrimSuffix(fixed, "/"), '/')
		if n == len(args) || last < 0 {
			return nil, args, api.ErrNotFound.Because("no such endpoint")
		}
		segment := strings.TrimSuffix(fixed[last+1:], "/")
		if segment == "" || n == 0 && strings.HasSuffix(fixed, "/") {
			return nil, args, api.ErrNotFound.Because("no such endpoint")
		}
		fixed, args[1], args[0] = fixed[:last+1], args[0], segment
	}
}
