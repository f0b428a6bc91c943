package sqlitestore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"softhem/internal/store"
)

const (
	maxDescr         = 64
	maxPublic        = 2592
	fingerprintBytes = 16
)

// keyStmts are the statements about keys.
type keyStmts struct {
	get, bySeq, after       *sql.Stmt
	getTotals, putTotals    *sql.Stmt
	insert, update, remove  *sql.Stmt
	find                    *sql.Stmt
	addSlot, fillSlot       *sql.Stmt
	takeSlot, freeSlot      *sql.Stmt
	addSuffix, removeSuffix *sql.Stmt
	descrs, scanPacked      *sql.Stmt
	putPacked, removePacked *sql.Stmt
	gaps, addGap, dropGaps  *sql.Stmt
	skip                    *sql.Stmt
	countDescrs, pageDescrs *sql.Stmt
	countSuffix, pageSuffix *sql.Stmt
}

// What scanKey scans.
const (
	selectKey  = "SELECT seq, kid, type, created, updated, label, descr, public, fingerprint, sealed "
	fromKey    = selectKey + "FROM key JOIN sealed_key USING (slot) "
	fromSearch = selectKey + "FROM (SELECT seq FROM %s ORDER BY seq LIMIT ? OFFSET ?) JOIN key USING (seq) JOIN sealed_key USING (slot) ORDER BY seq"
)

func (k *keyStmts) queries() map[**sql.Stmt]string {
	const descrs = "key WHERE descr >= ? AND descr < ?"
	const suffixes = "key_suffix WHERE reversed >= ? AND reversed < ?"
	return map[**sql.Stmt]string{
		&k.get:   fromKey + "WHERE kid = ?",
		&k.bySeq: fromKey + "WHERE seq = ?",
		&k.after: fromKey + "WHERE seq > ? ORDER BY seq LIMIT ?",

		&k.getTotals: "SELECT live, deleted, last, slots FROM key_total",
		&k.putTotals: "UPDATE key_total SET live = ?, deleted = ?, last = ?, slots = ?",

		&k.insert: `INSERT INTO key (seq, kid, type, created, updated, label, descr, fingerprint, slot, public)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`,
		&k.find:   "SELECT seq, slot, descr FROM key WHERE kid = ?",
		&k.update: "UPDATE key SET updated = ?, label = ?, descr = ? WHERE seq = ?",
		&k.remove: "DELETE FROM key WHERE kid = ? RETURNING seq, slot, descr",

		&k.addSlot:  "INSERT INTO sealed_key (slot, sealed) VALUES (?, ?)",
		&k.fillSlot: "UPDATE sealed_key SET sealed = ? WHERE slot = ?",
		// The lowest, so that few pages change.
		&k.takeSlot: "DELETE FROM free_slot WHERE slot = (SELECT min(slot) FROM free_slot) RETURNING slot",
		&k.freeSlot: "INSERT INTO free_slot (slot) VALUES (?)",

		&k.addSuffix:    "INSERT INTO key_suffix (reversed, seq) VALUES (?, ?)",
		&k.removeSuffix: "DELETE FROM key_suffix WHERE reversed = ? AND seq = ?",

		&k.descrs:       "SELECT seq, descr FROM key WHERE seq BETWEEN ? AND ? AND descr IS NOT NULL ORDER BY seq",
		&k.scanPacked:   "SELECT block, packed FROM key_packed ORDER BY block",
		&k.putPacked:    "INSERT INTO key_packed (block, packed) VALUES (?, ?) ON CONFLICT (block) DO UPDATE SET packed = excluded.packed",
		&k.removePacked: "DELETE FROM key_packed WHERE block = ?",

		&k.gaps: "SELECT block, gone FROM key_gap WHERE level = ? AND block >= ? ORDER BY block",
		&k.addGap: `INSERT INTO key_gap (level, block, gone) VALUES (?, ?, 1)
			ON CONFLICT (level, block) DO UPDATE SET gone = gone + 1 RETURNING gone`,
		&k.dropGaps: "DELETE FROM key_gap WHERE level = ? AND block BETWEEN ? AND ?",
		&k.skip:     "SELECT seq FROM key WHERE seq >= ? ORDER BY seq LIMIT 1 OFFSET ?",

		// The inner LIMIT bounds the work of a count.
		&k.countDescrs: "SELECT count(*) FROM (SELECT 1 FROM " + descrs + " LIMIT ?)",
		&k.pageDescrs:  fmt.Sprintf(fromSearch, descrs),
		&k.countSuffix: "SELECT count(*) FROM (SELECT 1 FROM " + suffixes + " LIMIT ?)",
		&k.pageSuffix:  fmt.Sprintf(fromSearch, suffixes),
	}
}

// totals are the row of key_total. A transaction reads it when it needs it,
// and writes it before its commit: see [Store.Update].
type totals struct {
	loaded, changed            bool
	live, deleted, last, slots int64
}

// loadTotals sees to it that r.totals is loaded.
func (r *reader) loadTotals() error {
	t := &r.totals
	if t.loaded {
		return nil
	}
	if err := r.c.keys.getTotals.QueryRow().Scan(&t.live, &t.deleted, &t.last, &t.slots); err != nil {
		return r.fail(err)
	}
	t.loaded = true
	return nil
}

// saveTotals writes what changed.
func (t *tx) saveTotals() error {
	n := &t.totals
	if !n.changed {
		return nil
	}
	if _, err := t.c.keys.putTotals.Exec(n.live, n.deleted, n.last, n.slots); err != nil {
		return t.fail(err)
	}
	n.changed = false
	return nil
}

// scanKey reads a row of selectKey.
func scanKey(row interface{ Scan(...any) error }) (k store.Key, err error) {
	var kid []byte
	err = row.Scan(&k.Seq, &kid, &k.Type, &k.Created, &k.Updated, &k.Label, &k.Descr, &k.Public, &k.Fingerprint, &k.Sealed)
	copy(k.KID[:], kid)
	return k, err
}

// selectKeys runs a query for rows of selectKey.
func (r *reader) selectKeys(query *sql.Stmt, args ...any) (keys []store.Key, err error) {
	rows, err := query.Query(args...)
	if err != nil {
		return nil, r.fail(err)
	}
	defer rows.Close()
	for rows.Next() {
		k, err := scanKey(rows)
		if err != nil {
			return nil, r.fail(err)
		}
		keys = append(keys, k)
	}
	if err := rows.Err(); err != nil {
		return nil, r.fail(err)
	}
	return keys, nil
}

func (r *reader) GetKey(ctx context.Context, kid store.KID) (store.Key, error) {
	if err := r.usable(ctx); err != nil {
		return store.Key{}, err
	}
	k, err := scanKey(r.c.keys.get.QueryRow(kid[:]))
	if errors.Is(err, sql.ErrNoRows) {
		return store.Key{}, errNoKey()
	}
	if err != nil {
		return store.Key{}, r.fail(err)
	}
	return k, nil
}

func (r *reader) KeysAfter(ctx context.Context, seq, limit int64) ([]store.Key, error) {
	if err := r.usable(ctx); err != nil {
		return nil, err
	}
	if err := checkPage(0, limit); err != nil {
		return nil, err
	}
	return r.selectKeys(r.c.keys.after, seq, limit)
}

func (r *reader) CountKeys(ctx context.Context) (store.KeyCounts, error) {
	if err := r.usable(ctx); err != nil {
		return store.KeyCounts{}, err
	}
	if err := r.loadTotals(); err != nil {
		return store.KeyCounts{}, err
	}
	return store.KeyCounts{Live: r.totals.live, Deleted: r.totals.deleted, Spare: r.totals.slots - r.totals.live}, nil
}

func (t *tx) InsertKey(ctx context.Context, k store.Key) error {
	if err := t.usable(ctx); err != nil {
		return err
	}
	if err := checkKey(k); err != nil {
		return err
	}
	if err := t.loadTotals(); err != nil {
		return err
	}
	n := &t.totals
	seq, slot := n.last+1, n.slots+1
	reuse := n.slots > n.live
	if reuse {
		if err := t.c.keys.takeSlot.QueryRow().Scan(&slot); err != nil {
			return t.fail(noRows(err, "a free slot"))
		}
	}
	result, err := t.c.keys.insert.Exec(seq, k.KID[:], k.Type, k.Created, k.Updated, k.Label, orNull(k.Descr), orNull(k.Fingerprint), slot, orNull(k.Public))
	if err != nil {
		return t.fail(err)
	}
	if inserted, err := result.RowsAffected(); err != nil {
		return t.fail(err)
	} else if inserted == 0 {
		if reuse {
			if _, err := t.c.keys.freeSlot.Exec(slot); err != nil {
				return t.fail(err)
			}
		}
		return store.ErrDuplicate
	}
	if reuse {
		_, err = t.c.keys.fillSlot.Exec(k.Sealed, slot)
	} else {
		n.slots = slot
		_, err = t.c.keys.addSlot.Exec(slot, k.Sealed)
	}
	if err != nil {
		return t.fail(err)
	}
	n.live++
	n.last = seq
	n.changed = true
	if len(k.Descr) > 0 {
		if _, err := t.c.keys.addSuffix.Exec(reversed(k.Descr), seq); err != nil {
			return t.fail(err)
		}
	}
	return t.packEnding(seq)
}

func (t *tx) UpdateKey(ctx context.Context, k store.Key) error {
	if err := t.usable(ctx); err != nil {
		return err
	}
	if err := checkKey(k); err != nil {
		return err
	}
	var seq, slot int64
	var descr []byte
	err := t.c.keys.find.QueryRow(k.KID[:]).Scan(&seq, &slot, &descr)
	if errors.Is(err, sql.ErrNoRows) {
		return errNoKey()
	}
	if err != nil {
		return t.fail(err)
	}
	if _, err := t.c.keys.update.Exec(k.Updated, k.Label, orNull(k.Descr), seq); err != nil {
		return t.fail(err)
	}
	if _, err := t.c.keys.fillSlot.Exec(k.Sealed, slot); err != nil {
		return t.fail(err)
	}
	return t.reindexDescr(seq, descr, k.Descr)
}

func (t *tx) DeleteKey(ctx context.Context, kid store.KID) error {
	if err := t.usable(ctx); err != nil {
		return err
	}
	if err := t.loadTotals(); err != nil {
		return err
	}
	var seq, slot int64
	var descr []byte
	err := t.c.keys.remove.QueryRow(kid[:]).Scan(&seq, &slot, &descr)
	if errors.Is(err, sql.ErrNoRows) {
		return errNoKey()
	}
	if err != nil {
		return t.fail(err)
	}
	// Overwritten in place: the same length.
	if _, err := t.c.keys.fillSlot.Exec(make([]byte, store.SealedKeyBytes), slot); err != nil {
		return t.fail(err)
	}
	if _, err := t.c.keys.freeSlot.Exec(slot); err != nil {
		return t.fail(err)
	}
	if err := t.countGap(seq); err != nil {
		return err
	}
	t.totals.live--
	t.totals.deleted++
	t.totals.changed = true
	return t.reindexDescr(seq, descr, nil)
}

// checkKey refuses what would not fit the schema, before SQLite does and ends
// the transaction.
func checkKey(k store.Key) error {
	switch {
	case len(k.Sealed) != store.SealedKeyBytes:
		return fmt.Errorf("a sealed key has %d bytes, not %d", store.SealedKeyBytes, len(k.Sealed))
	case len(k.Descr) > maxDescr:
		return fmt.Errorf("a descr has at most %d bytes, not %d", maxDescr, len(k.Descr))
	case len(k.Public) > maxPublic:
		return fmt.Errorf("a public key has at most %d bytes, not %d", maxPublic, len(k.Public))
	case len(k.Fingerprint) != 0 && len(k.Fingerprint) != fingerprintBytes:
		return fmt.Errorf("a fingerprint has %d bytes, not %d", fingerprintBytes, len(k.Fingerprint))
	}
	return nil
}

func errNoKey() error { return fmt.Errorf("key: %w", store.ErrNotFound) }

// noRows makes damage of a missing row that must be there.
func noRows(err error, what string) error {
	if errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("%w: the key table lacks %s; restore a backup", store.ErrCorrupt, what)
	}
	return err
}

// orNull makes NULL of nothing.
func orNull(b []byte) any {
	if len(b) == 0 {
		return nil
	}
	return b
}
