package server_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"softhem/api"
	"softhem/hem"
	"softhem/internal/server"
)

// repairable is the folder of a module that has ended, with keys called "key number
// n" whose kids are known.
type repairable struct {
	user, master *hem.PersonaKey
	cfg          server.Config
	eid          string
	kids         []hem.KID
}

func makeRepairable(t *testing.T, keys int) *repairable {
	t.Helper()
	ctx := context.Background()
	r := &repairable{cfg: testConfig(filepath.Join(t.TempDir(), "data"))}
	r.user, r.master = loadKeys(t)
	s, err := server.Start(ctx, r.cfg)
	if err != nil {
		t.Fatal(err)
	}
	o := own(t, await(t, "https://"+s.Addresses().HTTPS, s.CAFile(), "", r.user), r.user, r.master)
	r.eid = o.eid
	for n := range keys {
		kid, err := o.client.CreateKey(ctx, hem.KeySpec{Label: fmt.Sprint("key number ", n), Type: api.Ed25519, Descr: fmt.Appendf(nil, "descr of number %d", n)})
		if err != nil {
			t.Fatal(err)
		}
		r.kids = append(r.kids, kid)
	}
	if err := s.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	return r
}

// copy is the same folder once more.
func (r *repairable) copy(t *testing.T) *repairable {
	t.Helper()
	c := *r
	c.cfg.DataDir = filepath.Join(t.TempDir(), "data")
	if out, err := exec.Command("cp", "-a", r.cfg.DataDir, c.cfg.DataDir).CombinedOutput(); err != nil {
		t.Fatal(err, string(out))
	}
	return &c
}

func (r *repairable) db() string { return filepath.Join(r.cfg.DataDir, "hem.db") }

// change edits the database's file.
func (r *repairable) change(t *testing.T, edit func(file []byte)) {
	t.Helper()
	file, err := os.ReadFile(r.db())
	if err != nil {
		t.Fatal(err)
	}
	edit(file)
	if err := os.WriteFile(r.db(), file, 0o600); err != nil {
		t.Fatal(err)
	}
}

// sql runs a statement on the database, as who can write the file may.
func (r *repairable) sql(t *testing.T, statement string) {
	t.Helper()
	if err := server.ExecSQL(r.db(), statement); err != nil {
		t.Fatal(err)
	}
}

func (r *repairable) open(t *testing.T) *server.Repair {
	t.Helper()
	rep, err := server.OpenRepair(context.Background(), r.cfg)
	if err != nil {
		t.Fatal(err)
	}
	return rep
}

// repair does it and returns the quarantine file's content.
func (r *repairable) repair(t *testing.T) (found *server.Repair, quarantine string) {
	t.Helper()
	rep := r.open(t)
	file, err := rep.Do(context.Background())
	if err := errors.Join(err, rep.Close(context.Background())); err != nil {
		t.Fatal(err)
	}
	if file == "" {
		return rep, ""
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%s: %v %v", file, info.Mode(), err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return rep, string(text)
}

// works starts the module: it has no fail state, the old identity, and all keys
// but gone, which work.
func (r *repairable) works(t *testing.T, gone ...int) {
	t.Helper()
	ctx := context.Background()
	s, err := server.Start(ctx, r.cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Stop(ctx); err != nil {
			t.Error(err)
		}
	}()
	ca, err := os.ReadFile(s.CAFile())
	if err != nil {
		t.Fatal(err)
	}
	client, err := hem.New(hem.Config{URL: "https://" + s.Addresses().HTTPS, CACert: ca, Key: r.user})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	missing := make(map[int]bool)
	for _, n := range gone {
		missing[n] = true
	}
	for n, kid := range r.kids {
		sig, err := client.Sign(ctx, kid, []byte("message"), api.AlgEd25519, nil)
		if missing[n] {
			if !errors.Is(err, api.ErrNotAcceptable) {
				t.Errorf("key %d, which is gone: %v", n, err)
			}
			continue
		}
		if err == nil {
			err = client.Verify(ctx, kid, []byte("message"), sig, api.AlgEd25519, nil)
		}
		if err != nil {
			t.Errorf("key %d: %v", n, err)
		}
	}
	page, err := client.ListKeys(ctx, 0, 15)
	if err != nil || page.Total != len(r.kids)+1-len(gone) { // and that of own
		t.Errorf("a list has %d keys: %v", page.Total, err)
	}
	if s.Module().FailState() != 0 || s.Module().EID() != r.eid {
		t.Errorf("fail state %02x", s.Module().FailState())
	}
	if _, err := client.CreateKey(ctx, hem.KeySpec{Label: "new", Type: api.Ed25519}); err != nil {
		t.Errorf("a new key: %v", err)
	}
}

// T183: one damaged key stops a module, and after a repair it works with all
// others, whatever bit of its row was changed. What was taken out is in a file,
// and in the log.
func TestThreat_T183_RepairOfADamagedKey(t *testing.T) {
	ctx := context.Background()
	whole := makeRepairable(t, 5)
	for name, edit := range map[string]func(file []byte, row int){
		"the label":           func(f []byte, row int) { f[row+bytes.Index(f[row:], []byte("number 3"))] ^= 1 },
		"the descr":           func(f []byte, row int) { f[row+bytes.Index(f[row:], []byte("descr of"))] ^= 0x20 },
		"the kid":             func(f []byte, row int) { f[row] ^= 0x80 },
		"the type":            func(f []byte, row int) { f[row+16] ^= 1 },
		"the public key":      func(f []byte, row int) { f[row+bytes.Index(f[row:], []byte("descr of number 3"))+17+5] ^= 4 },
		"the row's own form":  func(f []byte, row int) { f[row-11] = 0x7f },
		"the type of a field": func(f []byte, row int) { f[row-10] = 0x7f },
	} {
		t.Run(name, func(t *testing.T) {
			r := whole.copy(t)
			r.change(t, func(file []byte) {
				row := -1
				for at := 0; ; at++ {
					next := bytes.Index(file[at:], r.kids[3][:])
					if next < 0 {
						break
					}
					if at += next; bytes.Contains(file[at:at+80], []byte("key number 3")) {
						row = at
					}
				}
				if row < 0 {
					t.Fatal("the row is not in the file")
				}
				edit(file, row)
			})
			// SQLite itself cannot read the row: there is nothing of it to be kept but
			// its sealed part.
			lines := 1
			if strings.Contains(name, "form") || strings.Contains(name, "field") {
				lines = 2
			}
			s, err := server.Start(ctx, r.cfg)
			if err != nil {
				t.Fatal(err)
			}
			for deadline := time.Now().Add(20 * time.Second); s.Module().FailState() == 0 && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
			}
			if fls := s.Module().FailState(); fls != 8 {
				t.Errorf("fail state %02x", fls)
			}
			if err := s.Stop(ctx); err != nil {
				t.Error(err)
			}

			before, err := os.ReadFile(r.db())
			if err != nil {
				t.Fatal(err)
			}
			look := r.open(t)
			if len(look.Keys) != 1 || !look.Any() || look.Lost() || look.KeysChecked != 6 {
				t.Errorf("found: %+v", look.Damage)
			}
			if err := look.Close(ctx); err != nil {
				t.Error(err)
			}
			if after, err := os.ReadFile(r.db()); err != nil || !bytes.Equal(before, after) {
				t.Errorf("looking has changed the database: %v", err)
			}
			_, quarantine := r.repair(t)
			if strings.Count(quarantine, "\n") != lines || !strings.Contains(quarantine, `"sealed":`) || !strings.Contains(quarantine, `"what":"key"`) {
				t.Errorf("the quarantine file has\n%s", quarantine)
			}
			r.works(t, 3)
			records := r.log(t)
			if !strings.Contains(records, "KEY_INTEGRITY_ERROR ERROR") || !strings.Contains(records, "KEY_DELETE OK") || !strings.Contains(records, "SHUTDOWN") {
				t.Errorf("the log says\n%s", records)
			}
			if again := r.open(t); again.Any() {
				t.Errorf("after the repair: %+v", again.Damage)
			} else if err := again.Close(ctx); err != nil {
				t.Error(err)
			}
		})
	}
}

// log is the log's records as type, result and argument.
func (r *repairable) log(t *testing.T) string {
	t.Helper()
	text, err := server.LogOf(r.cfg)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// Of a whole module a repair finds nothing to do.
func TestRepairOfAWholeModule(t *testing.T) {
	r := makeRepairable(t, 3)
	rep := r.open(t)
	if rep.Any() || rep.Lost() || len(rep.Keys)+len(rep.Records)+len(rep.Faults) > 0 || rep.KeysChecked != 4 || rep.RecordsChecked < 5 {
		t.Errorf("%+v", rep.Damage)
	}
	if err := rep.Close(context.Background()); err != nil {
		t.Error(err)
	}
	r.works(t)
}

// Records that a module can be without go; those it cannot be without stay,
// and are named.
func TestRepairOfRecords(t *testing.T) {
	ctx := context.Background()
	whole := makeRepairable(t, 1)
	for where, kept := range map[string]bool{
		"kind = 'identity'": true, "kind = 'config'": true, "kind = 'persona' AND id = 'M'": true,
		"kind = 'tls' AND id = 'ca'": false, "kind = 'tls' AND id = 'pair'": false,
		"kind = 'audit-head'": false, "kind = 'audit-file'": false, "kind = 'pairings'": false, "kind = 'provisioning'": false,
	} {
		t.Run(where, func(t *testing.T) {
			r := whole.copy(t)
			for _, kind := range []string{"pairings", "provisioning"} { // this module has none
				if strings.Contains(where, kind) {
					r.sql(t, "INSERT INTO record VALUES ('"+kind+"', 'module', zeroblob(80))")
				}
			}
			r.sql(t, "UPDATE record SET sealed = CAST(substr(sealed, 1, length(sealed) - 1) || x'00' AS BLOB) WHERE "+where)
			if s, err := server.Start(ctx, r.cfg); err == nil {
				_ = s.Stop(ctx)
				t.Fatal("the module starts all the same")
			}
			rep := r.open(t)
			if len(rep.Records) == 0 || rep.Lost() != kept || rep.Any() == kept || rep.Records[0].Means == "" {
				t.Errorf("%+v", rep.Damage)
			}
			if err := rep.Close(ctx); err != nil {
				t.Error(err)
			}
			if kept {
				return
			}
			_, quarantine := r.repair(t)
			if !strings.Contains(quarantine, `"sealed":"`) {
				t.Errorf("the quarantine file has\n%s", quarantine)
			}
			r.works(t)
			if records := r.log(t); !strings.Contains(records, "NON_SECURE_STATE ERROR repair ") {
				t.Errorf("the log says\n%s", records)
			}
		})
	}
	for _, where := range []string{"kind = 'persona' AND id = 'U'", "kind = 'config'", "kind = 'identity'"} {
		r := whole.copy(t)
		r.sql(t, "DELETE FROM record WHERE "+where)
		rep := r.open(t)
		if !rep.Lost() {
			t.Errorf("%s is missing, and nothing is lost: %+v", where, rep.Damage)
		}
		if strings.Contains(where, "identity") {
			if _, err := rep.Do(ctx); err == nil {
				t.Error("a module without identity was repaired")
			}
		}
		if err := rep.Close(ctx); err != nil {
			t.Error(err)
		}
	}
	t.Run("the log tail", func(t *testing.T) {
		r := whole.copy(t)
		r.sql(t, "UPDATE log_tail SET file = 'nonsense'")
		r.repair(t)
		r.works(t)
	})
	t.Run("an index", func(t *testing.T) {
		r := whole.copy(t)
		r.sql(t, "DELETE FROM key_suffix")
		rep, quarantine := r.repair(t)
		if !rep.Indexes || quarantine != "" {
			t.Errorf("%+v", rep.Damage)
		}
		r.works(t)
	})
}

// What a repair may not begin on.
func TestRepairRefusals(t *testing.T) {
	ctx := context.Background()
	refused := func(cfg server.Config, want string) {
		t.Helper()
		rep, err := server.OpenRepair(ctx, cfg)
		if err == nil {
			_ = rep.Close(ctx)
			t.Fatalf("no refusal: %s", want)
		}
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	empty := testConfig(filepath.Join(t.TempDir(), "data"))
	refused(empty, "there is no module in")
	if _, err := os.Stat(empty.DataDir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a repair has made a folder: %v", err)
	}
	r := makeRepairable(t, 1)
	s, err := server.Start(ctx, r.cfg)
	if err != nil {
		t.Fatal(err)
	}
	refused(r.cfg, "another process runs on")
	if err := s.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	r.change(t, func(file []byte) {
		for i := 4096; i < len(file); i += 4096 {
			file[i] = 0xee // of every page what says of which kind it is
		}
	})
	refused(r.cfg, "restore a backup")
}

// A wipe takes the quarantine with it.
func TestWipeTakesTheQuarantine(t *testing.T) {
	ctx := context.Background()
	r := makeRepairable(t, 2)
	r.sql(t, "UPDATE key SET created = created + 1 WHERE label = 'key number 0'")
	r.repair(t)
	s, err := server.Start(ctx, r.cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop(ctx)
	ca, err := os.ReadFile(s.CAFile())
	if err != nil {
		t.Fatal(err)
	}
	client, err := hem.New(hem.Config{URL: "https://" + s.Addresses().HTTPS, CACert: ca, Key: r.user})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.Wipe(ctx); err != nil {
		t.Fatal(err)
	}
	await(t, "https://"+s.Addresses().HTTPS, s.CAFile(), r.eid, r.user)
	if _, err := os.Stat(filepath.Join(r.cfg.DataDir, "quarantine")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the quarantine is still there: %v", err)
	}
}

// A repair that is killed at any instant can be done again: the key is whole in
// the quarantine file before it is gone from the store, and the log has it once
// it is gone for good.
func TestKilledDuringRepair(t *testing.T) {
	rounds := 6
	if testing.Short() {
		rounds = 4
	}
	whole := makeRepairable(t, 3)
	whole.sql(t, "UPDATE key SET label = 'changed' WHERE label = 'key number 1'")
	whole.sql(t, "UPDATE record SET sealed = zeroblob(80) WHERE kind IN ('tls', 'audit-head')")
	stages := make(map[string]int) // where kills came
	for range rounds {
		r := whole.copy(t)
		for {
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), envRepair+"="+r.cfg.DataDir)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if _, err := out.Read(make([]byte, 1)); err != nil { // it begins
				t.Fatal(err)
			}
			time.Sleep(rand.N(250 * time.Millisecond))
			_ = cmd.Process.Kill() // it may have ended
			if cmd.Wait() == nil {
				stages["after the end"]++
				break
			}
			files, err := filepath.Glob(filepath.Join(r.cfg.DataDir, "quarantine", "*"))
			if err != nil {
				t.Fatal(err)
			}
			look := r.open(t)
			if len(look.Keys) == 0 && len(files) == 0 {
				t.Fatal("the key is gone, and nowhere")
			}
			if err := look.Close(context.Background()); err != nil {
				t.Fatal(err)
			}
			switch {
			case len(files) == 0:
				stages["before the quarantine file"]++
			case len(look.Records) == 3:
				stages["before the log was opened"]++
			case len(look.Keys) > 0:
				stages["before the change"]++
			case look.Unrecorded:
				stages["before the file got its name"]++
			default:
				stages["after that"]++
			}
			if rand.N(3) == 0 { // and again, killed again
				continue
			}
			if look.Any() {
				r.repair(t)
			}
			break
		}
		r.works(t, 1)
		records := r.log(t)
		for _, want := range []string{"KEY_DELETE OK", "repair tls ca", "repair tls pair", "repair audit-head log"} {
			if !strings.Contains(records, want) {
				t.Errorf("the log does not say %s:\n%s", want, records)
			}
		}
		all, err := filepath.Glob(filepath.Join(r.cfg.DataDir, "quarantine", "*"))
		if err != nil || len(all) == 0 {
			t.Error("no quarantine file", err)
		}
		for _, name := range all {
			if strings.HasSuffix(name, ".pending") {
				t.Errorf("%s was never finished", name)
			}
		}
		if t.Failed() {
			return
		}
	}
	t.Logf("kills came %v", stages)
}
