package server_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"softhem/api"
	"softhem/hem"
	"softhem/internal/audit"
	"softhem/internal/store"
	"softhem/internal/store/sqlitestore"
	"softhem/internal/suite"
)

// keysSaid is what a module answered of keys, and what it was asked to do
// besides.
type keysSaid struct {
	mu      sync.Mutex
	made    map[hem.KID]string // label, of what was answered
	asked   map[hem.KID]bool   // to be deleted, answered or not
	deleted map[hem.KID]bool   // answered
	answers int
}

func newKeysSaid() *keysSaid {
	return &keysSaid{made: make(map[hem.KID]string), asked: make(map[hem.KID]bool), deleted: make(map[hem.KID]bool)}
}

func (s *keysSaid) add(kid hem.KID, label string, err error) {
	if err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.made[kid] = label
	s.answers++
}

// victim is a key that nobody was asked to delete yet.
func (s *keysSaid) victim() (kid hem.KID, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for kid := range s.made { // in random order
		if !s.asked[kid] {
			s.asked[kid] = true
			return kid, true
		}
	}
	return kid, false
}

func (s *keysSaid) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.answers
}

// busyWithKeys creates, imports, derives and deletes until ctx ends; source is
// what is derived from.
func busyWithKeys(ctx context.Context, t *testing.T, p *process, user *hem.PersonaKey, source hem.KID, said *keysSaid) *sync.WaitGroup {
	t.Helper()
	types := []api.KeyType{api.AES256, api.Ed25519, api.SHA3x256, api.SECP256R1, api.MLKEM512}
	curve, _ := suite.AlgorithmOf(api.Curve25519)
	public := func() []byte {
		k, err := curve.Open(curve.NewMaterial())
		if err != nil {
			t.Error(err)
		}
		return k.Public()
	}
	spec := func(t api.KeyType) hem.KeySpec {
		return hem.KeySpec{Label: fmt.Sprintf("%s %x", t, rand.Uint32()), Type: t, Descr: []byte("killed")}
	}
	var wg sync.WaitGroup
	work := func(do func(c *hem.Client)) {
		c := newClient(t, p, user)
		wg.Go(func() {
			for ctx.Err() == nil {
				do(c)
			}
		})
	}
	for range 2 {
		work(func(c *hem.Client) {
			s := spec(types[rand.IntN(len(types))])
			kid, err := c.CreateKey(ctx, s)
			said.add(kid, s.Label, err)
		})
	}
	work(func(c *hem.Client) {
		s, raw := spec(api.Curve25519), public()
		kid, err := c.ImportKey(ctx, s, raw)
		said.add(kid, s.Label, err)
	})
	work(func(c *hem.Client) {
		s := spec(types[rand.IntN(4)])
		kid, err := c.DeriveKey(ctx, source, hem.PeerPublic(public()), s)
		said.add(kid, s.Label, err)
	})
	work(func(c *hem.Client) {
		kid, ok := said.victim()
		if !ok {
			time.Sleep(time.Millisecond)
			return
		}
		if c.DeleteKey(ctx, kid) == nil {
			said.mu.Lock()
			defer said.mu.Unlock()
			said.deleted[kid] = true
			said.answers++
		}
	})
	return &wg
}

// recordsOf reads and verifies all log files of a folder.
func recordsOf(t *testing.T, dir string, eidSign []byte) (all []audit.Entry) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "audit", "????????"))
	if err != nil || len(files) == 0 {
		t.Fatalf("log files %v: %v", files, err)
	}
	for _, name := range files {
		content, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for e, err := range audit.Entries(bytes.NewReader(content), eidSign) {
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			all = append(all, e)
		}
	}
	return all
}

// checkKeys holds the keys of a module against its log and against what was
// answered.
func checkKeys(t *testing.T, dir string, p *process, user *hem.PersonaKey, said *keysSaid) {
	t.Helper()
	ctx := t.Context()
	c := newClient(t, p, user)
	config, err := c.Config(ctx)
	if err != nil {
		t.Fatal(err)
	}
	eidSign, err := api.DecodeBase64(config.EIDSign)
	if err != nil {
		t.Fatal(err)
	}
	listed := make(map[hem.KID]hem.KeyInfo)
	for info, err := range c.AllKeys(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		if _, twice := listed[info.KID]; twice {
			t.Errorf("%s is listed twice", info.KID)
		}
		listed[info.KID] = info
	}
	made, removed := make(map[hem.KID]int), make(map[hem.KID]int)
	for _, e := range recordsOf(t, dir, eidSign) {
		if e.Type == audit.KeyIntegrityError {
			t.Errorf("the log says that %x is damaged", e.Arg)
		}
		if e.Result != audit.OK || len(e.Arg) != len(hem.KID{}) {
			continue
		}
		switch e.Type {
		case audit.KeyGeneration, audit.KeyImport, audit.KeyDerive:
			made[hem.KID(e.Arg)]++
		case audit.KeyDelete:
			removed[hem.KID(e.Arg)]++
		}
	}
	for kid := range maps.Keys(listed) {
		if made[kid] != 1 || removed[kid] != 0 {
			t.Errorf("%s is listed; the log says it was made %d times and deleted %d times", kid, made[kid], removed[kid])
		}
	}
	for kid, n := range made {
		if _, ok := listed[kid]; n != 1 || removed[kid] > 1 || ok == (removed[kid] == 1) {
			t.Errorf("the log says %s was made %d times and deleted %d times; listed: %v", kid, n, removed[kid], ok)
		}
	}
	for kid, label := range said.made {
		info, ok := listed[kid]
		switch {
		case made[kid] == 0:
			t.Errorf("%s was answered, and the log does not have it", kid)
		case !ok && !said.asked[kid]:
			t.Errorf("%s was answered and is lost", kid)
		case ok && info.Label != label:
			t.Errorf("%s is labelled %q, want %q", kid, info.Label, label)
		}
	}
	for kid := range said.deleted {
		if _, ok := listed[kid]; ok || removed[kid] != 1 {
			t.Errorf("%s was deleted, as was answered; listed: %v, deletions in the log: %d", kid, ok, removed[kid])
		}
	}
	// What is there works.
	for _, info := range listed {
		key, err := c.GetKey(ctx, info.KID)
		if err != nil || key.Type != info.Traits.Type {
			t.Errorf("%s: %+v, %v", info.KID, key, err)
		}
	}
	works := 0
	for _, info := range slices.Collect(maps.Values(listed)) {
		if works == 10 {
			break
		}
		switch info.Traits.Type {
		case api.AES256:
			_, err = c.Encrypt(ctx, info.KID, "AES256-GCM", []byte("m"), nil)
		case api.Ed25519:
			_, err = c.Sign(ctx, info.KID, []byte("m"), api.AlgEd25519, nil)
		case api.MLKEM512:
			_, _, err = c.Encapsulate(ctx, info.KID)
		default:
			continue
		}
		works++
		if err != nil {
			t.Errorf("%s of type %s: %v", info.KID, info.Traits, err)
		}
	}
	if status, err := c.Status(ctx); err != nil || status.FLSState != 0 {
		t.Errorf("status %+v, %v", status, err)
	}
}

// readyForKeys personalises a module and makes the key to derive from.
func readyForKeys(t *testing.T, p *process, user, master *hem.PersonaKey, said *keysSaid) (source hem.KID) {
	t.Helper()
	c := newClient(t, p, user)
	if _, err := c.Init(t.Context(), hem.InitParams{UserKey: user, MasterKey: master, Config: api.InitConfig{
		User: "keys", Hostname: "localhost", Origin: "*", TrustedTS: true,
	}}); err != nil {
		t.Fatal(err)
	}
	source, err := c.CreateKey(t.Context(), hem.KeySpec{Label: "source", Type: api.Curve25519})
	if err != nil {
		t.Fatal(err)
	}
	said.add(source, "source", nil)
	said.asked[source] = true // to be spared
	return source
}

// A graveyard knows the sealed parts of the keys that a folder ever had when it
// was looked at.
type graveyard map[hem.KID][]byte

// look reads the keys of a folder that no process runs on. It opens a copy:
// opening is what clears the remains away.
func (g graveyard) look(t *testing.T, dir string) {
	t.Helper()
	copied := filepath.Join(t.TempDir(), "hem.db")
	for _, suffix := range []string{"", "-wal"} {
		content, err := os.ReadFile(filepath.Join(dir, "hem.db"+suffix))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err == nil {
			err = os.WriteFile(copied+suffix, content, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	db, err := sqlitestore.Open(t.Context(), sqlitestore.Config{Path: copied})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var rows []store.Key
	if err := db.View(t.Context(), func(r store.Reader) (err error) {
		rows, err = r.KeysAfter(t.Context(), 0, 1<<30)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	for _, row := range rows {
		g[hem.KID(row.KID)] = row.Sealed
	}
}

// check searches the files of a folder for what is not listed any more, and
// returns how many keys that are.
func (g graveyard) check(t *testing.T, dir string, c *hem.Client) (gone int) {
	t.Helper()
	listed := make(map[hem.KID]bool)
	for info, err := range c.AllKeys(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		listed[info.KID] = true
	}
	var files []byte
	for _, name := range []string{"hem.db", "hem.db-wal"} {
		content, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		files = append(append(files, content...), name...)
	}
	for kid, sealed := range g {
		found := slices.ContainsFunc([]int{1, 25, 60, 111}, func(at int) bool { return bytes.Contains(files, sealed[at:at+16]) })
		switch {
		case found && !listed[kid]:
			t.Errorf("%s is deleted, and its sealed part is still there", kid)
		case !found && listed[kid]:
			t.Errorf("%s is listed, and its sealed part is not found: this searches nothing", kid)
		}
	}
	maps.DeleteFunc(g, func(kid hem.KID, _ []byte) bool {
		if !listed[kid] {
			gone++
		}
		return !listed[kid]
	})
	return gone
}

// Modules are killed while they create, import, derive and delete keys. Nothing
// that was answered is lost or comes back, there is a key exactly where the log
// has one, and of a deleted key nothing is left once the module runs again,
// also if the kill came between the delete and the end of its work.
func TestKilledWhileKeysChange(t *testing.T) {
	folders, perFolder, patience := 3, 8, 40*time.Second // for a machine that is slow, or watched for races
	if testing.Short() {
		folders = 1
	}
	user, master := loadKeys(t)
	kills, total, deleted, searched := 0, 0, 0, 0
	start := time.Now()
	for folder := 0; folder < folders && time.Since(start) < patience; folder++ {
		dir := filepath.Join(t.TempDir(), "data")
		said := newKeysSaid()
		p := startProcess(t, dir)
		source := readyForKeys(t, p, user, master, said)
		graves := make(graveyard)
		for n := 0; n < perFolder && (n < 3 || time.Since(start) < patience); n++ {
			kills++
			ctx, cancel := context.WithCancel(t.Context())
			before, wanted := said.count(), rand.IntN(60)
			wg := busyWithKeys(ctx, t, p, user, source, said)
			// By what was done, not by the clock, so that a slow machine is at work too.
			for deadline := time.Now().Add(5 * time.Second); said.count() < before+wanted && time.Now().Before(deadline); {
				time.Sleep(100 * time.Microsecond)
			}
			time.Sleep(time.Duration(rand.N(3_000)) * time.Microsecond)
			p.kill()
			cancel()
			wg.Wait()
			next := make(graveyard)
			next.look(t, dir)
			p = startProcess(t, dir)
			searched += graves.check(t, dir, newClient(t, p, user))
			maps.Copy(graves, next)
		}
		checkKeys(t, dir, p, user, said)
		p.kill()
		if t.Failed() {
			t.Fatalf("folder %d", folder)
		}
		total, deleted = total+said.count(), deleted+len(said.deleted)
	}
	t.Logf("%d kills, %d changes of keys were answered before them, %d of them deletions; %d deleted keys were searched for", kills, total, deleted, searched)
	if total < 10*kills || deleted < kills || searched == 0 {
		t.Error("the modules were hardly at work when they were killed")
	}
}
