package conformance

import (
	"net/http"
	"strings"
	"time"

	"softhem/api"
)

const selftestForm = "last_selftest_ts:int last_fls_state:int last_entropytest_ts:int last_kat_ts:int kat_busy?:true " +
	"fls_state:int selftest_ts:int repo_stats:obj se_state:int"

// selftest has the module test itself, and waits for the result.
func (s *step) selftest(token *string) object {
	for begin := time.Now(); time.Since(begin) < 3*time.Minute; s.sleep(50 * time.Millisecond) {
		out := s.object(s.want(s.get("/api/system/selftest", token), 200), selftestForm)
		if !out.has("kat_busy") {
			return out
		}
	}
	s.failf("the self-test does not end")
	return nil
}

func selftestGroup() group {
	const spec = "api.md#get-apisystemselftest"
	return group{name: "selftest", title: "self-test on demand", phase: personal, checks: []check{
		{"result", "The battery runs, ends, and finds nothing wrong", spec, func(s *step) {
			first := s.selftest(s.as("any"))
			now := s.statusNow().int("time")
			if first.int("fls_state") != 0 || first.int("selftest_ts") > now+1 || first.int("selftest_ts") < now-600 ||
				first.int("last_kat_ts") > now+1 || first.int("last_entropytest_ts") < now-600 {
				s.failf("fls_state is not 0, or a time is not of this run")
			}
			second := s.selftest(s.as("any"))
			if second.int("last_selftest_ts") != first.int("selftest_ts") || second.int("last_fls_state") != 0 {
				s.failf("the next run does not know the one before")
			}
		}},
		{"repository", "Its counts are those of the list", spec, func(s *step) {
			kid := s.create(api.AES128, "counted")
			s.deleteKey(s.create(api.AES128, "gone"))
			stats, _ := s.selftest(s.as("any"))["repo_stats"].(map[string]any)
			st := object(stats)
			if why := st.fits("total:int deleted:int invalid:int fragmented:int freeslots:int", s.softhem); why != "" {
				s.failf("in repo_stats: %s", why)
			}
			page := s.object(s.want(s.get("/api/keymgmt/list", s.as(api.ScopeKeyList)), 200), pageForm)
			tls := int64(0)
			for _, k := range page.objects("list") {
				if strings.HasSuffix(k.str("type"), ",GENERIC_DER") {
					tls++
				}
			}
			s.deleteKey(kid)
			if st.int("total") != page.int("total")-tls || st.int("deleted") != page.int("deleted") || st.int("invalid") != 0 || st.int("freeslots") < 1 {
				s.failf("total, deleted, invalid or freeslots is not what the list says")
			}
		}},
		{"any-token", "Any token opens it, of either role; none is 401", spec, func(s *step) {
			s.empty(s.get("/api/system/selftest", nil), 401)
			s.selftest(s.token(api.RoleMaster, "any"))
		}},
	}}
}

// disk is the state of a disk in the status, after its size.
func (s *step) disk(n int) string {
	disks := s.statusNow().strings("storage")
	if len(disks) != 2 {
		s.failf("storage has not two disks")
	}
	size, state, ok := strings.Cut(disks[n], ":")
	if !ok || size == "" || strings.Trim(size, "0123456789") != "" {
		s.failf("%q is no size and state", disks[n])
	}
	return state
}

func storageGroup() group {
	const spec = "api.md#storage"
	const unlock, lock = "/api/storage/unlock", "/api/storage/lock"
	state := func(s *step, n int, want string) {
		if got := s.disk(n); got != want {
			s.failf("disk %d is %q, want %q", n, got, want)
		}
	}
	return group{name: "storage", title: "the two disks", phase: personal, lacking: needPPAParts,
		after: func(s *step) { s.want(s.get(lock, s.as("storage:disk1")), 200) },
		checks: []check{
			{"boot", "After a boot disk 1 is locked, and disk 0 read-only with storage_mode 81", spec, func(s *step) {
				if mode := s.config().int("storage_mode"); mode != 81 {
					s.skipf("storage_mode is %d", mode)
				}
				s.reboot()
				state(s, 0, "ro")
				state(s, 1, "-")
			}},
			{"scope", "Disk and mode come from the scope: 401, 403, and 406 for a disk that is none", spec, func(s *step) {
				for _, path := range []string{unlock, unlock + "/ro", unlock + "/rw", lock} {
					s.empty(s.get(path, nil), 401)
					s.want(s.get(path, s.as(api.ScopeSystemConfig)), 403)
					s.want(s.get(path, s.token(api.RoleMaster, "storage:disk1:rw")), 403)
					s.want(s.get(path, s.as("storage:disk2:rw")), 406)
				}
				state(s, 1, "-")
			}},
			{"read-only", "A scope without :rw unlocks read-only, and never for writing", spec, func(s *step) {
				s.empty(s.get(unlock, s.as("storage:disk1")), 200)
				state(s, 1, "ro")
				s.want(s.get(unlock+"/rw", s.as("storage:disk1")), 406)
				state(s, 1, "ro")
				s.empty(s.get(lock, s.as("storage:disk1")), 200)
				state(s, 1, "-")
			}},
			{"writing", "A scope with :rw unlocks for writing, or read-only where that is asked for", spec, func(s *step) {
				token := s.as("storage:disk1:rw")
				for _, step := range [][2]string{{unlock, "rw"}, {unlock + "/ro", "ro"}, {unlock + "/rw", "rw"}, {lock, "-"}, {lock, "-"}} {
					s.empty(s.get(step[0], token), 200)
					state(s, 1, step[1])
				}
			}},
			{"reboot", "A reboot locks disk 1", spec, func(s *step) {
				s.empty(s.get(unlock, s.as("storage:disk1:rw")), 200)
				s.reboot()
				state(s, 1, "-")
			}},
		}}
}

// upgradeGroup tries what must not be installed; nothing that verifies is sent.
func upgradeGroup() group {
	const upload = "api.md#post-apisystemupgradeupload_fw-and-apisystemupgradeupload_ui"
	const checking = "api.md#get-apisystemupgradecheck_fw-and-apisystemupgradecheck_ui"
	const path = "/api/system/upgrade/"
	send := func(s *step, kind, disposition, body string) *answer {
		header := http.Header{"Content-Type": {"application/octet-stream"}}
		if disposition != "" {
			header.Set("Content-Disposition", disposition)
		}
		return s.do(request{method: "POST", path: path + "upload_" + kind, body: body, header: header, token: s.as(api.ScopeSystemUpgrade)})
	}
	named := func(name string) string { return `attachment; filename="` + name + `"` }
	return group{name: "upgrade", title: "upgrades that must not be installed", phase: personal, lacking: needPPAParts, checks: []check{
		{"nothing", "With nothing uploaded a check is 404, and an installation 406", checking, func(s *step) {
			s.want(s.get(path+"check_ui", s.as(api.ScopeSystemUpgrade)), 404)
			s.want(s.get(path+"install_ui", s.as(api.ScopeSystemUpgrade)), 406)
			s.want(s.get(path+"install_fw", s.as(api.ScopeSystemConfig)), 406)
		}},
		{"scope", "Uploads want system:upgrade; checks and installations take system:config too", upload, func(s *step) {
			for _, op := range []string{"check_fw", "check_ui", "install_fw", "install_ui", "usbmode"} {
				s.empty(s.get(path+op, nil), 401)
				s.want(s.get(path+op, s.as(api.ScopeLoggerGet)), 403)
			}
			for _, kind := range []string{"fw", "ui"} {
				s.want(s.do(request{method: "POST", path: path + "upload_" + kind, body: "x", token: s.as(api.ScopeSystemConfig)}), 403)
				s.empty(s.do(request{method: "POST", path: path + "upload_" + kind, body: "x"}), 401)
			}
		}},
		{"name", "An upload without one of the file names is 413", upload, func(s *step) {
			body := strings.Repeat("x", 100)
			for _, d := range []string{"", "attachment", named("webroot.tar"), named("../firmware.bin"), named("other.bin")} {
				s.want(send(s, "fw", d, body), 413)
			}
			s.want(send(s, "ui", named("firmware.bin"), body), 413)
		}},
		{"short", "A body that is too short is 406", upload, func(s *step) {
			s.want(send(s, "fw", named("firmware.bin"), "short"), 406)
			s.want(send(s, "ui", named("webroot.tar"), "short"), 406)
		}},
		{"too-large", "More than 16 MiB are 413", upload, func(s *step) {
			s.want(send(s, "fw", named("firmware.bin"), strings.Repeat("x", 16<<20+1)), 413)
		}},
		{"unsigned", "An image that nobody signed is checked, refused, and not installed", checking, func(s *step) {
			before := s.object(s.want(s.get("/api/system/version", nil), 200), versionForm(s.ppa, false)).str("fwv")
			for kind, name := range map[string]string{"fw": "firmware.bin", "ui": "webroot.tar"} {
				s.empty(send(s, kind, named(name), string(random(4096))), 200)
				s.want(s.get(path+"install_"+kind, s.as(api.ScopeSystemUpgrade)), 406, 409)
				s.want(s.get(path+"check_"+kind, s.as(api.ScopeSystemUpgrade)), 201)
				a := s.get(path+"check_"+kind, s.as(api.ScopeSystemUpgrade))
				for begin := time.Now(); a.status == 202 && time.Since(begin) < 2*time.Minute; {
					s.sleep(20 * time.Millisecond)
					a = s.get(path+"check_"+kind, s.as(api.ScopeSystemUpgrade))
				}
				s.want(a, 406)
				s.want(s.get(path+"install_"+kind, s.as(api.ScopeSystemUpgrade)), 406)
			}
			if now := s.object(s.want(s.get("/api/system/version", nil), 200), versionForm(s.ppa, false)).str("fwv"); now != before {
				s.failf("the version has changed")
			}
		}},
		{"usbmode", "There is no loader to boot into: 406", "divergences.md#upgrade", func(s *step) {
			if s.o.Quirks != "" {
				s.skipf("with the faults of a firmware it boots into its loader")
			}
			s.want(s.get(path+"usbmode", s.as(api.ScopeSystemUpgrade)), 406)
		}},
	}}
}
