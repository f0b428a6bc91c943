package module

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"softhem/api"
	"softhem/internal/audit"
	"softhem/internal/build"
	"softhem/internal/keyring"
	"softhem/internal/records"
	"softhem/internal/store"
	"softhem/internal/suite"
)

// A Repair looks for damage in the state of a module that does not run, and
// takes it out. Nothing that opens is touched, and what is taken out is kept in
// a quarantine file before it goes.
type Repair struct {
	cfg RepairConfig
	Damage
	identity *identity // nil: damaged too
	tail     bool      // the log tail is damaged
	orphans  []store.Orphan
	pending  []Quarantined // taken out by a repair that was cut off before it was recorded
}

// RepairConfig says what to look at. All fields but Sink are required.
type RepairConfig struct {
	Store      store.Repairer
	Sealer     keyring.Sealer
	AuditDir   string
	Quarantine string           // folder of the quarantine files, made when there is one
	Now        func() time.Time // of the host
	Audit      audit.Config     // Durability, Sink and Logger of it count
}

// Damage is what was found.
type Damage struct {
	Keys    []DamagedKey
	Records []DamagedRecord
	// Faults are what the database says of itself, and Indexes whether what
	// follows from the keys (indexes, counts) is wrong.
	Faults  []string
	Indexes bool
	// KeysChecked and RecordsChecked include the damaged.
	KeysChecked, RecordsChecked int64
	// Unrecorded says that an earlier repair was cut off, and has yet to be
	// written in the log.
	Unrecorded bool
}

// A DamagedKey is a row of the key table. Only the row says so: what stands
// in clear may be what was changed.
type DamagedKey struct {
	Seq              int64
	KID, Type, Label string
	Why              string

	row store.KeyRow
}

// A DamagedRecord is a sealed record, or the log tail.
type DamagedRecord struct {
	Kind, ID string
	Why      string
	// Kept says that it stays where it is, because the module would be worse off
	// without it. Means is what that means, or what its loss means.
	Kept  bool
	Means string

	sealed []byte
}

// Any tells whether there is anything to be done.
func (d *Damage) Any() bool {
	return len(d.Keys) > 0 || len(d.Faults) > 0 || d.Indexes || d.Unrecorded || slices.ContainsFunc(d.Records, func(r DamagedRecord) bool { return !r.Kept })
}

// Lost tells whether there is something that cannot be repaired.
func (d *Damage) Lost() bool {
	return slices.ContainsFunc(d.Records, func(r DamagedRecord) bool { return r.Kept })
}

const kindTail store.Kind = "log-tail" // in reports; the store keeps it apart

// meansOf says what becomes of a module without a record, and whether the record
// is to be kept although it does not open.
func meansOf(kind store.Kind, id string) (means string, kept bool) {
	const restore = "; restore a backup"
	switch {
	case kind == kindIdentity:
		return "without its identity this is no module" + restore, true
	case kind == kindConfig:
		return "the module does not start without its configuration, or it would belong to anybody" + restore, true
	case kind == kindPersona:
		return "the module does not start without the keys of those who can log in" + restore, true
	case kind == kindPairings:
		return "all authenticators are unpaired; pair them again", false
	case kind == kindProvisioning:
		return "the attestation key has the certificate again that the module made itself; another one takes a wipe", false
	case kind == "tls" && id == "ca":
		return "the module makes a new CA; clients need its certificate", false
	case kind == "tls":
		return "the module issues itself a new TLS pair; one that was installed has to be installed again", false
	case kind == kindDisk:
		return "what is on disk 1 cannot be read without it" + restore, true
	case audit.Owns(kind):
		return "the next start cannot tell whether the log was cut or put back before; verify it with a checkpoint from outside", false
	case kind == kindTail:
		return "a change whose record was not yet in the log's file may be without it", false
	}
	return "this program does not know what it is for" + restore, true
}

// NewRepair looks at everything and changes nothing.
func NewRepair(ctx context.Context, cfg RepairConfig) (*Repair, error) {
	r := &Repair{cfg: cfg}
	var err error
	if r.Faults, err = cfg.Store.Faults(ctx); err != nil {
		return nil, err
	}
	if err := r.lookAtRecords(ctx); err != nil {
		return nil, err
	}
	r.KeysChecked, err = keyring.FindDamaged(ctx, cfg.Store, cfg.Sealer, func(row store.KeyRow, why error) {
		r.Keys = append(r.Keys, DamagedKey{
			Seq: row.Seq, KID: hex.EncodeToString(row.KID[:]), Type: row.Type, Label: row.Label, Why: why.Error(), row: row,
		})
	})
	if err != nil {
		return nil, err
	}
	if r.orphans, err = cfg.Store.Orphans(ctx); err != nil {
		return nil, err
	}
	if len(r.Keys) == 0 {
		if r.Indexes, err = r.indexesWrong(ctx); err != nil {
			return nil, err
		}
	}
	r.pending, err = readPending(cfg.Quarantine)
	r.Unrecorded = len(r.pending) > 0
	return r, err
}

func (r *Repair) lookAtRecords(ctx context.Context) error {
	damaged := func(kind store.Kind, id string, sealed []byte, why error) {
		means, kept := meansOf(kind, id)
		r.Records = append(r.Records, DamagedRecord{Kind: string(kind), ID: id, Why: why.Error(), Means: means, Kept: kept, sealed: sealed})
	}
	there := make(map[string]bool)
	err := r.cfg.Store.EachRecord(ctx, func(kind store.Kind, id string, sealed []byte) error {
		r.RecordsChecked++
		there[string(kind)+"/"+id] = true
		plain, err := r.cfg.Sealer.Open(string(kind), id, sealed)
		clear(plain)
		if err != nil {
			damaged(kind, id, slices.Clone(sealed), err)
		}
		return ctx.Err()
	})
	if err != nil {
		return err
	}
	missing := func(kind store.Kind, id string) {
		if !there[string(kind)+"/"+id] {
			damaged(kind, id, nil, errors.New("it is missing"))
		}
	}
	missing(kindIdentity, idOnly)
	r.identity = r.loadIdentity(ctx)
	if r.identity != nil && r.identity.record.Inited {
		missing(kindConfig, idOnly)
		missing(kindPersona, string(api.RoleUser))
		missing(kindPersona, string(api.RoleMaster))
	}
	tail, err := r.cfg.Store.LogTail(ctx)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := audit.CheckTail(tail); err != nil {
		r.tail = true
		damaged(kindTail, "", fmt.Appendf(nil, "%q %d\n%s", tail.File, tail.Offset, tail.Lines), err)
	}
	return nil
}

// loadIdentity is nil if it does not open, which is among the damaged then.
func (r *Repair) loadIdentity(ctx context.Context) (id *identity) {
	err := r.cfg.Store.View(ctx, func(v store.Reader) error {
		rec, err := records.Load[identityRecord](ctx, v, r.cfg.Sealer, kindIdentity, idOnly)
		if err == nil {
			id, err = rec.open()
		}
		return err
	})
	if err != nil {
		return nil
	}
	return id
}

var errLook = errors.New("only looking")

// indexesWrong makes them anew, compares, and undoes it.
func (r *Repair) indexesWrong(ctx context.Context) (wrong bool, err error) {
	err = r.cfg.Store.Update(ctx, func(tx store.Tx) (err error) {
		if wrong, err = r.cfg.Store.RepairKeys(ctx, tx, nil); err == nil {
			err = errLook
		}
		return err
	})
	if errors.Is(err, errLook) || errors.Is(err, store.ErrCorrupt) { // the latter is among the faults
		err = nil
	}
	return wrong, err
}

// Do takes out what can be taken out, and returns the quarantine file, "" if
// there was nothing to be kept.
//
// The order is what a crash must not break: first the file with what is going to
// go is on disk, as pending; then the log's own records go, without which it can
// be opened; then, in one transaction with the records of it, all else; then the file gets its
// name. A repair that finds a pending file records what is in it.
func (r *Repair) Do(ctx context.Context) (file string, err error) {
	if r.identity == nil {
		return "", errors.New("the module's identity is damaged, and without it nothing can be recorded, so nothing was repaired; restore a backup")
	}
	q := r.quarantined()
	pending, err := writePending(r.cfg.Quarantine, r.cfg.Now().Unix(), q)
	if err != nil {
		return "", fmt.Errorf("the quarantine file cannot be written, so nothing was repaired: %w", err)
	}
	if err := r.freeLog(ctx); err != nil {
		return "", err
	}
	log, err := r.openLog(ctx)
	if err != nil {
		return "", err
	}
	err = log.Commit(ctx, func(ctx context.Context, tx store.Tx) ([]audit.Record, error) { return r.takeOut(ctx, tx, q) })
	if err == nil {
		err = log.Append(ctx, audit.Record{Type: audit.Shutdown})
	}
	if err = errors.Join(err, log.Close(ctx)); err != nil {
		return "", err
	}
	if err := r.cfg.Store.Scrub(ctx); err != nil {
		return "", err
	}
	return finishPending(r.cfg.Quarantine, pending)
}

// freeLog removes what keeps the log from being opened.
func (r *Repair) freeLog(ctx context.Context) error {
	return r.cfg.Store.Update(ctx, func(tx store.Tx) error {
		for _, rec := range r.Records {
			if kind := store.Kind(rec.Kind); audit.Owns(kind) {
				if err := tx.Delete(ctx, kind, rec.ID); err != nil {
					return err
				}
			}
		}
		if r.tail {
			return r.cfg.Store.DropLogTail(ctx, tx)
		}
		return nil
	})
}

// openLog opens the log and begins a boot for the repair.
func (r *Repair) openLog(ctx context.Context) (*audit.Log, error) {
	cfg := r.cfg.Audit
	cfg.Dir, cfg.Store, cfg.Sealer = r.cfg.AuditDir, r.cfg.Store, r.cfg.Sealer
	cfg.Sign, cfg.EIDSign = r.identity.signing.Sign, r.identity.signing.Public()
	cfg.Origin, cfg.Product = audit.Origin(r.identity.key.Public()), build.Product()
	cfg.Now = func() int64 { return r.cfg.Now().Unix() }
	log, err := audit.Open(ctx, cfg)
	if err != nil {
		return nil, err
	}
	test := audit.Record{Type: audit.SelftestPassed}
	if err = suite.SelfTest(); err == nil {
		err = log.StartBoot(ctx, test)
	}
	if err != nil {
		return nil, errors.Join(err, log.Close(ctx))
	}
	return log, nil
}

func (r *Repair) takeOut(ctx context.Context, tx store.Tx, q []Quarantined) ([]audit.Record, error) {
	var seqs []int64
	for _, k := range r.Keys {
		seqs = append(seqs, k.Seq)
	}
	if len(seqs) > 0 || len(r.orphans) > 0 || len(r.Faults) > 0 || r.Indexes {
		if _, err := r.cfg.Store.RepairKeys(ctx, tx, seqs); err != nil {
			return nil, err
		}
	}
	for _, rec := range r.Records {
		if kind := store.Kind(rec.Kind); !rec.Kept && !audit.Owns(kind) && kind != kindTail {
			if err := tx.Delete(ctx, kind, rec.ID); err != nil {
				return nil, err
			}
		}
	}
	var recs []audit.Record
	if len(r.Faults) > 0 || r.Indexes {
		recs = append(recs, audit.Record{Type: audit.NonSecureState, Result: audit.Error, Arg: []byte("repair indexes")})
	}
	told := make(map[string]bool)
	for _, item := range slices.Concat(r.pending, q) {
		id := item.What + " " + item.ID
		if told[id] {
			continue
		}
		told[id] = true
		// A key of a pending file may be back with a backup.
		if kid, ok := keyring.ParseKID(item.ID); ok && item.What == whatKey {
			if _, err := tx.GetKey(ctx, kid); err == nil {
				continue
			} else if !errors.Is(err, store.ErrNotFound) {
				return nil, err
			}
		}
		recs = append(recs, item.records()...)
	}
	return recs, nil
}

// records are what the log says of an item: of a key what was found and that it
// is gone, by nobody; of anything else that the module was not sound.
func (q Quarantined) records() []audit.Record {
	if q.What != whatKey {
		return []audit.Record{{Type: audit.NonSecureState, Result: audit.Error, Arg: []byte(strings.TrimSpace("repair " + q.What + " " + q.ID))}}
	}
	arg := []byte(q.ID)
	if kid, ok := keyring.ParseKID(q.ID); ok {
		arg = kid[:]
	}
	return []audit.Record{
		{Type: audit.KeyIntegrityError, Result: audit.Error, Arg: arg},
		{Type: audit.KeyDelete, Arg: arg},
	}
}
