package httpapi

import "softhem/internal/module"

// configUpdate serves POST /api/system/config, whose answers differ in form: the
// outcome as JSON, beside a 400 too; nothing from a fresh module; and after a
// wipe nothing, and no connection.
func (c *call) configUpdate() (any, error) {
	answer, err := decoded(c, c.module.ConfigUpdate)
	out, _ := answer.(module.ConfigOutcome)
	if err != nil {
		if out.Answer != nil {
			c.beside400 = out.Answer
		}
		return nil, err
	}
	if out.Wiped {
		return c.wiped(out), nil
	}
	if out.Answer == nil {
		return nil, nil
	}
	return out.Answer, nil
}

// wiped answers for a wipe: 200, no body, no connection, and a fresh module.
func (c *call) wiped(out module.ConfigOutcome) any {
	if out.Wiped {
		c.after = c.cfg.Wiped
		c.w.Header().Set("Connection", "close")
	}
	return nothing{}
}

// checkedIn serves the last leg of a check-in, after which the module may be
// gone, or not to be reached any more.
func (c *call) checkedIn() (any, error) {
	answer, err := decoded(c, c.module.CheckinFinish)
	if err != nil {
		return nil, err
	}
	out := answer.(module.CheckinOutcome)
	switch {
	case out.Wiped:
		c.after = c.cfg.Wiped
	case out.Blocked:
		c.after = c.cfg.Blocked
	}
	if c.after != nil {
		c.w.Header().Set("Connection", "close")
	}
	return out.Answer, nil
}
