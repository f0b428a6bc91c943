package conformance

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"time"

	"softhem/api"
)

// diagGroup breaks a diagnostic build, and looks at what the protocol says of a
// broken module. It ends with the wipe that is open there, which is the only way
// out of a damaged repository.
func diagGroup() group {
	const spec = "api.md#diagnostics"
	lacking := func(w *walk) string {
		if !w.diag {
			return "the module is no diagnostic build, so nothing can be broken in it"
		}
		return ""
	}
	return group{name: "diag", title: "a diagnostic build, broken", phase: personal, lacking: lacking,
		after: func(s *step) {
			if s.walk.inited && s.statusNow().int("fls_state") != 0 {
				s.diagWipe()
			}
		},
		checks: []check{
			{"test", "The diagnostics answer, without a token", spec, func(s *step) {
				s.want(s.get("/api/diag/test", nil), 200)
			}},
			{"trng", "8192 random bytes, others each time", spec, func(s *step) {
				one := s.object(s.want(s.get("/api/diag/test_trng", nil), 200), "rnd:b64=8192").bytes("rnd")
				two := s.object(s.want(s.get("/api/diag/test_trng", nil), 200), "rnd:b64=8192").bytes("rnd")
				var counts [256]int
				for _, b := range one {
					counts[b]++
				}
				for b, n := range counts {
					if n > 100 { // 32 are to be expected
						s.failf("the byte %02x is there %d times", b, n)
					}
				}
				if bytes.Equal(one, two) {
					s.failf("they are the same twice")
				}
			}},
			{"memory", "A key lies where the list says, and is no longer there once deleted", spec, func(s *step) {
				kid := s.create(api.AES256, "memory")
				k := s.keysOf()[kid]
				if !k.has("_addr") || !k.has("_len") {
					s.failf("the list has no _addr and _len")
				}
				dump := func() []byte {
					path := fmt.Sprintf("/api/diag/memdump/%d/%d", k.int("_addr"), k.int("_len"))
					d := s.object(s.want(s.get(path, nil), 200), "address:int length:int dump:b64")
					if d.int("address") != k.int("_addr") || int64(len(d.bytes("dump"))) != k.int("_len") {
						s.failf("the dump is of another place, or of another length")
					}
					return d.bytes("dump")
				}
				before := dump()
				s.empty(s.deleteKey(kid), 200)
				if bytes.Equal(dump(), before) {
					s.failf("the bytes of a deleted key are still there")
				}
				for _, wrong := range []string{"0/0", "0/4096", "x/1", "0/x"} {
					s.want(s.get("/api/diag/memdump/"+wrong, nil), 400)
				}
			}},
			{"temperature", "Too hot is fail state 04 within a second: what counts is 409, the rest goes on", spec, func(s *step) {
				held := s.holdTokens()
				s.want(s.get("/api/diag/break_temp", nil), 200)
				s.latched(0x04, 5*time.Second)
				s.broken(held)
				s.reboot()
				s.healthy()
			}},
			{"entropy", "A broken source of random bytes is fail state 02 at its next test", spec, func(s *step) {
				s.holdTokens()
				token := s.as("any")
				s.object(s.want(s.get("/api/diag/break_trng", nil), 200), "mode:int last_ts:int last_val:int")
				if s.o.Accelerated {
					s.selftest(token) // which tests the source, too
				}
				s.latched(0x02, 40*time.Second)
				s.empty(s.get("/api/system/reboot", s.as(api.ScopeSystemConfig)), 200)
				s.rebooted()
				s.healthy()
			}},
			{"handshakes", "Broken TLS lets some handshakes through and others not, until a reboot", spec, func(s *step) {
				token := s.as(api.ScopeSystemConfig)
				s.want(s.get("/api/diag/break_tls", nil), 200)
				good, bad := 0, 0
				conf := &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, ServerName: s.host}
				for range 60 {
					if _, err := s.handshake(conf); err == nil {
						good++
					} else {
						bad++
					}
				}
				if good < 6 || bad < 6 {
					s.failf("of 60 handshakes %d succeeded and %d failed", good, bad)
				}
				for range 40 { // half of these do not get through
					if a, err := s.send(request{method: "GET", path: "/api/system/reboot", token: token}); err == nil {
						s.want(a, 200)
						break
					}
				}
				s.walk.silent = 0
				s.rebooted()
				for range 10 {
					if _, err := s.handshake(conf); err != nil {
						s.failf("after a reboot a handshake fails: %v", err)
					}
				}
			}},
			{"corruption", "A damaged key is fail state 08 at the next self-test, and again after a reboot", spec, func(s *step) {
				victim := s.create(api.AES128, "victim")
				at := s.keysOf()[victim].int("_addr")
				held := s.holdTokens()
				s.want(s.get("/api/diag/corrupt_repo/999999999", nil), 406)
				s.want(s.get("/api/diag/corrupt_repo/x", nil), 400)
				s.object(s.want(s.get(fmt.Sprintf("/api/diag/corrupt_repo/%d", at), nil), 200), "address:int status:str")
				s.selftest(s.as("any"))
				s.latched(0x08, time.Minute)
				s.broken(held)
				s.empty(s.get("/api/system/reboot", s.as(api.ScopeSystemConfig)), 200)
				s.rebooted()
				s.latched(0x08, 2*time.Minute)
			}},
			{"wipe", "The open wipe leaves a fresh module, blanks after its path or not", spec, func(s *step) {
				eid := s.eid
				s.diagWipe()
				s.clock()
				if s.object(s.want(s.get("/api/auth/init", nil), 200), initChallengeForm).str("eid") == eid {
					s.failf("the identity outlived the wipe")
				}
			}},
		}}
}

func (s *step) diagWipe() {
	s.want(s.get("/api/diag/wipe_config%20%20", nil), 200)
	s.wiped()
}

// held are tokens from before a module broke.
type held struct{ config, logger, gen, master *string }

func (s *step) holdTokens() held {
	return held{s.as(api.ScopeSystemConfig), s.as(api.ScopeLoggerGet), s.as(api.ScopeKeyGen), s.token(api.RoleMaster, api.ScopeSystemConfig)}
}

// latched waits for a fail state.
func (s *step) latched(bit int64, within time.Duration) {
	for begin := time.Now(); ; s.sleep(100 * time.Millisecond) {
		fls := s.statusNow().int("fls_state")
		if fls&bit != 0 {
			return
		}
		if time.Since(begin) > within {
			s.failf("fls_state is %02x after %v, and has no %02x", fls, within, bit)
		}
	}
}

// broken looks at what a module does in a fail state, with tokens from before.
func (s *step) broken(h held) {
	s.want(s.get("/api/auth/token", nil), 409)
	s.want(s.post("/api/auth/token", "{}", nil), 409)
	s.want(s.post("/api/keymgmt/create", claims{"label": "x", "type": api.AES128}, h.gen), 409)
	s.want(s.get("/api/keymgmt/list", h.gen), 409)
	s.want(s.post("/api/crypto/exdsa/sign", claims{"kid": noKID}, h.gen), 409)
	s.want(s.post("/api/auth/ext/init", "{}", h.config), 409)
	s.want(s.post("/api/system/config", claims{"ctx": 1}, h.config), 409)
	if s.ppa {
		s.want(s.get(pathAttestation, h.config), 409)
		s.want(s.get("/api/storage/unlock", h.config), 409)
		s.want(s.get("/api/logger/list", h.logger), 200)
	}
	s.want(s.get("/api/system/version", nil), 200)
	s.want(s.get("/api/system/config", h.config), 200)
	s.want(s.get("/api/system/config", h.master), 200)
	s.want(s.get("/api/logger/key", h.logger), 200)
	s.want(s.get("/api/system/selftest", h.logger), 200)
	if s.backend != nil {
		s.want(s.get("/api/system/checkin", nil), 200)
	}
}

// healthy wants no fail state, and work to be done.
func (s *step) healthy() {
	if fls := s.statusNow().int("fls_state"); fls != 0 {
		s.failf("after a reboot fls_state is %02x", fls)
	}
	s.want(s.get("/api/keymgmt/list", s.as(api.ScopeKeyList)), 200)
}
