package httpapi

import (
	"net/http"
	"strings"

	"softhem/api"
	"softhem/internal/module"
)

// A route ties a method and a path to an operation of the module. The table
// below is the whole API of this version; api_test.go walks it.
type route struct {
	method string
	// path has one segment {…} at most, its last, which matches one non-empty
	// segment and is handed to serve.
	path   string
	op     module.Op
	ppa    bool // only on the PPA form factor; elsewhere there is no such path
	closes bool // the connection is closed after a success
	serve  func(*call) (answer any, err error)
}

// maxJSONBody is the longest request body in bytes.
const maxJSONBody = 7300

func routes() []route {
	return []route{
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

		{method: "GET", path: "/api/system/version", op: module.OpVersion, serve: func(c *call) (any, error) {
			return c.module.Version(c.pass), nil
		}},
		{method: "GET", path: "/api/system/status", op: module.OpStatus, serve: func(c *call) (any, error) {
			return c.module.Status(c.pass), nil
		}},
		{method: "GET", path: "/api/system/checkin", op: module.OpCheckinStart, serve: func(c *call) (any, error) {
			return c.module.CheckinStart(c.pass)
		}},
		{method: "POST", path: "/api/system/checkin", op: module.OpCheckinFinish, serve: func(c *call) (any, error) {
			return decoded(c, c.module.CheckinFinish)
		}},
		{method: "GET", path: "/api/system/config", op: module.OpConfigGet, serve: func(c *call) (any, error) {
			return c.module.Config(c.pass), nil
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
			content, size, err := c.module.LoggerGet(c.ctx, c.pass, c.arg)
			return text{content, size}, err
		}},
	}
}

func (c *call) logList() (any, error) { return c.module.LoggerList(c.ctx, c.pass, c.arg) }

// A router finds routes. Paths are compared as they are: nothing is cleaned,
// nothing redirected.
type router struct {
	exact  map[string]map[string]*route // path -> method -> route
	prefix map[string]map[string]*route // path up to its {…} -> method -> route
}

func newRouter(profile module.Profile) *router {
	r := &router{exact: make(map[string]map[string]*route), prefix: make(map[string]map[string]*route)}
	for _, rt := range routes() {
		if rt.ppa && profile != module.PPA {
			continue
		}
		into, key := r.exact, rt.path
		if fixed, _, ok := strings.Cut(rt.path, "{"); ok {
			into, key = r.prefix, fixed
		}
		if into[key] == nil {
			into[key] = make(map[string]*route)
		}
		into[key][rt.method] = &rt
	}
	return r
}

// find returns the route of a request and the text of its {…}.
func (r *router) find(req *http.Request) (*route, string, error) {
	path := req.URL.Path
	if methods, ok := r.exact[path]; ok {
		return pick(methods, req.Method, "")
	}
	if i := strings.LastIndexByte(path, '/'); i >= 0 && i+1 < len(path) {
		if methods, ok := r.prefix[path[:i+1]]; ok {
			return pick(methods, req.Method, path[i+1:])
		}
	}
	return nil, "", api.ErrNotFound.Because("no such endpoint")
}

func pick(methods map[string]*route, method, arg string) (*route, string, error) {
	if rt := methods[method]; rt != nil {
		return rt, arg, nil
	}
	return nil, "", api.ErrNotFound.Because("no such method on this endpoint")
}
