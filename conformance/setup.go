package conformance

import (
	"encoding/hex"
	"io"
	"net/http"
	"strings"
	"time"

	"softhem/api"
)

const statusForm = "inited?:false https:bool hostname?:str tts?:false ctx:int uptime:int ts?:str time?:int " +
	"storage?:list format?:str temp:int fls_state:int fw_upgrade?:true"

// clock has the module know the time.
func (s *step) clock() {
	if st := s.statusNow(); st.has("time") {
		return
	}
	switch {
	case s.backend != nil:
		s.checkIn(nil)
	case s.o.BackendURL != "":
		s.relay()
	default:
		s.failf("the module's clock is not set, and there is no backend to set it with")
	}
}

// check asks for the first leg of a check-in.
func (s *step) check() (text string, c object) {
	text = s.object(s.want(s.get("/api/system/checkin", nil), 200), "check:str").str("check")
	_, c, err := openJWS(text, nil)
	s.must(err, "check")
	return text, c
}

// checked are the claims of a backend's answer, for no action, at this moment.
func (s *step) checked(c object) claims {
	return claims{
		"jti": c.str("jti"), "iat": time.Now().Unix(), "iss": s.backend.public(), "aud": c.str("iss"),
		"status": api.EncodeBase64(mac(c.bytes("qid"), []byte("OK"))),
	}
}

// checkIn does a whole check-in as the backend. edit may change what it answers.
func (s *step) checkIn(edit func(check object, c claims) claims) object {
	_, c := s.check()
	answer := s.checked(c)
	if edit != nil {
		answer = edit(c, answer)
	}
	a := s.post("/api/system/checkin", map[string]string{"checked": s.backend.sign(backendHeader, answer, c.str("iss"))}, nil)
	return s.object(s.want(a, 200), "status:str newcrt?:str newfws?:str newuis?:str")
}

// order checks in with the letter of an order, which only who knows the instance
// id can give.
func (s *step) order(letter string) object {
	return s.checkIn(func(c object, out claims) claims {
		return out.with("status", api.EncodeBase64(mac(s.instance, []byte(letter), c.bytes("jti"))))
	})
}

// relay does a check-in with the backend at BackendURL.
func (s *step) relay() {
	text, _ := s.check()
	req, err := http.NewRequestWithContext(s.ctx, http.MethodPost, strings.TrimSuffix(s.o.BackendURL, "/")+"/checkin",
		strings.NewReader(`{"check":"`+text+`"}`))
	s.must(err, "the backend")
	req.Header.Set("Content-Type", "application/json")
	resp, err := (&http.Client{Timeout: answerTime}).Do(req)
	s.must(err, "the backend")
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	s.must(err, "the backend")
	if resp.StatusCode != http.StatusOK {
		s.failf("the backend answered %d", resp.StatusCode)
	}
	s.want(s.post("/api/system/checkin", string(raw), nil), 200)
}

// userName is as long as a name may be.
const userName = "hem conform walks this module, and will wipe it when it is done!"

// initConfig is what the module is personalised with.
func (s *step) initConfig() claims {
	return claims{
		"masterkey": s.master.public(), "userkey": s.user.public(), "user": userName, "email": "",
		"hostname": s.host, "origin": "*", "trusted_ts": true, "trusted_backend": true, "allow_keysearch": true,
		"ctx": 42, "gen_csr": true,
	}
}

const initChallengeForm = "exp:int spk:b64=32 jti:b64=32 genuine:str eid:b64=32"

// initChallenge begins a personalisation.
func (s *step) initChallenge() object {
	ch := s.object(s.want(s.get("/api/auth/init", nil), 200), initChallengeForm)
	s.personas(ch.str("eid"))
	return ch
}

// initProof are the claims of a personalisation.
func (s *step) initProof(ch object, cfg claims) claims {
	return claims{
		"jti": ch.str("jti"), "aud": ch.str("spk"), "exp": ch.int("exp"), "iat": ch.int("exp") - 65,
		"iss": s.master.public(), "cfg": cfg,
	}
}

// postInit posts a proof by the master key.
func (s *step) postInit(ch object, proof claims) *answer {
	return s.post("/api/auth/init", map[string]string{"init": s.master.sign(personaHeader, proof, ch.str("spk"))}, nil)
}

const initAnswerForm = "instanceid:str token:str genuine:str csr?:str reboot_required?:true"

// personalise makes a fresh module ours.
func (s *step) personalise() object {
	ch := s.initChallenge()
	a := s.postInit(ch, s.initProof(ch, s.initConfig()))
	out := s.object(s.want(a, 200), initAnswerForm)
	s.walk.inited = true
	s.tokens = make(map[string]string)
	raw, err := hex.DecodeString(strings.ReplaceAll(out.str("instanceid"), "-", ""))
	if err != nil || len(raw) != 16 {
		s.failAt(a, "instanceid is no UUID")
	}
	s.instance = raw
	return out
}

// wipeOld wipes a module that was personalised before the walk.
func (s *step) wipeOld() {
	s.clock()
	s.personas(s.challenge().str("eid"))
	s.wipe()
}

// wipe destroys everything, as either persona, and waits for a fresh module.
func (s *step) wipe() *answer {
	token := s.token(api.RoleMaster, api.ScopeSystemConfig)
	a := s.post("/api/system/config", map[string]any{"wipeout": true}, token)
	s.empty(a, 200)
	s.wiped()
	return a
}

// wiped waits for the fresh module after a wipe.
func (s *step) wiped() {
	s.walk.inited = false
	s.tokens = make(map[string]string)
	s.user, s.master, s.eid = nil, nil, ""
	s.client.CloseIdleConnections()
	s.back(isFresh)
}
