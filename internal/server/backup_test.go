package server_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"filippo.io/age"
	"golang.org/x/sys/unix"

	"softhem/api"
	"softhem/hem"
	"softhem/internal/backup"
	"softhem/internal/control"
	"softhem/internal/seal"
	"softhem/internal/server"
)

// kept is a module in a folder, with an owner.
type kept struct {
	*owned
	cfg  server.Config
	s    *server.Server
	stop func()
}

func keep(t *testing.T, cfg server.Config) *kept {
	t.Helper()
	ctx := context.Background()
	s, err := server.Start(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	k := &kept{cfg: cfg, s: s}
	k.stop = sync.OnceFunc(func() {
		if err := s.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(k.stop)
	user, master := loadKeys(t)
	k.owned = own(t, k.connect(t, user), user, master)
	return k
}

func (k *kept) connect(t *testing.T, key *hem.PersonaKey) *hem.Client {
	t.Helper()
	ca, err := os.ReadFile(k.s.CAFile())
	if err != nil {
		t.Fatal(err)
	}
	c, err := hem.New(hem.Config{URL: "https://" + k.s.Addresses().HTTPS, CACert: ca, Key: key})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func (k *kept) backup(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := k.s.Backup(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// restart runs the module that a backup is of, in another folder.
func restart(t *testing.T, archive []byte) *kept {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "restored")
	if _, err := server.Restore(t.Context(), bytes.NewReader(archive), server.RestoreConfig{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	cfg := testConfig(dir)
	s, err := server.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	k := &kept{cfg: cfg, s: s}
	k.stop = sync.OnceFunc(func() {
		if err := s.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(k.stop)
	return k
}

// Backups that are taken while 16 clients make keys, and one deletes them, are
// of one moment each: restored, the module has every key that was answered before
// the backup was begun, every key in it is in its log and works, and the log is
// whole and not called a roll-back. No client notices.
func TestThreat_T150_BackupIsOfOneMoment(t *testing.T) {
	k := keep(t, testConfig(filepath.Join(t.TempDir(), "data")))
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	said := newKeysSaid()
	var wg sync.WaitGroup
	for i := range 16 {
		c := k.connect(t, k.user)
		wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				label := fmt.Sprintf("key %d of client %d", n, i)
				kid, err := c.CreateKey(ctx, hem.KeySpec{Label: label, Type: api.AES256})
				if err != nil && ctx.Err() == nil {
					t.Error(err)
					return
				}
				said.add(kid, label, err)
				time.Sleep(5 * time.Millisecond)
			}
		})
	}
	deleter := k.connect(t, k.user)
	wg.Go(func() {
		for ctx.Err() == nil {
			kid, ok := said.victim()
			if !ok {
				time.Sleep(time.Millisecond)
				continue
			}
			if err := deleter.DeleteKey(ctx, kid); err != nil && ctx.Err() == nil {
				t.Error(err)
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
	})
	type taken struct {
		archive []byte
		before  map[hem.KID]string // what was answered before it was begun
	}
	var backups []taken
	for range 3 {
		for from := said.count(); said.count() < from+64 && !t.Failed(); {
			time.Sleep(time.Millisecond)
		}
		said.mu.Lock()
		before := make(map[hem.KID]string)
		for kid, label := range said.made {
			before[kid] = label
		}
		said.mu.Unlock()
		backups = append(backups, taken{k.backup(t), before})
	}
	cancel()
	wg.Wait()
	for i, b := range backups {
		r := restart(t, b.archive)
		if r.s.Module().EID() != k.eid || r.s.Module().LogRolledBack() {
			t.Errorf("backup %d: module %s, log rolled back: %v", i, r.s.Module().EID(), r.s.Module().LogRolledBack())
		}
		c := r.connect(t, k.user)
		listed := make(map[hem.KID]string)
		for info, err := range c.AllKeys(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			listed[info.KID] = info.Label
		}
		for kid, label := range b.before {
			if listed[kid] != label && !said.asked[kid] {
				t.Errorf("backup %d lacks %q, which was answered before it began", i, label)
			}
		}
		conf, err := c.Config(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		eidSign, err := api.DecodeBase64(conf.EIDSign)
		if err != nil {
			t.Fatal(err)
		}
		alive := make(map[hem.KID]bool)
		for _, e := range recordsOf(t, r.cfg.DataDir, eidSign) {
			if e.Result == 0 && len(e.Arg) == len(hem.KID{}) && (e.Type == 0x14 || e.Type == 0x15) {
				alive[hem.KID(e.Arg)] = e.Type == 0x14
			}
		}
		for kid, yes := range alive {
			if _, there := listed[kid]; there != yes {
				t.Errorf("backup %d: the log says %v of %s, the store %v", i, yes, kid, there)
			}
		}
		tried := 0
		for kid := range listed {
			if _, ours := b.before[kid]; !ours || tried == 5 {
				continue
			}
			tried++
			if _, err := c.Encrypt(t.Context(), kid, "AES256-GCM", []byte("m"), nil); err != nil {
				t.Errorf("backup %d: %s: %v", i, kid, err)
			}
		}
		t.Logf("backup %d: %d bytes, %d keys, %d of them answered before", i, len(b.archive), len(listed), len(b.before))
		r.stop()
	}
}

// Check finds every backup that could not be restored: cut, of a store or a log
// that is damaged, of another root key. What it unpacks does not stay.
func TestCheckFindsBadBackups(t *testing.T) {
	k := keep(t, testConfig(filepath.Join(t.TempDir(), "data")))
	good := k.backup(t)
	if report, err := k.s.Check(t.Context(), bytes.NewReader(good)); err != nil || report.EID != k.eid || report.Keys != 1 || report.RootKey != backup.RootRaw || report.Records == 0 {
		t.Fatalf("%+v, %v", report, err)
	}
	change := func(name string, edit func(content []byte)) []byte {
		t.Helper()
		content := make(map[string][]byte)
		m, err := backup.Read(t.Context(), bytes.NewReader(good), func(_ *backup.Manifest, f backup.File, r io.Reader) (err error) {
			content[f.Name], err = io.ReadAll(r)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for full, b := range content {
			if strings.HasPrefix(full, name) {
				edit(b)
				found = true
			}
		}
		if !found {
			t.Fatalf("there is no %s", name)
		}
		var out bytes.Buffer
		err = backup.Write(t.Context(), &out, *m, func(name string) (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(content[name])), nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	descr := k.traces["descr"]
	for name, bad := range map[string][]byte{
		"cut":            good[:len(good)/2],
		"nothing":        nil,
		"another root":   change("root.key", func(b []byte) { b[0] ^= 1 }),
		"another data":   change("data.key", func(b []byte) { b[30] ^= 1 }),
		"a changed key":  change("hem.db", func(b []byte) { copy(b[bytes.Index(b, descr):], "DESCR") }),
		"a broken store": change("hem.db", func(b []byte) { clear(b[4096:8192]) }),
		"a changed log":  change("audit/", func(b []byte) { b[len(b)/2] ^= 1 }),
	} {
		if _, err := k.s.Check(t.Context(), bytes.NewReader(bad)); err == nil {
			t.Errorf("%s: passes", name)
		} else {
			t.Logf("%s: %v", name, err)
		}
		dir := filepath.Join(t.TempDir(), "restored")
		if _, err := server.Restore(t.Context(), bytes.NewReader(bad), server.RestoreConfig{Dir: dir}); err == nil {
			t.Errorf("%s: is restored", name)
		}
		if left, _ := filepath.Glob(dir + "*"); len(left) > 0 {
			t.Errorf("%s: left %v", name, left)
		}
	}
	leftovers(t, k.cfg.DataDir)
}

// leftovers fails if there is anything of a backup in a folder.
func leftovers(t *testing.T, dir string) {
	t.Helper()
	for _, name := range []string{"backup.new", "check.new"} {
		if _, err := os.Stat(filepath.Join(dir, name)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is left: %v", name, err)
		}
	}
}

// A backup goes only into a folder of its own, and the root key to where it is
// said to be.
func TestRestorePlaces(t *testing.T) {
	k := keep(t, testConfig(filepath.Join(t.TempDir(), "data")))
	archive := k.backup(t)
	restore := func(dir string, root seal.RootSource) error {
		_, err := server.Restore(t.Context(), bytes.NewReader(archive), server.RestoreConfig{Dir: dir, RootKey: root})
		return err
	}
	parent := t.TempDir()
	full := filepath.Join(parent, "full")
	if err := errors.Join(os.Mkdir(full, 0o700), os.WriteFile(filepath.Join(full, "theirs"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := restore(full, seal.RootSource{}); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("over files: %v", err)
	}
	if err := restore(filepath.Join(parent, "none", "x"), seal.RootSource{}); err == nil {
		t.Error("into a folder that is not there")
	}
	// What another has called so is not touched.
	foreign := filepath.Join(parent, "a.restoring")
	if err := errors.Join(os.Mkdir(foreign, 0o700), os.WriteFile(filepath.Join(foreign, "theirs"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := restore(filepath.Join(parent, "a"), seal.RootSource{}); err == nil {
		t.Error("a folder of somebody else's was used")
	}
	if _, err := os.Stat(filepath.Join(foreign, "theirs")); err != nil {
		t.Error(err)
	}

	// Nor is a module that a link of that name leads to.
	module := filepath.Join(parent, "module")
	if err := errors.Join(os.Mkdir(module, 0o700), os.WriteFile(filepath.Join(module, "hem.db"), nil, 0o600), os.Symlink(module, filepath.Join(parent, "b.restoring"))); err != nil {
		t.Fatal(err)
	}
	if err := restore(filepath.Join(parent, "b"), seal.RootSource{}); err == nil {
		t.Error("a link was followed")
	}
	if _, err := os.Stat(filepath.Join(module, "hem.db")); err != nil {
		t.Error(err)
	}
	if err := os.Remove(filepath.Join(parent, "b.restoring")); err != nil {
		t.Fatal(err)
	}

	empty, elsewhere := filepath.Join(parent, "empty"), filepath.Join(parent, "root")
	if err := os.Mkdir(empty, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := restore(empty, seal.RootSource{File: elsewhere}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(empty, "root.key")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the root key is beside the data too")
	}
	err := filepath.WalkDir(parent, func(path string, d fs.DirEntry, err error) error {
		if info, _ := d.Info(); path != parent && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %s", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	// The root key that is there is the root key.
	if err := restore(filepath.Join(parent, "again"), seal.RootSource{File: elsewhere}); err != nil {
		t.Error(err)
	}
	wrong := filepath.Join(parent, "wrong")
	if err := os.WriteFile(wrong, make([]byte, 32), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := restore(filepath.Join(parent, "wrongly"), seal.RootSource{File: wrong}); !errors.Is(err, seal.ErrWrongRootKey) {
		t.Errorf("another root key: %v", err)
	}
	if _, err := os.Stat(wrong); err != nil {
		t.Errorf("a file that was there before: %v", err)
	}
}

// A root key that is not at hand is not in the backup, and one that is not the
// module's makes none.
func TestThreat_T158_RootKeyGoesAsItsFile(t *testing.T) {
	cfg := testConfig(filepath.Join(t.TempDir(), "data"))
	cfg.RootKey.File = filepath.Join(t.TempDir(), "root")
	if err := seal.CreateRoot(cfg.RootKey.File); err != nil {
		t.Fatal(err)
	}
	k := keep(t, cfg)
	root, err := os.ReadFile(cfg.RootKey.File)
	if err != nil {
		t.Fatal(err)
	}
	if with := k.backup(t); !bytes.Contains(with, root) {
		t.Error("a raw root key that is at hand is not in the backup: this finds nothing")
	}
	if err := os.WriteFile(cfg.RootKey.File, make([]byte, 32), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := k.s.Backup(t.Context(), io.Discard); err == nil || !strings.Contains(err.Error(), "not the key that the module runs with") {
		t.Errorf("with another root key: %v", err)
	}
	if err := os.Remove(cfg.RootKey.File); err != nil {
		t.Fatal(err)
	}
	without := k.backup(t)
	if bytes.Contains(without, root) {
		t.Error("the root key went from memory into the backup")
	}
	if report, err := k.s.Check(t.Context(), bytes.NewReader(without)); err != nil || report.RootKey != backup.RootNone {
		t.Error(report, err)
	}
	dir := filepath.Join(t.TempDir(), "restored")
	if _, err := server.Restore(t.Context(), bytes.NewReader(without), server.RestoreConfig{Dir: dir}); err == nil || !strings.Contains(err.Error(), "--root-key") {
		t.Error(err)
	}
	if err := os.WriteFile(cfg.RootKey.File, root, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := server.Restore(t.Context(), bytes.NewReader(without), server.RestoreConfig{Dir: dir, RootKey: cfg.RootKey}); err != nil {
		t.Error(err)
	}
}

// A root key that is an age file is one in the backup and after it, and is not
// taken for the module's when it is another's.
func TestAgeRootKeyStaysOne(t *testing.T) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	sealed := func(key []byte) []byte {
		var b bytes.Buffer
		w, err := age.Encrypt(&b, id.Recipient())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(key); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	dir := t.TempDir()
	cfg := testConfig(filepath.Join(dir, "data"))
	cfg.RootKey = seal.RootSource{File: filepath.Join(dir, "root.age"), Identity: filepath.Join(dir, "id")}
	root := bytes.Repeat([]byte{3}, seal.KeySize)
	file := sealed(root)
	if err := errors.Join(os.WriteFile(cfg.RootKey.File, file, 0o600), os.WriteFile(cfg.RootKey.Identity, []byte(id.String()), 0o600)); err != nil {
		t.Fatal(err)
	}
	k := keep(t, cfg)
	archive := k.backup(t)
	if bytes.Contains(archive, root) || !bytes.Contains(archive, file) {
		t.Error("the root key is not in the backup as the age file that it is")
	}
	if report, err := k.s.Check(t.Context(), bytes.NewReader(archive)); err != nil || report.RootKey != backup.RootAge {
		t.Error(report, err)
	}
	there := seal.RootSource{File: filepath.Join(dir, "there.age")}
	again := filepath.Join(dir, "again")
	if _, err := server.Restore(t.Context(), bytes.NewReader(archive), server.RestoreConfig{Dir: again, RootKey: there}); err == nil {
		t.Error("restored without what opens the root key")
	}
	if _, err := os.Stat(there.File); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what could not be used was left: %v", err)
	}
	there.Identity = cfg.RootKey.Identity
	if _, err := server.Restore(t.Context(), bytes.NewReader(archive), server.RestoreConfig{Dir: again, RootKey: there}); err != nil {
		t.Error(err)
	}
	if got, err := os.ReadFile(there.File); err != nil || !bytes.Equal(got, file) {
		t.Errorf("the root key's file is another: %v", err)
	}
	if err := os.WriteFile(cfg.RootKey.File, sealed(make([]byte, seal.KeySize)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := k.s.Backup(t.Context(), io.Discard); err == nil || !strings.Contains(err.Error(), "not the key that the module runs with") {
		t.Errorf("with another root key: %v", err)
	}
}

// Only who may enter the folder reaches the control socket; a module in memory
// has none; and it goes with the process.
func TestThreat_T154_ControlSocketIsPrivate(t *testing.T) {
	k := keep(t, testConfig(filepath.Join(t.TempDir(), "data")))
	socket := filepath.Join(k.cfg.DataDir, control.Socket)
	for path, mode := range map[string]fs.FileMode{socket: fs.ModeSocket | 0o600, k.cfg.DataDir: fs.ModeDir | 0o700} {
		if info, err := os.Stat(path); err != nil || info.Mode() != mode {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
	for _, base := range []string{"http://" + k.s.Addresses().HTTP, "https://" + k.s.Addresses().HTTPS} {
		for _, path := range []string{"/backup", "/check", "/rekey", "/api/backup"} {
			if status := postStatus(t, base+path); status != 404 {
				t.Errorf("%s%s answers %d", base, path, status)
			}
		}
	}
	if _, err := server.Offline(t.Context(), k.cfg); err == nil || !strings.Contains(err.Error(), "another process runs") {
		t.Errorf("a second process: %v", err)
	}
	k.stop()
	if _, err := os.Stat(socket); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after the end: %v", err)
	}
	inMemory, err := server.Start(t.Context(), testConfig(""))
	if err != nil {
		t.Fatal(err)
	}
	defer inMemory.Stop(context.Background())
	if err := inMemory.Backup(t.Context(), io.Discard); err == nil {
		t.Error("a backup of nothing")
	}
	if _, err := server.Offline(t.Context(), testConfig("")); err == nil {
		t.Error("a module in memory was opened")
	}
	if _, err := server.Offline(t.Context(), testConfig(t.TempDir())); err == nil || !strings.Contains(err.Error(), "there is no module in") {
		t.Errorf("a folder without a module: %v", err)
	}
}

// A copy that would leave the module no room is not begun.
func TestNoRoomForACopy(t *testing.T) {
	dir := t.TempDir()
	if err := server.RoomFor(dir, math.MaxInt64); err == nil || !strings.Contains(err.Error(), "there is no room in "+dir) {
		t.Error(err)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		t.Fatal(err)
	}
	if err := server.RoomFor(dir, int64(fs.Bavail)*int64(fs.Bsize)-1<<20); err == nil {
		t.Error("all that is free may be taken")
	}
	if err := server.RoomFor(dir, 1<<10); err != nil {
		t.Error(err)
	}
}

// stalled is a reader and writer whose other side does nothing, until it is
// interrupted.
type stalled struct {
	begun, end chan struct{}
	once       sync.Once
}

func newStalled() *stalled {
	return &stalled{begun: make(chan struct{}), end: make(chan struct{})}
}

func (s *stalled) wait() (int, error) {
	s.once.Do(func() { close(s.begun) })
	<-s.end
	return 0, os.ErrDeadlineExceeded
}

func (s *stalled) Write([]byte) (int, error) { return s.wait() }
func (s *stalled) Read([]byte) (int, error)  { return s.wait() }
func (s *stalled) Interrupt()                { close(s.end) }

// A wipe ends what is being backed up or checked, even when nobody takes it, and
// leaves nothing of it.
func TestWipeEndsABackup(t *testing.T) {
	k := keep(t, testConfig(filepath.Join(t.TempDir(), "data")))
	archive := k.backup(t)
	lines := logLines(t, k.cfg.DataDir)
	out, in := newStalled(), newStalled()
	var wg sync.WaitGroup
	var backupErr, checkErr error
	wg.Go(func() { backupErr = k.s.Backup(context.Background(), out) })
	wg.Go(func() {
		half := io.MultiReader(bytes.NewReader(archive[:len(archive)-4096]), in)
		_, checkErr = k.s.Check(context.Background(), struct {
			io.Reader
			control.Interrupter
		}{half, in})
	})
	<-out.begun
	<-in.begun
	soon, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := k.s.Backup(soon, io.Discard); err == nil {
		t.Error("two backups at once")
	}
	if err := k.client.Wipe(t.Context()); err != nil {
		t.Fatal(err)
	}
	await(t, "https://"+k.s.Addresses().HTTPS, k.s.CAFile(), k.eid, k.user)
	wg.Wait()
	for _, err := range []error{backupErr, checkErr} {
		if err == nil || !strings.Contains(err.Error(), "wiped") {
			t.Errorf("after the wipe: %v", err)
		}
	}
	if found := k.found(t, k.cfg.DataDir, lines); len(found) > 0 {
		t.Errorf("after the wipe: %v", found)
	}
	leftovers(t, k.cfg.DataDir)
	if err := k.s.Backup(t.Context(), io.Discard); err != nil {
		t.Errorf("a backup of the fresh module: %v", err)
	}
}

// A module that is killed while it is backed up is none the worse, and has no
// part of the backup in its folder when it runs again; and every backup that was
// handed out whole can be restored.
func TestThreat_T153_KilledDuringBackup(t *testing.T) {
	rounds := 8
	if testing.Short() {
		rounds = 4
	}
	user, master := loadKeys(t)
	dir := filepath.Join(t.TempDir(), "data")
	p := startProcess(t, dir)
	o := own(t, newClient(t, p, user), user, master)
	whole, cut := 0, 0
	var last []byte
	for range rounds {
		c, err := control.Dial(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		if last == nil { // at least one, on however slow a machine
			var b bytes.Buffer
			if err := c.Backup(t.Context(), &b); err != nil {
				t.Fatal(err)
			}
			last = b.Bytes()
		}
		var begun atomic.Bool
		var wg sync.WaitGroup
		wg.Go(func() {
			for {
				var b bytes.Buffer
				begun.Store(true)
				err := c.Backup(context.Background(), &b)
				if err == nil {
					_, err = c.Check(context.Background(), bytes.NewReader(b.Bytes()))
				}
				if err != nil {
					cut++
					return
				}
				whole++
				last = b.Bytes()
			}
		})
		for !begun.Load() {
			time.Sleep(100 * time.Microsecond)
		}
		time.Sleep(rand.N(150 * time.Millisecond))
		p.kill()
		wg.Wait()
		c.Close()
		p = startProcess(t, dir)
		leftovers(t, dir)
		keys, err := newClient(t, p, user).ListKeys(t.Context(), 0, 15)
		if err != nil || p.ready["eid"] != o.eid || keys.Total != 1 {
			t.Fatalf("after a kill: %v", err)
		}
	}
	t.Logf("%d backups were whole, %d were cut", whole, cut)
	if cut != rounds {
		t.Errorf("%d kills, and %d backups were cut", rounds, cut)
	}
	if r := restart(t, last); r.s.Module().EID() != o.eid {
		t.Error("another module")
	}
}

// postStatus is the status of an empty POST.
func postStatus(t *testing.T, url string) int {
	t.Helper()
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	defer c.CloseIdleConnections()
	resp, err := c.Post(url, "application/json", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode
}
