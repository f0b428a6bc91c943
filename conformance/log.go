package conformance

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"softhem/api"
)

// A record is a line of the log as the suite reads it. It shares no code with the
// module, or with hem log verify: what writes a log and what judges it here are to
// agree on the format and on nothing else.
type record struct {
	seq, time   int64
	kind        int64
	result      int64
	who, arg    string
	line        string
	key, signed []byte // of KEY_INIT
}

// Types of records that the walk brings about.
const (
	kindKeyInit   = 0
	kindStartup   = 1
	kindReboot    = 2
	kindSelftest  = 7
	kindForbidden = 12
	kindLogin     = 13
	kindConfig    = 18
	kindGenerated = 20
	kindDeleted   = 21
	kindUsed      = 23
	kindSigned    = 32
)

// readLog reads a log file: its header, and every record, whose MAC holds under a
// key that eidSign signed. The error names the line.
func readLog(raw []byte, eidSign []byte) ([]record, error) {
	lines := strings.Split(string(raw), "\n")
	if len(lines) < 3 || lines[len(lines)-1] != "" || !strings.HasPrefix(lines[0], "# ") {
		return nil, errors.New("it is no header and lines, each with its end")
	}
	return readRecords(lines[1:len(lines)-1], eidSign)
}

func readRecords(lines []string, eidSign []byte) ([]record, error) {
	var all []record
	var key []byte
	for i, line := range lines {
		r, err := readRecord(line)
		switch {
		case err != nil:
		case r.kind == kindKeyInit && r.result == 0:
			key = r.key
			if len(key) != 32 || !ed25519.Verify(eidSign, key, r.signed) {
				err = errors.New("the MAC key is not signed by eid_sign")
			}
		case key == nil:
			err = errors.New("there is no KEY_INIT before it")
		}
		if err == nil && r.seq != int64(i) {
			err = fmt.Errorf("seq is %d", r.seq)
		}
		if err == nil {
			body, got := line[:strings.LastIndexByte(line, '|')+1], line[strings.LastIndexByte(line, '|')+1:]
			if got != segment(mac(key, []byte(body))[:16]) {
				err = errors.New("the MAC is wrong")
			}
		}
		if err != nil {
			return all, fmt.Errorf("record %d: %w", i, err)
		}
		all = append(all, r)
	}
	return all, nil
}

func readRecord(line string) (record, error) {
	f := strings.Split(line, "|")
	if len(f) != 7 {
		return record{}, errors.New("it has not seven fields")
	}
	r := record{who: f[4], arg: f[5], line: line}
	var err [4]error
	r.seq, err[0] = strconv.ParseInt(f[0], 10, 64)
	r.time, err[1] = strconv.ParseInt(f[1], 16, 64)
	r.kind, err[2] = strconv.ParseInt(f[2], 16, 16)
	r.result, err[3] = strconv.ParseInt(f[3], 16, 16)
	if e := errors.Join(err[:]...); e != nil || len(f[1]) != 8 || f[1] != strings.ToLower(f[1]) {
		return r, errors.New("a number of it is none")
	}
	if r.kind == kindKeyInit && r.result == 0 {
		r.key, _ = base64.RawURLEncoding.DecodeString(f[4])
		r.signed, _ = base64.RawURLEncoding.DecodeString(f[5])
	}
	return r, nil
}

// treeRoot is the root of RFC 6962 over lines.
func treeRoot(lines []string) []byte {
	if len(lines) == 1 {
		leaf := sha256.Sum256(append([]byte{0}, lines[0]...))
		return leaf[:]
	}
	split := 1
	for split*2 < len(lines) {
		split *= 2
	}
	node := sha256.Sum256(slices.Concat([]byte{1}, treeRoot(lines[:split]), treeRoot(lines[split:])))
	return node[:]
}

// A checkpoint is a signed note over the size and root of the tree.
type checkpoint struct {
	origin string
	size   int64
	root   []byte
}

func readCheckpoint(raw, eidSign []byte) (checkpoint, error) {
	text, signature, ok := strings.Cut(string(raw), "\n\n")
	text += "\n"
	lines := strings.Split(text, "\n")
	if !ok || len(lines) != 4 {
		return checkpoint{}, errors.New("it is no note of three lines")
	}
	c := checkpoint{origin: lines[0]}
	var err, err2 error
	c.size, err = strconv.ParseInt(lines[1], 10, 64)
	c.root, err2 = base64.StdEncoding.DecodeString(lines[2])
	signed, found := strings.CutPrefix(strings.TrimSuffix(signature, "\n"), "— "+c.origin+" ")
	sig, err3 := base64.StdEncoding.DecodeString(signed)
	if err != nil || err2 != nil || err3 != nil || !found || len(sig) != 4+ed25519.SignatureSize {
		return c, errors.New("size, root or signature is none")
	}
	name := sha256.Sum256(slices.Concat([]byte(c.origin), []byte("\n\x01"), eidSign))
	if !bytes.Equal(sig[:4], name[:4]) || !ed25519.Verify(eidSign, []byte(text), sig[4:]) {
		return c, errors.New("it is not signed by eid_sign")
	}
	return c, nil
}

// logged is what the checks of the log share.
type logged struct {
	eidSign []byte
	early   checkpoint // of before what the walk did
	kid     string
	ids     []string
	files   map[string][]byte
	records map[string][]record
}

// whole skips what looks into files unless all finished ones could be read.
func (l *logged) whole(s *step) {
	s.needPPA()
	if len(l.ids) < 2 || len(l.records) != len(l.ids)-1 {
		s.skipf("not every line of every file holds")
	}
}

const listForm = "total:int id:list"

func (s *step) logList() []string {
	var ids []string
	for {
		page := s.object(s.want(s.get(fmt.Sprintf("/api/logger/list/%d", len(ids)), s.as(api.ScopeLoggerGet)), 200), listForm)
		more := page.strings("id")
		ids = append(ids, more...)
		if int64(len(ids)) >= page.int("total") {
			return ids
		}
		if len(more) == 0 || len(more) > 128 {
			s.failf("a page of %d names, and %d of %d were listed", len(more), len(ids), page.int("total"))
		}
	}
}

func logGroup() group {
	var l *logged
	return group{name: "log", title: "the audit log, over two reboots", phase: personal,
		before: func(s *step) { l = s.logSomething() },
		checks: []check{
			{"key", "The log's key is eid_sign, and signs a nonce", "api.md#get-apiloggerkey", func(s *step) {
				k := s.object(s.want(s.get("/api/logger/key", s.as(api.ScopeLoggerGet)), 200), "key:b64=32 nonce:b64=32 nonce_signed:b64=64")
				if !ed25519.Verify(k.bytes("key"), k.bytes("nonce"), k.bytes("nonce_signed")) {
					s.failf("the nonce is not signed by the key")
				}
				if k.str("key") != s.config().str("eid_sign") {
					s.failf("the key is another than eid_sign of the configuration")
				}
			}},
			{"list", "Files are listed oldest first; an offset that is none is 406", "api.md#get-apiloggerlist-and-apiloggerlistoffset", func(s *step) {
				s.needPPA()
				ids := s.logList()
				for i, id := range ids {
					if raw, err := hex.DecodeString(id); err != nil || len(raw) != 4 || id != strings.ToLower(id) {
						s.failf("the name %q is not 8 hex digits in lower case", id)
					}
					if i > 0 && id <= ids[i-1] {
						s.failf("%s is not after %s", id, ids[i-1])
					}
				}
				for _, offset := range []string{"x", "-1", strconv.Itoa(len(ids) + 1)} {
					s.want(s.get("/api/logger/list/"+offset, s.as(api.ScopeLoggerGet)), 406)
				}
			}},
			{"names", "The file being written is 406, an unknown name 404", "api.md#get-apiloggerid", func(s *step) {
				s.needPPA()
				ids := s.logList()
				s.want(s.get("/api/logger/"+ids[len(ids)-1], s.as(api.ScopeLoggerGet)), 406)
				for _, id := range []string{"fffffffe", "0000000", "nothing", "..%2f" + ids[0]} {
					s.want(s.get("/api/logger/"+id, s.as(api.ScopeLoggerGet)), 404)
				}
			}},
			{"files", "Two reboots finish two files, and all finished ones can be read", "api.md#get-apiloggerid", func(s *step) {
				s.needPPA()
				if len(l.ids) < 3 {
					s.failf("after two reboots there are %d files", len(l.ids))
				}
				for _, id := range l.ids[:len(l.ids)-1] {
					a := s.want(s.get("/api/logger/"+id, s.as(api.ScopeLoggerGet)), 200)
					if !strings.HasPrefix(a.header.Get("Content-Type"), "text/plain") {
						s.failf("the file is not text/plain")
					}
					l.files[id] = a.body
				}
			}},
			{"lines", "Every line holds: form, place, MAC, and MAC keys signed by eid_sign", "api.md#audit-log", func(s *step) {
				s.needPPA()
				if len(l.files) == 0 {
					s.skipf("no file was read")
				}
				for _, id := range l.ids[:len(l.ids)-1] {
					records, err := readLog(l.files[id], l.eidSign)
					if err != nil {
						s.failf("%s: %v", id, err)
					}
					l.records[id] = records
				}
			}},
			{"boots", "A file is named by its first record, and begins with KEY_INIT, STARTUP, SELFTEST_PASSED", "api.md#audit-log", func(s *step) {
				l.whole(s)
				for id, records := range l.records {
					if len(records) < 3 || records[0].kind != kindKeyInit || records[1].kind != kindStartup || records[2].kind != kindSelftest {
						s.failf("%s begins with other records", id)
					}
					if fmt.Sprintf("%08x", records[0].time) != id {
						s.failf("%s begins at %08x", id, records[0].time)
					}
				}
			}},
			{"records", "What was done stands there: who, what, how it ended", "api.md#audit-log", func(s *step) {
				l.whole(s)
				var all []record
				for _, id := range l.ids[:len(l.ids)-1] {
					all = append(all, l.records[id]...)
				}
				raw, _ := hex.DecodeString(l.kid)
				kid := segment(raw)
				for _, want := range []struct {
					what         string
					kind, result int64
					who, arg     string
				}{
					{"KEY_GENERATION", kindGenerated, 0, "U", kid}, {"CRYPTO_EXDSA_SIGN", kindSigned, 0, "U", kid},
					{"CRYPTO_EXDSA_SIGN, FAILED", kindSigned, 1, "U", kid}, {"KEY_USAGE_PKEY", kindUsed, 0, "U", kid},
					{"KEY_DELETE", kindDeleted, 0, "U", kid}, {"FAILED_SCOPE_CHECK", kindForbidden, 1, "U", "*"},
					{"CONFIG_UPDATED", kindConfig, 0, "M", "*"}, {"AUTH_SUCCESS_INTERNAL", kindLogin, 0, "U", "*"},
					{"REBOOT", kindReboot, 0, "U", "*"},
				} {
					if !slices.ContainsFunc(all, func(r record) bool {
						return r.kind == want.kind && r.result == want.result && r.who == want.who && (want.arg == "*" || r.arg == want.arg)
					}) {
						s.failf("there is no %s by %s", want.what, want.who)
					}
				}
			}},
			{"failed-logins", "Failed logins are recorded, with their number", "divergences.md#login-and-tokens", func(s *step) {
				l.whole(s)
				for _, records := range l.records {
					for _, r := range records {
						if r.kind == kindLogin && r.result == 1 && r.arg != "" {
							return
						}
					}
				}
				s.failf("there is no AUTH_SUCCESS_INTERNAL with the result FAILED")
			}},
			{"tail", "The tail gives the records of all files, the current one too", "divergences.md#audit-log", func(s *step) {
				l.whole(s)
				var all []string
				for _, id := range l.ids[:len(l.ids)-1] {
					for _, r := range l.records[id] {
						all = append(all, r.line)
					}
				}
				tail := s.tail()
				if len(tail) <= len(all) || !slices.Equal(tail[:len(all)], all) {
					s.failf("its records are not those of the files, and then some")
				}
				s.want(s.get("/api/logger/tail/999999999", s.as(api.ScopeLoggerGet)), 406)
				s.want(s.get("/api/logger/tail/x", s.as(api.ScopeLoggerGet)), 406)
			}},
			{"checkpoint", "A checkpoint, and one of two boots ago, are of this log", "divergences.md#audit-log", func(s *step) {
				now := s.checkpoint(l.eidSign)
				if want := "softhem/" + hex.EncodeToString(mustBytes(s.eid)); now.origin != want {
					s.failf("its origin is not %s", want)
				}
				s.needPPA()
				tail := s.tail()
				for _, c := range []checkpoint{l.early, now} {
					if c.size < 1 || c.size > int64(len(tail)) {
						s.failf("it is of %d records, and there are %d", c.size, len(tail))
					}
					if !bytes.Equal(treeRoot(tail[:c.size]), c.root) {
						s.failf("the first %d records have another root", c.size)
					}
				}
			}},
		}}
}

func (s *step) needPPA() {
	if !s.ppa {
		s.skipf("an EPA keeps no log files")
	}
}

// mustBytes is base64 that was looked at before.
func mustBytes(text string) []byte {
	raw, _ := api.DecodeBase64(text)
	return raw
}

// logSomething does what has to be found in the log, and reboots twice.
func (s *step) logSomething() *logged {
	l := &logged{files: make(map[string][]byte), records: make(map[string][]record)}
	l.eidSign = s.config().bytes("eid_sign")
	if s.softhem {
		l.early = s.checkpoint(l.eidSign)
	}
	l.kid = s.create(api.Ed25519, "logged")
	s.want(s.use("exdsa/sign", l.kid, claims{"msg": b64([]byte("logged")), "alg": api.AlgEd25519}), 200)
	s.want(s.use("exdsa/sign", l.kid, claims{"msg": b64([]byte("logged")), "alg": api.SHA256WithECDSA}), 406)
	s.want(s.deleteKey(l.kid), 200)
	s.want(s.get("/api/keymgmt/list", s.as("nothing of use")), 403)
	s.want(s.post("/api/system/config", claims{"ctx": 43}, s.token(api.RoleMaster, api.ScopeSystemConfig)), 200)
	s.want(s.answerWith("a.b.c"), 401)
	s.reboot()
	s.update(claims{"ctx": 42})
	s.reboot()
	if s.ppa {
		l.ids = s.logList()
	}
	return l
}

func (s *step) checkpoint(eidSign []byte) checkpoint {
	a := s.want(s.get("/api/logger/checkpoint", s.as(api.ScopeLoggerGet)), 200)
	c, err := readCheckpoint(a.body, eidSign)
	if err != nil {
		s.failf("the checkpoint does not hold: %v", err)
	}
	return c
}

// tail reads all records there are.
func (s *step) tail() []string {
	var all []string
	for {
		a := s.want(s.get(fmt.Sprintf("/api/logger/tail/%d", len(all)), s.as(api.ScopeLoggerGet)), 200)
		if len(a.body) == 0 {
			return all
		}
		lines := strings.Split(strings.TrimSuffix(string(a.body), "\n"), "\n")
		all = append(all, lines...)
		if len(lines) < 1000 { // a short answer is the end; the next would hold the record of this one
			return all
		}
	}
}
