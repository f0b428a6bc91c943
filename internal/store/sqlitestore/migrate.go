package sqlitestore

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"softhem/internal/store"
)

// Migrations are named NNNN_what.sql and numbered from 1 without a gap. The
// number of the last one applied is the file's user_version. A released one
// never changes, and there is no way back: an older program refuses the file.
//
//go:embed migrations/*.sql
var migrationFiles embed.FS

// applicationID marks an SQLite file as a SoftHEM store: "SHEM".
const applicationID = 0x5348454d

// checkIdentity refuses a file that is an SQLite database of something else,
// before anything is written to it. An empty database passes: it is a new
// file, or one whose first start ended before the first migration was
// committed (which sets the application id).
func checkIdentity(ctx context.Context, c *sql.Conn, path string) error {
	var id, version, tables int64
	err := c.QueryRowContext(ctx, `SELECT
		(SELECT application_id FROM pragma_application_id),
		(SELECT user_version FROM pragma_user_version),
		(SELECT count(*) FROM sqlite_schema)`).Scan(&id, &version, &tables)
	if err != nil {
		return translate(err, path)
	}
	fresh := id == 0 && version == 0 && tables == 0
	whole := id == applicationID && version > 0
	if !fresh && !whole {
		return fmt.Errorf("%w: %s is a database of another program; move it away, or name another data folder", store.ErrCorrupt, path)
	}
	return nil
}

// migrate brings the schema to the newest version in files, each migration in
// a transaction of its own together with its number: a crash leaves the schema
// before or after a migration, and the next start goes on from there.
func migrate(ctx context.Context, c *sql.Conn, path string, files fs.FS) error {
	entries, err := fs.ReadDir(files, "migrations") // sorted by name
	if err != nil {
		return err
	}
	var have int
	if err := c.QueryRowContext(ctx, "PRAGMA user_version").Scan(&have); err != nil {
		return translate(err, path)
	}
	if have > len(entries) {
		return fmt.Errorf("%w: %s has schema version %d and this program knows %d; run the newer program, or restore a backup made with this one",
			store.ErrNewerSchema, path, have, len(entries))
	}
	for i, entry := range entries {
		version := i + 1
		number, _, _ := strings.Cut(entry.Name(), "_")
		if n, err := strconv.Atoi(number); err != nil || n != version {
			return fmt.Errorf("migration %s is not number %d", entry.Name(), version)
		}
		if version <= have {
			continue
		}
		script, err := fs.ReadFile(files, "migrations/"+entry.Name())
		if err != nil {
			return err
		}
		_, err = c.ExecContext(ctx, fmt.Sprintf("BEGIN IMMEDIATE; %s; PRAGMA application_id = %d; PRAGMA user_version = %d; COMMIT",
			script, applicationID, version))
		if err != nil {
			c.ExecContext(ctx, "ROLLBACK") // fails when SQLite has rolled back already
			return fmt.Errorf("cannot bring %s to schema version %d: %w", path, version, translate(err, path))
		}
	}
	return nil
}
