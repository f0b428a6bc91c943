package httpapi_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"net/http"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"softhem/api"
	"softhem/hemtest"
	"softhem/internal/audit"
	"softhem/internal/suite"
)

// webroot is an archive of files, of names and contents.
func webroot(t testing.TB, files ...string) string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for f := range slices.Chunk(files, 2) {
		err := w.WriteHeader(&tar.Header{Name: f[0], Mode: 0o644, Size: int64(len(f[1]))})
		if _, err2 := io.WriteString(w, f[1]); err != nil || err2 != nil {
			t.Fatal(errors.Join(err, err2))
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// install takes an image as far as it goes, and returns the last status.
func (k *keeper) install(kind, name, image string) int {
	k.t.Helper()
	if a := k.upload(api.RoleUser, kind, name, image); a.status != 200 {
		return a.status
	}
	if got := k.checked(kind); got != 200 {
		return got
	}
	return k.do(request{method: "GET", path: pathUpgrade + "install_" + kind, token: k.as(api.RoleMaster, api.ScopeSystemConfig)}).status
}

func (k *keeper) forget() { clear(k.tokens.held) }

// Firmware is staged and the module boots anew; what was staged once needs another
// upload to be staged again.
func TestInstallFirmware(t *testing.T) {
	v := newVendor(t, 1)
	k := newKeeper(t, &hemtest.Options{UpgradeKeys: v.trusted(), DataDir: filepath.Join(t.TempDir(), "data")})
	path := pathUpgrade + "install_fw"
	image := v.image(t, "#!/bin/sh")
	k.expect("GET", path, k.as(api.RoleUser, api.ScopeSystemConfig), 406)
	k.upload(api.RoleUser, "fw", "firmware.bin", image)
	k.expect("GET", path, k.as(api.RoleUser, api.ScopeSystemConfig), 406) // not checked yet
	k.upload(api.RoleUser, "fw", "firmware.bin", image+"x")
	if got := k.checked("fw"); got != 406 {
		t.Fatal(got)
	}
	k.expect("GET", path, k.as(api.RoleUser, api.ScopeSystemConfig), 406)

	before := k.as(api.RoleUser, api.ScopeSystemUpgrade)
	if got := k.install("fw", "firmware.bin", image); got != 200 {
		t.Fatal(got)
	}
	k.expect("GET", pathUpgrade+"check_fw", before, 401) // tokens end with the boot
	k.forget()
	k.expect("GET", pathUpgrade+"check_fw", k.as(api.RoleUser, api.ScopeSystemUpgrade), 404)
	k.expect("GET", path, k.as(api.RoleUser, api.ScopeSystemConfig), 406)
	var s api.Status
	if k.get("/api/system/status", &s); s.FWUpgrade {
		t.Error("nothing was upgraded yet, and the status says so")
	}
}

func TestInstallIsOnRecord(t *testing.T) {
	v := newVendor(t, 1)
	k := newKeeper(t, &hemtest.Options{UpgradeKeys: v.trusted()})
	if got := k.install("ui", "webroot.tar", v.image(t, webroot(t, "index.html", "x"))); got != 200 {
		t.Fatal(got)
	}
	if got := k.install("fw", "firmware.bin", v.image(t, "#!/bin/sh")); got != 409 {
		t.Errorf("firmware, of a module in memory: %d, want 409", got)
	}
	k.expect("GET", pathUpgrade+"usbmode", k.as(api.RoleUser, api.ScopeSystemUpgrade), 406)
	want := []string{"UPGRADE OK U", "UPGRADE OK U", "UPGRADE OK M", "UPGRADE OK U", "UPGRADE OK U"}
	if got := k.recordsOf(audit.Upgrade); !reflect.DeepEqual(got, want) {
		t.Errorf("the log has\n%s", strings.Join(got, "\n"))
	}
}

// With the faults of the firmware there is a loader, as far as one can see.
func TestUSBModeOfTheFirmware(t *testing.T) {
	k := newKeeper(t, &hemtest.Options{Quirks: "fw1.2.2"})
	token := k.as(api.RoleUser, api.ScopeSystemUpgrade)
	if a := k.expect("GET", pathUpgrade+"usbmode", token, 200); len(a.body) != 0 || !a.closed {
		t.Errorf("%q, closed: %v", a.body, a.closed)
	}
	k.expect("GET", pathUpgrade+"usbmode", token, 401)
}

// consolePage gets a path outside of the API.
func (p *peer) consolePage(method, path string, header http.Header) (*http.Response, string) {
	p.t.Helper()
	req, err := http.NewRequest(method, p.base, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	req.URL.Path, req.Header = path, header
	resp, err := p.client.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return resp, string(body)
}

// The files of the console that was installed last are served, with headers that let
// its pages do little else than ask their own module; nothing else is.
func TestThreat_T128_ConsoleIsKeptToItself(t *testing.T) {
	v := newVendor(t, 1)
	opts := &hemtest.Options{UpgradeKeys: v.trusted(), DataDir: filepath.Join(t.TempDir(), "data")}
	m := hemtest.New(t, opts)
	k := keeperOf(t, m)
	uis := func() string {
		var version api.Version
		k.get("/api/system/version", &version)
		return version.UIS
	}
	hash := func(archive string) string {
		sum := suite.SHA256([]byte(archive))
		return api.EncodeBase64(sum[:])
	}
	if resp, body := k.consolePage("GET", "/", nil); resp.StatusCode != 404 || body != "" || uis() != hash("") {
		t.Errorf("without a console: %d %q, uis %s", resp.StatusCode, body, uis())
	}
	first := webroot(t, "index.html", "<p>first", "only.html", "x")
	second := webroot(t, "index.html", "<p>second", "js/app.js", "alert(1)", "a.svg", "<svg/>", "evil.xhtml", "<html/>", "none", "?", "api/x", "hidden")
	for _, archive := range []string{first, second} {
		if got := k.install("ui", "webroot.tar", v.image(t, archive)); got != 200 {
			t.Fatal(got)
		}
		if uis() != hash(archive) {
			t.Errorf("uis is %s", uis())
		}
	}
	// An archive that does not verify changes nothing.
	if got := k.install("ui", "webroot.tar", newVendor(t, 2).image(t, first)); got != 406 {
		t.Errorf("a stranger's: %d", got)
	}
	if got := k.install("ui", "webroot.tar", v.image(t, webroot(t, "index.html", "x", "../x", "y"))); got != 406 {
		t.Errorf("one that leads elsewhere: %d", got)
	}
	k.reboot()
	for round := range 2 {
		for path, want := range map[string][2]string{
			"/": {"text/html; charset=utf-8", "<p>second"}, "/index.html": {"text/html; charset=utf-8", "<p>second"}, "/js/app.js": {"text/javascript; charset=utf-8", "alert(1)"},
			"/a.svg": {"image/svg+xml", "<svg/>"}, "/evil.xhtml": {"application/octet-stream", "<html/>"}, "/none": {"application/octet-stream", "?"},
		} {
			for _, p := range []*peer{k.peer, k.plain()} {
				resp, body := p.consolePage("GET", path, nil)
				h := resp.Header
				if resp.StatusCode != 200 || body != want[1] || h.Get("Content-Type") != want[0] {
					t.Errorf("%s: %d %s %q", path, resp.StatusCode, h.Get("Content-Type"), body)
				}
				policy := h.Get("Content-Security-Policy")
				if !strings.Contains(policy, "default-src 'none'") || !strings.Contains(policy, "frame-ancestors 'none'") || strings.Contains(policy, "unsafe") ||
					h.Get("X-Content-Type-Options") != "nosniff" || h.Get("X-Frame-Options") != "DENY" || h.Get("Referrer-Policy") != "no-referrer" ||
					h.Get("Cross-Origin-Resource-Policy") != "same-origin" || h.Get("Access-Control-Allow-Origin") != "" {
					t.Errorf("%s: %v", path, h)
				}
			}
		}
		if resp, body := k.consolePage("HEAD", "/", nil); resp.StatusCode != 200 || body != "" || resp.ContentLength != int64(len("<p>second")) {
			t.Errorf("HEAD: %d, %d bytes", resp.StatusCode, resp.ContentLength)
		}
		for _, path := range []string{"/only.html", "/js", "/js/", "/../index.html", "//index.html", "/js/../index.html", "/./index.html", "/state.json", "/upgrade/state.json", "/hem.db", "/api/x"} {
			if resp, body := k.consolePage("GET", path, nil); resp.StatusCode != 404 || body != "" {
				t.Errorf("%s: %d %q", path, resp.StatusCode, body)
			}
		}
		for _, method := range []string{"POST", "PUT", "DELETE"} {
			if resp, _ := k.consolePage(method, "/", nil); resp.StatusCode != 404 {
				t.Errorf("%s: %d", method, resp.StatusCode)
			}
		}
		if resp, _ := k.consolePage("GET", "/", http.Header{"Origin": {"https://evil.example"}}); resp.Header.Get("Access-Control-Allow-Origin") != "" {
			t.Error("another page may read the console")
		}
		if round == 0 { // after a restart the same
			m.Close()
			m = hemtest.New(t, opts)
			k = keeperOf(t, m)
		}
	}
	m.Close()
	// Without the key it is not served any more.
	opts.UpgradeKeys = nil
	if resp, _ := newPeer(t, hemtest.New(t, opts)).consolePage("GET", "/", nil); resp.StatusCode != 404 {
		t.Errorf("without the key: %d", resp.StatusCode)
	}
}

// A wipe takes what was uploaded and leaves what was installed.
func TestWipeTakesUploads(t *testing.T) {
	v := newVendor(t, 1)
	k := newKeeper(t, &hemtest.Options{UpgradeKeys: v.trusted(), DataDir: filepath.Join(t.TempDir(), "data")})
	if got := k.install("ui", "webroot.tar", v.image(t, webroot(t, "index.html", "of the operator"))); got != 200 {
		t.Fatal(got)
	}
	if a := k.upload(api.RoleUser, "fw", "firmware.bin", v.image(t, "#!/bin/sh")); a.status != 200 {
		t.Fatal(a.status)
	}
	k.expect("GET", pathUpgrade+"check_ui", k.as(api.RoleUser, api.ScopeSystemConfig), 404)
	if a, _ := k.update(api.RoleUser, `{"wipeout":true}`); a.status != 200 {
		t.Fatal(a.status)
	}
	p, status := k.plain(), 0
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if status = p.get(pathUpgrade+"check_fw", nil).status; status != 409 && status != 401 {
			break
		}
	}
	if status != 404 {
		t.Errorf("after the wipe the upload is %d, want 404", status)
	}
	if resp, body := p.consolePage("GET", "/", nil); resp.StatusCode != 200 || body != "of the operator" {
		t.Errorf("after the wipe the console is %d %q", resp.StatusCode, body)
	}
}
