package conformance

import (
	"softhem/api"
)

// wipeGroup ends the walk.
func wipeGroup() group {
	const spec = "api.md#post-apisystemconfig"
	var old struct {
		eid, instance string
		token, user   string
		proof         string
	}
	return group{name: "wipe", title: "the wipe", phase: personal, checks: []check{
		{"ok", "A wipe is answered 200 without a body, and the module is fresh after it", spec, func(s *step) {
			token := s.as(api.ScopeSystemConfig)
			conf := s.object(s.want(s.get("/api/system/config", token), 200), configForm(s.ppa))
			old.eid, old.instance, old.token = s.eid, conf.str("instanceid"), *token
			ch := s.challenge()
			old.proof = s.user.sign(personaHeader, s.proof(ch, api.RoleUser, "x"), ch.str("spk"))
			s.wipe()
			if st := s.statusNow(); st.has("tts") || st.int("fls_state") != 0 {
				s.failf("the module is fresh, and yet not as a fresh one")
			}
		}},
		{"refused", "What opened the old module opens nothing any more", spec, func(s *step) {
			if s.walk.inited {
				s.skipf("the module was not wiped")
			}
			s.clock()
			s.empty(s.get("/api/system/status", &old.token), 401)
			s.want(s.get("/api/auth/token", nil), 409)
			s.want(s.post("/api/auth/token", map[string]string{"auth": old.proof}, nil), 409)
			s.want(s.get("/api/keymgmt/list", nil), 409)
		}},
		{"identity", "The fresh module has another identity", spec, func(s *step) {
			if s.walk.inited {
				s.skipf("the module was not wiped")
			}
			if s.object(s.want(s.get("/api/auth/init", nil), 200), initChallengeForm).str("eid") == old.eid {
				s.failf("eid is what it was before the wipe")
			}
		}},
		{"empty", "Personalised again, it has neither keys nor the old owner's settings", spec, func(s *step) {
			if s.walk.inited {
				s.skipf("the module was not wiped")
			}
			s.personalise()
			list := s.object(s.want(s.get("/api/keymgmt/list", s.as(api.ScopeKeyList)), 200), pageForm)
			if list.int("total") != 0 || list.int("deleted") != 0 {
				s.failf("there are keys, or were")
			}
			conf := s.object(s.want(s.get("/api/system/config", s.as(api.ScopeSystemConfig)), 200), configForm(s.ppa))
			if conf.str("instanceid") == old.instance || conf.str("email") != "" {
				s.failf("the instance id, or a setting, outlived the wipe")
			}
			s.empty(s.get("/api/system/status", &old.token), 401)
			s.wipe()
		}},
	}}
}
