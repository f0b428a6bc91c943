package httpapi

import (
	"net/url"

	"softhem/api"
)

// checkOrigin lets a web page in only from an origin of the allow-list, and
// says so to its browser.
func (c *call) checkOrigin() error {
	values := c.r.Header.Values("Origin")
	if len(values) == 0 {
		return nil
	}
	origin := values[0]
	allowed := len(values) == 1 && origin != "" && c.module.AllowsOrigin(origin)
	if c.cfg.LoopbackOnly && allowed {
		u, err := url.Parse(origin)
		allowed = err == nil && isLoopbackName(u.Host)
	}
	if !allowed {
		return api.ErrOrigin.Because("this origin is not in the module's allow-list")
	}
	c.w.Header().Set("Access-Control-Allow-Origin", origin)
	c.w.Header().Set("Access-Control-Expose-Headers", api.HeaderError+", "+api.HeaderBroker+", Retry-After")
	return nil
}

// nameBroker tells clients where the broker is. It is a header because the bodies
// are those of the device, which has none to name.
func (c *call) nameBroker() {
	if c.cfg.Broker != "" {
		c.w.Header().Set(api.HeaderBroker, c.cfg.Broker)
	}
}

// preflight answers OPTIONS.
func (c *call) preflight() {
	h := c.w.Header()
	h.Set("Access-Control-Allow-Methods", "GET, POST, DELETE, OPTIONS")
	h.Set("Access-Control-Allow-Headers", "Content-Type, Cache-Control, Pragma, Expires, Authorization, Content-Disposition")
	h.Set("Access-Control-Max-Age", "86400")
	h.Set("Access-Control-Allow-Credentials", "true")
}
