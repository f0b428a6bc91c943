package sqlitestore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"hash/fnv"
	"strings"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"softhem/internal/store"
)

var _ store.Repairer = (*Store)(nil)

// derived are the tables that follow from key and sealed_key, with the order of
// their rows.
var derived = [...][2]string{
	{"key_suffix", "reversed, seq"}, {"key_packed", "block"}, {"key_gap", "level, block"}, {"key_total", "only"}, {"free_slot", "slot"},
}

const maxFaults = 20

// Faults implements store.Repairer.
func (s *Store) Faults(ctx context.Context) ([]string, error) {
	c, err := s.take(ctx, s.readers)
	if err != nil {
		return nil, err
	}
	defer func() { s.readers <- c }()
	return c.faults(ctx, s.path)
}

func (c *conn) faults(ctx context.Context, path string) (faults []string, err error) {
	rows, err := c.QueryContext(ctx, fmt.Sprintf("PRAGMA integrity_check(%d)", maxFaults))
	if err != nil {
		return nil, translate(err, path)
	}
	defer rows.Close()
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			return nil, translate(err, path)
		}
		for line := range strings.Lines(text) {
			if line = strings.TrimSpace(line); line != "" && line != "ok" {
				faults = append(faults, line)
			}
		}
	}
	return faults, translate(rows.Err(), path)
}

// EachKey implements store.Repairer. The rows are found by their place in the
// table and not by an index, which may be what is damaged, and read one by one,
// so that one that cannot be read does not hide the others.
func (s *Store) EachKey(ctx context.Context, fn func(store.KeyRow) error) error {
	c, err := s.take(ctx, s.readers)
	if err != nil {
		return err
	}
	defer func() { s.readers <- c }()
	seqs, err := c.seqs(ctx)
	if err != nil {
		return translate(err, s.path)
	}
	read, err := c.PrepareContext(ctx, `SELECT kid, type, created, updated, label, descr, public, fingerprint, sealed
		FROM key NOT INDEXED LEFT JOIN sealed_key USING (slot) WHERE seq = ?`)
	if err != nil {
		return translate(err, s.path)
	}
	defer read.Close()
	for _, seq := range seqs {
		row, err := readRow(ctx, read, seq)
		if err != nil {
			return translate(err, s.path)
		}
		if err := fn(row); err != nil {
			return err
		}
	}
	return nil
}

func (c *conn) seqs(ctx context.Context) (seqs []int64, err error) {
	rows, err := c.QueryContext(ctx, "SELECT seq FROM key NOT INDEXED ORDER BY seq")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var seq int64
		if err := rows.Scan(&seq); err != nil {
			return nil, err
		}
		seqs = append(seqs, seq)
	}
	return seqs, rows.Err()
}

// readRow reads a row whose columns may be of any type.
func readRow(ctx context.Context, read *sql.Stmt, seq int64) (store.KeyRow, error) {
	row := store.KeyRow{Key: store.Key{Seq: seq}}
	var col [9]any
	var to [9]any
	for i := range col {
		to[i] = &col[i]
	}
	if err := read.QueryRowContext(ctx, seq).Scan(to[:]...); err != nil {
		if unreadable(err) {
			row.Err = errors.New("the row cannot be read")
			return row, nil
		}
		return row, err
	}
	bad := false
	blob := func(v any, null bool) []byte {
		b, ok := v.([]byte)
		bad = bad || !ok && !(null && v == nil)
		return b
	}
	text := func(v any) string {
		t, ok := v.(string)
		bad = bad || !ok
		return t
	}
	number := func(v any) int64 {
		n, ok := v.(int64)
		bad = bad || !ok
		return n
	}
	kid := blob(col[0], false)
	bad = bad || len(kid) != len(row.KID)
	copy(row.KID[:], kid)
	row.Type, row.Created, row.Updated, row.Label = text(col[1]), number(col[2]), number(col[3]), text(col[4])
	row.Descr, row.Public, row.Fingerprint = blob(col[5], true), blob(col[6], true), blob(col[7], true)
	switch {
	case col[8] == nil:
		row.Err = errors.New("its sealed part is missing")
	default:
		row.Sealed = blob(col[8], false)
	}
	if bad {
		row.Err = errors.Join(row.Err, errors.New("a field of the row is of another kind"))
	}
	return row, nil
}

// Orphans implements store.Repairer. Zeros are what a deleted key leaves. A row
// that cannot be read owns nothing that could be told.
func (s *Store) Orphans(ctx context.Context) (orphans []store.Orphan, err error) {
	c, err := s.take(ctx, s.readers)
	if err != nil {
		return nil, err
	}
	defer func() { s.readers <- c }()
	owned, err := c.slots(ctx)
	if err != nil {
		return nil, translate(err, s.path)
	}
	rows, err := c.QueryContext(ctx, "SELECT slot, sealed FROM sealed_key WHERE sealed <> zeroblob(128)")
	if err != nil {
		return nil, translate(err, s.path)
	}
	defer rows.Close()
	for rows.Next() {
		var o store.Orphan
		if err := rows.Scan(&o.Slot, &o.Sealed); err != nil {
			return nil, translate(err, s.path)
		}
		if !owned[o.Slot] {
			orphans = append(orphans, o)
		}
	}
	return orphans, translate(rows.Err(), s.path)
}

// slots are those of all rows that can be read.
func (c *conn) slots(ctx context.Context) (map[int64]bool, error) {
	seqs, err := c.seqs(ctx)
	if err != nil {
		return nil, err
	}
	one, err := c.PrepareContext(ctx, "SELECT slot FROM key NOT INDEXED WHERE seq = ?")
	if err != nil {
		return nil, err
	}
	defer one.Close()
	owned := make(map[int64]bool, len(seqs))
	for _, seq := range seqs {
		var slot any
		if err := one.QueryRowContext(ctx, seq).Scan(&slot); err != nil && !unreadable(err) {
			return nil, err
		}
		if n, ok := slot.(int64); ok {
			owned[n] = true
		}
	}
	return owned, nil
}

// unreadable tells whether SQLite met damage.
func unreadable(err error) bool {
	e, ok := errors.AsType[*sqlite.Error](err)
	return ok && e.Code()&0xff == sqlite3.SQLITE_CORRUPT
}

// unowned are the slots that no row of the table has; the indexes of it do not
// hold the slot, so they are not asked.
const unowned = "slot NOT IN (SELECT slot FROM key NOT INDEXED)"

// DropLogTail implements store.Repairer.
func (s *Store) DropLogTail(ctx context.Context, in store.Tx) error {
	t, err := s.own(ctx, in)
	if err != nil {
		return err
	}
	return t.run(ctx, "DELETE FROM log_tail")
}

// own is a transaction of this store.
func (s *Store) own(ctx context.Context, in store.Tx) (*tx, error) {
	t, ok := in.(*tx)
	if !ok || t.s != s {
		return nil, errors.New("store: a transaction of another store")
	}
	return t, t.usable(ctx)
}

func (t *tx) run(ctx context.Context, query string, args ...any) error {
	if _, err := t.c.ExecContext(context.WithoutCancel(ctx), query, args...); err != nil {
		return t.fail(err)
	}
	return nil
}

// RepairKeys implements store.Repairer.
//
// SQLite deletes a row with the entries that its indexes have of it, and reads
// the row for that. So the indexes go first, and are made anew at the end: one
// that disagrees with the table stops nothing, and neither does a row that cannot
// be read.
func (s *Store) RepairKeys(ctx context.Context, in store.Tx, seqs []int64) (wrong bool, err error) {
	t, err := s.own(ctx, in)
	if err != nil {
		return false, err
	}
	faults, err := t.c.faults(ctx, s.path)
	if err != nil {
		return false, t.fail(err)
	}
	before, err := t.digest(ctx)
	if err != nil {
		return false, err
	}
	if err := t.withoutIndexes(ctx, func() error {
		for _, seq := range seqs {
			if err := t.run(ctx, "DELETE FROM key WHERE seq = ?", seq); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return false, err
	}
	if err := t.rebuild(ctx); err != nil {
		return false, err
	}
	after, err := t.digest(ctx)
	if err != nil {
		return false, err
	}
	left, err := t.c.faults(ctx, s.path)
	if err != nil {
		return false, t.fail(err)
	}
	if len(left) > 0 {
		return false, fmt.Errorf("%w: %s: %s; restore a backup", store.ErrCorrupt, s.path, strings.Join(left, "; "))
	}
	return len(faults) > 0 || len(seqs) == 0 && before != after, nil
}

// withoutIndexes runs do while the key table has no indexes.
func (t *tx) withoutIndexes(ctx context.Context, do func() error) error {
	rows, err := t.c.QueryContext(ctx, "SELECT name, sql FROM sqlite_schema WHERE type = 'index' AND tbl_name = 'key' AND sql IS NOT NULL")
	if err != nil {
		return t.fail(err)
	}
	defer rows.Close()
	var names, makes []string
	for rows.Next() {
		var name, create string
		if err := rows.Scan(&name, &create); err != nil {
			return t.fail(err)
		}
		names, makes = append(names, name), append(makes, create)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return t.fail(err)
	}
	for _, name := range names {
		if err := t.run(ctx, "DROP INDEX "+name); err != nil {
			return err
		}
	}
	if err := do(); err != nil {
		return err
	}
	for _, create := range makes {
		if err := t.run(ctx, create); err != nil {
			return err
		}
	}
	return nil
}

// aheadOfKeys is how many seqs the counter may be ahead of the last row: so
// many keys may have been deleted after it. A counter that says more is damaged.
const aheadOfKeys = 1 << 24

// rebuild makes what follows from the rows.
func (t *tx) rebuild(ctx context.Context) error {
	var last, lastRow, live, slots int64
	scan := func(to *int64, query string) error {
		var n sql.NullInt64
		err := t.c.QueryRowContext(ctx, query).Scan(&n)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return t.fail(err)
		}
		*to = n.Int64
		return nil
	}
	for _, n := range []struct {
		to    *int64
		query string
	}{
		{&last, "SELECT last FROM key_total"}, {&lastRow, "SELECT max(seq) FROM key"},
		{&live, "SELECT count(*) FROM key"}, {&slots, "SELECT max(slot) FROM sealed_key"},
	} {
		if err := scan(n.to, n.query); err != nil {
			return err
		}
	}
	if last < lastRow || last > lastRow+aheadOfKeys {
		last = lastRow
	}
	for _, query := range []string{
		"DELETE FROM key_suffix", "DELETE FROM key_packed", "DELETE FROM key_gap", "DELETE FROM free_slot", "DELETE FROM key_total",
		`WITH RECURSIVE slots (slot) AS (VALUES (1) UNION ALL SELECT slot + 1 FROM slots WHERE slot < (SELECT max(slot) FROM sealed_key))
			INSERT INTO sealed_key SELECT slot, zeroblob(128) FROM slots WHERE slot NOT IN (SELECT slot FROM sealed_key)`,
		"UPDATE sealed_key SET sealed = zeroblob(128) WHERE " + unowned + " AND sealed <> zeroblob(128)",
		"INSERT INTO free_slot SELECT slot FROM sealed_key WHERE " + unowned,
		"INSERT INTO key_gap VALUES (0, 0, 1), (1, 0, 1), (2, 0, 1), (3, 0, 1)",
	} {
		if err := t.run(ctx, query); err != nil {
			return err
		}
	}
	if err := t.run(ctx, "INSERT INTO key_total VALUES (1, ?, ?, ?, ?)", live, last-live, last, slots); err != nil {
		return err
	}
	t.totals = totals{loaded: true, live: live, deleted: last - live, last: last, slots: slots}
	return t.reindex(ctx, last)
}

// reindex makes the search indexes and the gaps, for seqs up to last.
func (t *tx) reindex(ctx context.Context, last int64) error {
	rows, err := t.c.QueryContext(ctx, "SELECT seq, descr FROM key ORDER BY seq")
	if err != nil {
		return t.fail(err)
	}
	defer rows.Close()
	next := int64(1)
	gone := func(to int64) error {
		for ; next < to; next++ {
			if err := t.countGap(next); err != nil {
				return err
			}
		}
		next = to + 1
		return nil
	}
	for rows.Next() {
		var seq int64
		var descr []byte
		if err := rows.Scan(&seq, &descr); err != nil {
			return t.fail(err)
		}
		if len(descr) > 0 {
			if _, err := t.c.keys.addSuffix.Exec(reversed(descr), seq); err != nil {
				return t.fail(err)
			}
		}
		if err := gone(seq); err != nil {
			return err
		}
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return t.fail(err)
	}
	if err := gone(last + 1); err != nil {
		return err
	}
	for block := range packBlock(t.totals.unpacked()) {
		if err := t.pack(block); err != nil {
			return err
		}
	}
	return nil
}

// digest tells two states of the derived tables apart.
func (t *tx) digest(ctx context.Context) (sum [16]byte, err error) {
	h := fnv.New128a()
	for _, d := range derived {
		if err := t.addTable(ctx, h.Write, d[0], d[1]); err != nil {
			return sum, err
		}
	}
	return [16]byte(h.Sum(nil)), nil
}

func (t *tx) addTable(ctx context.Context, write func([]byte) (int, error), table, order string) error {
	rows, err := t.c.QueryContext(ctx, "SELECT * FROM "+table+" ORDER BY "+order)
	if err != nil {
		return t.fail(err)
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return t.fail(err)
	}
	values := make([]any, len(columns))
	to := make([]any, len(columns))
	for i := range values {
		to[i] = &values[i]
	}
	for rows.Next() {
		if err := rows.Scan(to...); err != nil {
			return t.fail(err)
		}
		if _, err := write(fmt.Appendf(nil, "%s %q\n", table, values)); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return t.fail(err)
	}
	return nil
}
