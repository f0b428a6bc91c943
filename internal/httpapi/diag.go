package httpapi

import (
	"net/url"
	"strings"

	"softhem/api"
	"softhem/internal/module"
)

// diagRoutes are those of a diagnostic build. Open and GET as they are, any page in
// a browser on this host could call them; checkDiag keeps it from that.
func diagRoutes() []route {
	return []route{
		{method: "GET", ppa: true, path: "/api/diag/test", op: module.OpDiagTest, serve: func(c *call) (any, error) {
			c.module.DiagTest(c.pass)
			return nil, nil
		}},
		{method: "GET", ppa: true, path: "/api/diag/test_trng", op: module.OpDiagTRNG, serve: func(c *call) (any, error) {
			return c.module.DiagTRNG(c.pass), nil
		}},
		{method: "GET", ppa: true, path: "/api/diag/break_temp", op: module.OpDiagBreakTemp, serve: func(c *call) (any, error) {
			return nil, c.module.DiagBreakTemp(c.ctx, c.pass)
		}},
		{method: "GET", ppa: true, path: "/api/diag/break_tls", op: module.OpDiagBreakTLS, serve: func(c *call) (any, error) {
			return nil, c.module.DiagBreakTLS(c.ctx, c.pass)
		}},
		{method: "GET", ppa: true, path: "/api/diag/break_trng", op: module.OpDiagBreakTRNG, serve: func(c *call) (any, error) {
			return c.module.DiagBreakTRNG(c.ctx, c.pass)
		}},
		{method: "GET", ppa: true, path: "/api/diag/disable_selftest", op: module.OpDiagDisableSelfTest, serve: func(c *call) (any, error) {
			return nil, c.module.DiagDisableSelfTest(c.ctx, c.pass)
		}},
		{method: "GET", ppa: true, path: "/api/diag/memdump/{address}/{length}", op: module.OpDiagMemory, serve: func(c *call) (any, error) {
			return c.module.DiagMemory(c.ctx, c.pass, c.args[0], c.args[1])
		}},
		{method: "GET", ppa: true, path: "/api/diag/corrupt_repo/{address}", op: module.OpDiagCorrupt, serve: func(c *call) (any, error) {
			return c.module.DiagCorrupt(c.ctx, c.pass, c.args[0])
		}},
		{method: "GET", ppa: true, path: "/api/diag/wipe_config", op: module.OpDiagWipe, blanks: true, serve: func(c *call) (any, error) {
			out, err := c.module.DiagWipe(c.ctx, c.pass)
			return c.wiped(out), err
		}},
	}
}

// diagPrefix begins the paths of the diagnostics.
const diagPrefix = "/api/diag/"

// checkDiag lets only programs and pages of this host reach the diagnostics,
// whatever the allow-list of origins says: a name that is not loopback may be
// one a web page had bound to loopback, and an image or a link to these paths
// comes without an origin, but with a browser's word for where it stands.
func (c *call) checkDiag(rt *route) error {
	if !strings.HasPrefix(rt.path, diagPrefix) {
		return nil
	}
	header := c.r.Header
	if site := header.Get("Sec-Fetch-Site"); header.Get("Origin") == "" && site != "" && site != "none" && site != "same-origin" {
		return api.ErrOrigin.Because("diagnostics are not for other pages")
	}
	if c.cfg.DiagRemote {
		return nil
	}
	if !isLoopbackName(c.r.Host) {
		return api.ErrNotFound.Because("diagnostics answer to loopback names only")
	}
	if origin := header.Get("Origin"); origin != "" {
		u, err := url.Parse(origin)
		if err != nil || !isLoopbackName(u.Host) {
			return api.ErrOrigin.Because("diagnostics are not for pages of other hosts")
		}
	}
	return nil
}
