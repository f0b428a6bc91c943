package server

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"softhem/api"
	"softhem/internal/audit"
	"softhem/internal/keyring"
	"softhem/internal/records"
	"softhem/internal/store"
	"softhem/internal/suite"
)

// FillKeys puts n keys into a data folder that no process runs on, past the
// door: a million would take it minutes. Every other is a public X25519 key, the
// rest AES keys; the descr of key i is user<i, seven digits>@example.org.
func FillKeys(dir string, n int) (err error) {
	ctx := context.Background()
	cfg := DefaultConfig()
	cfg.DataDir = dir
	d, err := openData(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	ring := keyring.New(keyring.Config{Store: d.store, Sealer: d.sealer})
	public, _ := suite.AlgorithmOf(api.Curve25519)
	secret, _ := suite.AlgorithmOf(api.AES256)
	const batch = 20_000
	for done := 0; done < n; {
		err := d.store.Update(ctx, func(tx store.Tx) error {
			for end := min(done+batch, n); done < end; done++ {
				key := keyring.NewKey{Algorithm: public, Public: suite.Random(32)}
				if done%2 == 1 {
					key = keyring.NewKey{Algorithm: secret, Material: secret.NewMaterial()}
				}
				key.Label, key.Descr = "filled", fmt.Appendf(nil, "user%07d@example.org", done)
				row, err := ring.Prepare(key, time.Now().Unix())
				if err != nil {
					return err
				}
				if err := ring.Insert(ctx, tx, row); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// DiskKey is the key of disk 1 in a data folder that no process runs on.
func DiskKey(dir string) (key []byte, err error) {
	ctx := context.Background()
	cfg := DefaultConfig()
	cfg.DataDir = dir
	d, err := openData(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	err = d.store.View(ctx, func(r store.Reader) error {
		rec, err := records.Load[struct {
			Key []byte `json:"key"`
		}](ctx, r, d.sealer, "disk", "1")
		if key = rec.Key; err == nil && len(key) != suite.DiskKeySize {
			err = errors.New("it is of a wrong length")
		}
		return err
	})
	return key, err
}

// ExecSQL runs a statement on a database that no process has open.
func ExecSQL(path, statement string) error {
	db, err := sql.Open("sqlite", path)
	if err != nil {
		return err
	}
	_, err = db.Exec(statement)
	return errors.Join(err, db.Close())
}

// LogOf is the log of a module that does not run, a record a line.
func LogOf(cfg Config) (string, error) {
	d, err := openData(context.Background(), cfg)
	if err != nil {
		return "", err
	}
	defer d.close()
	names, err := filepath.Glob(filepath.Join(d.auditDir(), "????????"))
	if err != nil {
		return "", err
	}
	var text strings.Builder
	for _, name := range names {
		file, err := os.ReadFile(name)
		if err != nil {
			return "", err
		}
		for line := range strings.Lines(strings.TrimRight(string(file), "\x00")) {
			if e, err := audit.Parse([]byte(strings.TrimSpace(line))); err == nil {
				fmt.Fprintf(&text, "%s %s %s\n", e.Type, [...]string{"OK", "FAILED", "ERROR"}[e.Result], e.Arg)
			}
		}
	}
	return text.String(), nil
}

// RoomFor is whether a copy of so many bytes may be put into a folder.
func RoomFor(dir string, size int64) error { return roomFor(dir, size) }
