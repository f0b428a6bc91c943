package httpapi_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"softhem/api"
	"softhem/hemtest"
	"softhem/internal/audit"
	"softhem/internal/httpapi"
	"softhem/internal/suite"
	"softhem/internal/upgrade"
)

const pathUpgrade = "/api/system/upgrade/"

// A vendor signs images.
type vendor struct{ key *suite.Ed25519Key }

func newVendor(t testing.TB, seed byte) vendor {
	t.Helper()
	key, err := suite.NewEd25519Key(bytes.Repeat([]byte{seed}, suite.Ed25519Seed))
	if err != nil {
		t.Fatal(err)
	}
	return vendor{key}
}

func (v vendor) trusted() [][]byte { return [][]byte{v.key.Public()} }

func (v vendor) image(t testing.TB, payload string) string {
	t.Helper()
	footer, err := upgrade.Sign(strings.NewReader(payload), v.key)
	if err != nil {
		t.Fatal(err)
	}
	return payload + string(footer)
}

func disposition(name string) http.Header {
	return http.Header{"Content-Disposition": {fmt.Sprintf("attachment; filename=%q", name)}, "Content-Type": {"application/octet-stream"}}
}

// upload sends an image as a role with scope system:upgrade.
func (k *keeper) upload(role api.Role, kind, name, image string) answer {
	k.t.Helper()
	return k.do(request{method: "POST", path: pathUpgrade + "upload_" + kind, body: image, header: disposition(name), token: k.as(role, api.ScopeSystemUpgrade)})
}

// checked begins the check of an upload and waits for its end.
func (k *keeper) checked(kind string) int {
	k.t.Helper()
	token := k.as(api.RoleUser, api.ScopeSystemConfig)
	want := 201
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		a := k.do(request{method: "GET", path: pathUpgrade + "check_" + kind, token: token})
		if want == 201 && a.status != 201 || a.status != 201 && a.status != 202 {
			if len(a.body) > 0 {
				k.t.Errorf("check: %q", a.body)
			}
			return a.status
		}
		want = 202
	}
	k.t.Fatal("the check does not end")
	return 0
}

func TestThreat_T120_OnlySignedImagesVerify(t *testing.T) {
	v, other := newVendor(t, 1), newVendor(t, 2)
	m := newKeeper(t, &hemtest.Options{UpgradeKeys: append(other.trusted(), v.trusted()...)})
	for name, k := range map[string]*keeper{"over TLS": m, "over plain HTTP": {m.plain(), m.tokens}} {
		good := v.image(t, "#!/bin/sh\n"+name)
		for _, step := range []struct {
			what, kind, file, image string
			want                    int
		}{
			{"signed", "fw", "firmware.bin", good, 200},
			{"signed by the other key", "fw", "firmware.hex", other.image(t, "#!/bin/sh"), 200},
			{"another byte in it", "fw", "firmware.bin", "!" + good[1:], 406},
			{"another byte in its signature", "fw", "firmware.bin", good[:len(good)-1] + string(good[len(good)-1]^1), 406},
			{"signed by a stranger", "fw", "firmware.bin", newVendor(t, 3).image(t, "#!/bin/sh"), 406},
			{"a byte short", "fw", "firmware.bin", good[:len(good)-1], 406},
			{"as a console", "ui", "webroot.tar", good, 406},
			{"signed again", "fw", "firmware.bin", good, 200},
		} {
			if a := k.upload(api.RoleUser, step.kind, step.file, step.image); a.status != 200 || len(a.body) != 0 {
				t.Fatalf("%s, %s: %d (%s)", name, step.what, a.status, a.header.Get(api.HeaderError))
			}
			if got := k.checked(step.kind); got != step.want {
				t.Errorf("%s, %s: %d, want %d", name, step.what, got, step.want)
			}
			// It stays so, and is found without another check.
			k.expect("GET", pathUpgrade+"check_"+step.kind, k.as(api.RoleMaster, api.ScopeSystemUpgrade), step.want)
		}
	}
	if a := m.upload(api.RoleMaster, "fw", "firmware.bin", v.image(t, "by the administrator")); a.status != 200 {
		t.Errorf("role M: %d", a.status)
	}
	m.expect("POST", pathUpgrade+"upload_fw", m.as(api.RoleUser, api.ScopeSystemConfig), 403)
	var want []string
	for range 2 {
		for _, result := range []string{"OK", "OK", "FAILED", "FAILED", "FAILED", "FAILED", "FAILED", "OK"} {
			want = append(want, "UPGRADE OK U", "UPGRADE "+result+" U")
		}
	}
	if got := m.recordsOf(audit.Upgrade); !reflect.DeepEqual(got, append(want, "UPGRADE OK M")) {
		t.Errorf("the log has\n%s", strings.Join(got, "\n"))
	}
}

// Without a key nothing verifies; on a fresh module nobody needs a token.
func TestUploadToAFreshModuleThatTrustsNobody(t *testing.T) {
	p := newPeer(t, hemtest.New(t, &hemtest.Options{Fresh: true}))
	k := &keeper{p, nil}
	if a := p.do(request{method: "POST", path: pathUpgrade + "upload_fw", body: newVendor(t, 1).image(t, "x"), header: disposition("firmware.bin")}); a.status != 200 {
		t.Fatal(a.status)
	}
	p.expect("GET", pathUpgrade+"check_fw", nil, 201)
	for status := 202; status == 202; {
		if status = k.get(pathUpgrade+"check_fw", nil).status; status != 202 && status != 406 {
			t.Errorf("%d, want 406", status)
		}
	}
}

func TestUploadNames(t *testing.T) {
	k := newKeeper(t, nil)
	image := strings.Repeat("x", 100)
	for _, header := range []http.Header{
		nil, {"Content-Disposition": {""}}, {"Content-Disposition": {"attachment"}}, {"Content-Disposition": {"attachment; filename="}},
		{"Content-Disposition": {"inline; filename=firmware.bin"}}, {"Content-Disposition": {"filename=firmware.bin"}},
		{"Content-Disposition": {"attachment; filename=firmware.bin", "attachment; filename=firmware.bin"}},
		{"Content-Disposition": {`attachment; filename="firmware.bin"; filename="firmware.hex"`}},
		disposition("webroot.tar"), disposition("Firmware.bin"), disposition("firmware.bin "), disposition("../firmware.bin"), disposition("/firmware.bin"),
		disposition("firmware.bin\x00"), disposition("firmware.bin.exe"), disposition(strings.Repeat("a", 8000)),
	} {
		a := k.do(request{method: "POST", path: pathUpgrade + "upload_fw", body: image, header: header, token: k.as(api.RoleUser, api.ScopeSystemUpgrade)})
		if a.status != 413 {
			t.Errorf("%v: %d, want 413", header, a.status)
		}
	}
	for _, text := range []string{"attachment; filename=firmware.bin", `ATTACHMENT;FileName="firmware.hex"`, "attachment; filename*=UTF-8''firmware.bin"} {
		a := k.do(request{method: "POST", path: pathUpgrade + "upload_fw", body: image, header: http.Header{"Content-Disposition": {text}}, token: k.as(api.RoleUser, api.ScopeSystemUpgrade)})
		if a.status != 200 {
			t.Errorf("%s: %d", text, a.status)
		}
	}
	k.expect("GET", pathUpgrade+"check_ui", k.as(api.RoleUser, api.ScopeSystemUpgrade), 404) // none of them became a console
}

func TestUploadLimits(t *testing.T) {
	v := newVendor(t, 1)
	k := newKeeper(t, &hemtest.Options{UpgradeKeys: v.trusted()})
	token := k.as(api.RoleUser, api.ScopeSystemUpgrade)
	for size, want := range map[int]int{1: 406, 63: 406, 64: 406, 65: 200} {
		if a := k.upload(api.RoleUser, "fw", "firmware.bin", strings.Repeat("x", size)); a.status != want {
			t.Errorf("%d bytes: %d, want %d", size, a.status, want)
		}
	}
	if a := k.do(request{method: "POST", path: pathUpgrade + "upload_fw", header: disposition("firmware.bin"), token: token}); a.status != 406 {
		t.Errorf("nothing: %d, want 406", a.status)
	}
	largest := v.image(t, strings.Repeat("x", upgrade.MaxImage-upgrade.FooterSize))
	if a := k.upload(api.RoleUser, "fw", "firmware.bin", largest); a.status != 200 {
		t.Errorf("16 MiB: %d", a.status)
	}
	if got := k.checked("fw"); got != 200 {
		t.Errorf("16 MiB: %d", got)
	}
	if a := k.do(request{method: "POST", path: pathUpgrade + "upload_fw", body: "xx", chunked: true, header: disposition("firmware.bin"), token: token}); a.status != 411 {
		t.Errorf("chunked: %d", a.status)
	}
	// One byte more is refused by its head; whoever waits with the body is told.
	release := make(chan struct{})
	defer close(release)
	for _, base := range []string{k.module.HTTPURL, k.module.URL} {
		req, err := http.NewRequest("POST", base+pathUpgrade+"upload_fw", waiting{release})
		if err != nil {
			t.Fatal(err)
		}
		req.ContentLength = upgrade.MaxImage + 1
		resp, err := k.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != 413 {
			t.Errorf("16 MiB and a byte: %d", resp.StatusCode)
		}
	}
}

// waiting is a body that does not come.
type waiting struct{ until chan struct{} }

func (w waiting) Read([]byte) (int, error) {
	<-w.until
	return 0, io.ErrClosedPipe
}

// One upload at a time, and none is seen before it is whole.
func TestThreat_T123_UploadsOneAtATime(t *testing.T) {
	k := newKeeper(t, nil)
	token := k.as(api.RoleUser, api.ScopeSystemUpgrade)
	body, feed := io.Pipe()
	req, err := http.NewRequestWithContext(context.Background(), "POST", k.base+pathUpgrade+"upload_fw", body)
	if err != nil {
		t.Fatal(err)
	}
	req.ContentLength, req.Header = 1000, disposition("firmware.bin")
	req.Header.Set("Authorization", "Bearer "+*token)
	ended := make(chan int, 1)
	go func() {
		resp, err := k.client.Do(req)
		if err != nil {
			ended <- 0
			return
		}
		resp.Body.Close()
		ended <- resp.StatusCode
	}()
	feed.Write(make([]byte, 500))
	status := 0
	for deadline := time.Now().Add(time.Minute); status != 409 && time.Now().Before(deadline); {
		status = k.upload(api.RoleUser, "ui", "webroot.tar", strings.Repeat("x", 100)).status
	}
	if status != 409 {
		t.Errorf("beside another: %d, want 409", status)
	}
	k.expect("GET", pathUpgrade+"check_fw", token, 404)
	feed.Write(make([]byte, 500))
	feed.Close()
	if got := <-ended; got != 200 {
		t.Errorf("the first: %d", got)
	}
	k.expect("GET", pathUpgrade+"check_fw", token, 201)
	if got := k.upload(api.RoleUser, "ui", "webroot.tar", strings.Repeat("x", 100)).status; got != 200 {
		t.Errorf("after it: %d", got)
	}
}

// A token that ends while the image is under way does not bring it in.
func TestUploadCountsFromItsEnd(t *testing.T) {
	k := newKeeper(t, nil)
	body, feed := io.Pipe()
	req, err := http.NewRequest("POST", k.base+pathUpgrade+"upload_fw", body)
	if err != nil {
		t.Fatal(err)
	}
	req.ContentLength, req.Header = 1000, disposition("firmware.bin")
	req.Header.Set("Authorization", "Bearer "+*k.as(api.RoleUser, api.ScopeSystemUpgrade))
	go func() {
		feed.Write(make([]byte, 900))
		for k.upload(api.RoleUser, "ui", "webroot.tar", strings.Repeat("x", 100)).status != 409 { // until it is under way
		}
		k.reboot()
		feed.Write(make([]byte, 100))
		feed.Close()
	}()
	resp, err := k.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 401 {
		t.Errorf("%d, want 401", resp.StatusCode)
	}
	k.expect("GET", pathUpgrade+"check_fw", k.as(api.RoleUser, api.ScopeSystemUpgrade), 404)
}

// FuzzUploadHeader sends anything for the head of an upload whose body is too short
// to be taken. A name that is taken says so by another status; nothing is a 500.
func FuzzUploadHeader(f *testing.F) {
	m := hemtest.New(f, &hemtest.Options{Fresh: true})
	for _, text := range []string{
		`attachment; filename="firmware.bin"`, "attachment; filename=firmware.hex", "attachment; filename*=UTF-8''firmware%2Ebin", "attachment; filename*0=firm; filename*1=ware.bin",
		"", ";", "attachment;;", `attachment; filename="firmware.bin`, "attachment; filename=\"\\", "a/b; c=d", strings.Repeat(";a=b", 200), "attachment; filename*=x'y'%",
	} {
		f.Add(text, "application/octet-stream", "")
	}
	f.Add("attachment", "multipart/form-data; boundary=x", "gzip")
	client := m.HTTPClient()
	f.Fuzz(func(t *testing.T, text, contentType, encoding string) {
		header := http.Header{"Content-Disposition": {text}, "Content-Type": {contentType}, "Content-Encoding": {encoding}}
		name := httpapi.UploadName(header)
		req, err := http.NewRequest("POST", m.HTTPURL+pathUpgrade+"upload_fw", strings.NewReader("short"))
		if err != nil {
			t.Fatal(err)
		}
		req.Header = header
		resp, err := client.Do(req)
		if err != nil {
			return // not a header that can be sent
		}
		resp.Body.Close()
		want := 413
		if name == "firmware.bin" || name == "firmware.hex" {
			want = 406
		}
		// What the wire does to blanks around a value is not ours.
		if resp.StatusCode != want && resp.StatusCode != 400 && resp.StatusCode != 431 && strings.TrimSpace(text) == text {
			t.Fatalf("%q: %d, want %d", text, resp.StatusCode, want)
		}
	})
}

// Whoever sends a part of a body, or none, and then nothing, does not keep the
// connection: neither when the body is cut off, nor when it was not wanted.
func TestThreat_T200_NoConnectionIsHeldByABody(t *testing.T) {
	m := hemtest.New(t, &hemtest.Options{TrustedBackends: [][]byte{newBackend().key.Public()}})
	k := keeperOf(t, m)
	k.update(api.RoleUser, `{"http_option_dosprot_mode":1}`)
	addr := strings.TrimPrefix(m.HTTPURL, "http://")
	token := *k.as(api.RoleUser, api.ScopeSystemUpgrade)
	var wg sync.WaitGroup
	for name, request := range map[string]string{
		"a body that is cut off":   "POST /api/system/checkin HTTP/1.1\r\nContent-Length: 100\r\n",
		"an upload without a name": "POST /api/system/upgrade/upload_fw HTTP/1.1\r\nAuthorization: Bearer " + token + "\r\nContent-Length: 100000\r\n",
		"an upload that is too short": "POST /api/system/upgrade/upload_fw HTTP/1.1\r\nAuthorization: Bearer " + token +
			"\r\nContent-Disposition: attachment; filename=firmware.bin\r\nContent-Length: 60\r\n",
	} {
		wg.Go(func() {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(40 * time.Second))
			if _, err := io.WriteString(conn, request+"Host: 127.0.0.1\r\n\r\n{"); err != nil {
				t.Error(err)
			}
			got, err := io.ReadAll(conn)
			if err != nil || !bytes.HasPrefix(got, []byte("HTTP/1.1 4")) {
				t.Errorf("%s: %q, %v", name, got, err)
			}
		})
	}
	wg.Wait()
}

// An upload that is under way when the module is wiped is not taken, by neither module.
func TestUploadDuringAWipe(t *testing.T) {
	now := time.Now()
	k := newKeeper(t, &hemtest.Options{Clock: func() time.Time { return now }, Seed: "upload-wipe", DataDir: filepath.Join(t.TempDir(), "data")})
	body, feed := io.Pipe()
	req, err := http.NewRequest("POST", k.base+pathUpgrade+"upload_fw", body)
	if err != nil {
		t.Fatal(err)
	}
	req.ContentLength, req.Header = 1000, disposition("firmware.bin")
	req.Header.Set("Authorization", "Bearer "+*k.as(api.RoleUser, api.ScopeSystemUpgrade))
	ended := make(chan int, 1)
	go func() {
		status := 0
		if resp, err := k.client.Do(req); err == nil {
			resp.Body.Close()
			status = resp.StatusCode
		}
		ended <- status
	}()
	feed.Write(make([]byte, 900))
	for k.upload(api.RoleUser, "ui", "webroot.tar", strings.Repeat("x", 100)).status != 409 { // until it is under way
	}
	fresh := newPeer(t, k.module).plain()
	if a := k.do(request{method: "POST", path: "/api/system/config", token: k.as(api.RoleUser, api.ScopeSystemConfig), body: `{"wipeout":true}`}); a.status != 200 {
		t.Fatal(a.status)
	}
	status := 0
	for deadline := time.Now().Add(time.Minute); status != 200 && time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if resp, err := k.client.Get(k.module.HTTPURL + "/api/system/status"); err == nil {
			resp.Body.Close()
			status = resp.StatusCode
		}
	}
	feed.Write(make([]byte, 100))
	feed.Close()
	if got := <-ended; got != 409 {
		t.Errorf("%d, want 409", got)
	}
	fresh.expect("GET", pathUpgrade+"check_fw", nil, 404)
}

// An upload may take longer than an answer.
func TestSlowUploadOverHTTP2(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n, err := httpapi.ReadUpload(w, r); err != nil || n != 4 || r.ProtoMajor != 2 {
			t.Errorf("%d bytes, %v, %s", n, err, r.Proto)
		}
	}))
	s.EnableHTTP2 = true
	s.Config.ReadTimeout, s.Config.WriteTimeout = time.Second, time.Second
	s.StartTLS()
	defer s.Close()
	body, feed := io.Pipe()
	go func() {
		for range 4 {
			feed.Write([]byte("x"))
			time.Sleep(500 * time.Millisecond)
		}
		feed.Close()
	}()
	resp, err := s.Client().Post(s.URL, "application/octet-stream", body)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
}
