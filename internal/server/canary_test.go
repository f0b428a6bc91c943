package server_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"softhem/api"
	"softhem/hem"
	"softhem/internal/server"
	"softhem/internal/suite"
)

// lockedBuffer is a log that several goroutines write. The buffer is not
// embedded: its ReadFrom would go round the lock.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) text() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// Secrets that are known beforehand pass through a module, in right and wrong
// uses; afterwards none of them is found in any spelling in what it leaves
// behind: its log, its audit log, its database, its error answers.
func TestSecretsLeaveNoTrace(t *testing.T) {
	ctx := context.Background()
	dir := filepath.Join(t.TempDir(), "data")
	seed := []byte("canary")
	log := new(lockedBuffer)
	cfg := testConfig(dir)
	cfg.Seed = seed
	cfg.Logger = slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	s, err := server.Start(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	stop := sync.OnceFunc(func() {
		if err := s.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)

	// What the module draws for its identity, drawn again.
	stream := rand.NewChaCha8(suite.SHA256(seed))
	identity := make([]byte, 96)
	if _, err := io.ReadFull(stream, identity); err != nil {
		t.Fatal(err)
	}
	eid, err := suite.NewX25519Key(identity[:32])
	if err != nil {
		t.Fatal(err)
	}
	if api.EncodeBase64(eid.Public()) != s.Module().EID() {
		t.Fatal("the canaries are not the module's secrets: it drew another identity")
	}
	const userPass, masterPass, email = "canary passphrase of the user", "canary passphrase of the master", "canary@mail.example"
	user, err := hem.DeriveKey([]byte(userPass), s.Module().EID())
	if err != nil {
		t.Fatal(err)
	}
	master, err := hem.DeriveKey([]byte(masterPass), s.Module().EID())
	if err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(s.CAFile())
	if err != nil {
		t.Fatal(err)
	}
	url := "https://" + s.Addresses().HTTPS
	client, err := hem.New(hem.Config{URL: url, CACert: ca, Key: user})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	answer, err := client.Init(ctx, hem.InitParams{UserKey: user, MasterKey: master, Config: api.InitConfig{
		User: "canary user", Email: email, Hostname: "localhost", Origin: "*",
	}})
	if err != nil {
		t.Fatal(err)
	}
	token, err := client.Login(ctx, "canary:scope")
	if err != nil {
		t.Fatal(err)
	}
	// Wrong uses, which make the module complain.
	var headers []string
	for _, req := range []struct{ method, path, bearer, body string }{
		{"GET", "/api/system/config", string(token.Bearer), ""},
		{"GET", "/api/system/config", string(token.Bearer) + "x", ""},
		{"POST", "/api/auth/token", "", `{"auth":"` + string(token.Bearer) + `"}`},
		{"POST", "/api/auth/token", "", `{"auth":"` + userPass + `"}`},
		{"POST", "/api/auth/token", "", `{"auth":"` + userPass},
		{"POST", "/api/auth/init", "", `{"init":"` + answer.Token + `"}`},
		{"POST", "/api/system/checkin", "", `{"checked":"` + answer.Token + `"}`},
		{"GET", "/api/" + userPass, "", ""},
		{"GET", "/api/system/status", answer.Token + answer.Token, ""},
	} {
		r, err := http.NewRequest(req.method, "http://"+s.Addresses().HTTP+strings.ReplaceAll(req.path, " ", "%20"), strings.NewReader(req.body))
		if err != nil {
			t.Fatal(err)
		}
		if req.bearer != "" {
			r.Header.Set("Authorization", "Bearer "+req.bearer)
		}
		resp, err := plainClient().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode < 400 {
			t.Errorf("%s %s: %d, meant to be refused", req.method, req.path, resp.StatusCode)
		}
		raw, _ := json.Marshal(resp.Header)
		headers = append(headers, string(raw)+string(body))
	}
	if err := client.Reboot(ctx); err != nil {
		t.Fatal(err)
	}
	rootKey, err := os.ReadFile(filepath.Join(dir, "root.key"))
	if err != nil {
		t.Fatal(err)
	}

	secrets := map[string][]byte{
		"the user's passphrase":   []byte(userPass),
		"the master's passphrase": []byte(masterPass),
		"a bearer token":          []byte(token.Bearer),
		"the token's MAC":         []byte(string(token.Bearer)[strings.LastIndex(string(token.Bearer), ".")+1:]),
		"the token of the init":   []byte(answer.Token),
		"the user's public key":   user.Public(), // passphrases can be guessed from it
		"the master's public key": master.Public(),
		"the X25519 identity":     identity[:32],
		"the Ed25519 identity":    identity[32:64],
		"the attestation key":     identity[64:96],
		"the root key":            rootKey,
		"the email address":       []byte(email),
	}
	places := map[string][]byte{"the answers": []byte(strings.Join(headers, "\n"))}
	collect := func() {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || d.Name() == "root.key" {
				return err
			}
			places[d.Name()], err = os.ReadFile(path)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	collect() // with the write-ahead log, while the module runs
	running := places
	places = make(map[string][]byte)
	stop()
	collect()
	places["the operator's log"] = []byte(log.text())
	if _, ok := running["hem.db"]; !ok || len(places["the operator's log"]) == 0 {
		t.Fatal("there is nothing to search")
	}
	for name, content := range running {
		places["running: "+name] = content
	}
	for place, content := range places {
		for what, secret := range secrets {
			for form, spelled := range map[string]string{
				"raw": string(secret), "hex": hex.EncodeToString(secret), "HEX": strings.ToUpper(hex.EncodeToString(secret)),
				"base64": base64.RawStdEncoding.EncodeToString(secret), "base64url": base64.RawURLEncoding.EncodeToString(secret),
			} {
				if bytes.Contains(content, []byte(spelled)) {
					t.Errorf("%s stands in %s (%s)", what, place, form)
				}
			}
		}
	}
	// The search finds what is there.
	if !bytes.Contains(places["the operator's log"], []byte("login refused")) {
		t.Error("the operator was not told of refused logins")
	}
}
