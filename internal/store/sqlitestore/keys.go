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

// keyStmts are the statements about keys. What has to follow from a key being
// there or not (counts, free slots, the zeros over a sealed part) the triggers
// of the schema do.
type keyStmts struct {
	get, after, count          *sql.Stmt
	insert, seal, update, find *sql.Stmt
	remove                     *sql.Stmt
	addSuffix, removeSuffix    *sql.Stmt
	addPacked, getPacked       *sql.Stmt
	putPacked, removePacked    *sql.Stmt

	countBlocks, skip           *sql.Stmt
	countRange, pageRange       *sql.Stmt
	countSuffixes, pageSuffixes *sql.Stmt
	scan, bySeq                 *sql.Stmt
}

// selectKey selects what scanKey scans.
const selectKey = `SELECT seq, kid, type, created, updated, label, descr, public, fingerprint, sealed
	FROM key JOIN sealed_key USING (slot) `

func (k *keyStmts) queries() map[**sql.Stmt]string {
	return map[**sql.Stmt]string{
		&k.get:   selectKey + "WHERE kid = ?",
		&k.bySeq: selectKey + "WHERE seq = ?",
		&k.after: selectKey + "WHERE seq > ? ORDER BY seq LIMIT ?",
		&k.count: "SELECT live, deleted FROM key_total",

		// The lowest free slot, so that the file grows only when there is none.
		&k.insert: `INSERT INTO key (seq, kid, type, created, updated, label, descr, fingerprint, slot, public)
			VALUES ((SELECT last + 1 FROM key_total), ?, ?, ?, ?, ?, ?, ?,
				coalesce((SELECT min(slot) FROM free_slot), (SELECT max(slot) + 1 FROM sealed_key)), ?)
			ON CONFLICT DO NOTHING RETURNING seq, slot`,
		&k.seal: `INSERT INTO sealed_key (slot, sealed) VALUES (?, ?)
			ON CONFLICT (slot) DO UPDATE SET sealed = excluded.sealed`,
		&k.find:   "SELECT seq, slot, descr FROM key WHERE kid = ?",
		&k.update: "UPDATE key SET updated = ?, label = ?, descr = ? WHERE seq = ?",
		&k.remove: "DELETE FROM key WHERE kid = ? RETURNING seq, descr",

		&k.addSuffix:    "INSERT INTO key_suffix (reversed, seq) VALUES (?, ?)",
		&k.removeSuffix: "DELETE FROM key_suffix WHERE reversed = ? AND seq = ?",
		// The result of || is text, of whatever bytes.
		&k.addPacked: `INSERT INTO key_packed (block, packed) VALUES (?, ?)
			ON CONFLICT (block) DO UPDATE SET packed = CAST(packed || excluded.packed AS BLOB)`,
		&k.getPacked:    "SELECT packed FROM key_packed WHERE block = ?",
		&k.putPacked:    "UPDATE key_packed SET packed = ? WHERE block = ?",
		&k.removePacked: "DELETE FROM key_packed WHERE block = ?",

		&k.countBlocks: "SELECT block, live FROM key_count WHERE level = ? AND block >= ? ORDER BY block",
		&k.skip:        "SELECT seq FROM key WHERE seq >= ? ORDER BY seq LIMIT 1 OFFSET ?",

		// The inner LIMIT bounds the work of a count.
		&k.countRange:    "SELECT count(*) FROM (SELECT 1 FROM key WHERE descr >= ? AND descr < ? LIMIT ?)",
		&k.pageRange:     "SELECT seq FROM key WHERE descr >= ? AND descr < ? ORDER BY seq LIMIT ? OFFSET ?",
		&k.countSuffixes: "SELECT count(*) FROM (SELECT 1 FROM key_suffix WHERE reversed >= ? AND reversed < ? LIMIT ?)",
		&k.pageSuffixes:  "SELECT seq FROM key_suffix WHERE reversed >= ? AND reversed < ? ORDER BY seq LIMIT ? OFFSET ?",
		&k.scan:          "SELECT block, packed FROM key_packed ORDER BY block",
	}
}

// scanKey reads a row of selectKey.
func scanKey(row interface{ Scan(...any) error }) (k store.Key, err error) {
	var kid []byte
	err = row.Scan(&k.Seq, &kid, &k.Type, &k.Created, &k.Updated, &k.Label, &k.Descr, &k.Public, &k.Fingerprint, &k.Sealed)
	copy(k.KID[:], kid)
	return k, err
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
	if limit < 0 {
		return nil, fmt.Errorf("at most %d keys make no list", limit)
	}
	rows, err := r.c.keys.after.Query(seq, limit)
	if err != nil {
		return nil, r.fail(err)
	}
	defer rows.Close()
	var keys []store.Key
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

func (r *reader) CountKeys(ctx context.Context) (n store.KeyCounts, err error) {
	if err := r.usable(ctx); err != nil {
		return n, err
	}
	if err := r.c.keys.count.QueryRow().Scan(&n.Live, &n.Deleted); err != nil {
		return n, r.fail(err)
	}
	return n, nil
}

func (t *tx) InsertKey(ctx context.Context, k store.Key) error {
	if err := t.usable(ctx); err != nil {
		return err
	}
	if err := checkKey(k); err != nil {
		return err
	}
	var seq, slot int64
	err := t.c.keys.insert.QueryRow(k.KID[:], k.Type, k.Created, k.Updated, k.Label, orNull(k.Descr), orNull(k.Fingerprint), orNull(k.Public)).Scan(&seq, &slot)
	if errors.Is(err, sql.ErrNoRows) {
		return store.ErrDuplicate
	}
	if err != nil {
		return t.fail(err)
	}
	if _, err := t.c.keys.seal.Exec(slot, k.Sealed); err != nil {
		return t.fail(err)
	}
	return t.indexDescr(seq, k.Descr)
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
	if _, err := t.c.keys.seal.Exec(slot, k.Sealed); err != nil {
		return t.fail(err)
	}
	if string(descr) == string(k.Descr) {
		return nil
	}
	if err := t.unindexDescr(seq, descr); err != nil {
		return err
	}
	return t.indexDescr(seq, k.Descr)
}

func (t *tx) DeleteKey(ctx context.Context, kid store.KID) error {
	if err := t.usable(ctx); err != nil {
		return err
	}
	var seq int64
	var descr []byte
	err := t.c.keys.remove.QueryRow(kid[:]).Scan(&seq, &descr)
	if errors.Is(err, sql.ErrNoRows) {
		return errNoKey()
	}
	if err != nil {
		return t.fail(err)
	}
	return t.unindexDescr(seq, descr)
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

// orNull makes NULL of nothing.
func orNull(b []byte) any {
	if len(b) == 0 {
		return nil
	}
	return b
}
