package module

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"softhem/internal/fsync"
	"softhem/internal/store"
)

// A quarantine file is what a repair took out of the store, a JSON object on each
// line. Its name is the time in 8 hex digits; while it ends with ".pending", the
// log does not say yet what is in it.
const (
	quarantineExt = ".jsonl"
	pendingExt    = ".pending"

	whatKey  = "key"
	whatSlot = "slot" // a sealed part that belonged to no key
)

// Quarantined is a line of a quarantine file. Bytes are base64. Nothing in it can
// be relied on: it did not open.
type Quarantined struct {
	// What is "key", "slot", or the kind of a record; ID the kid in hex (or
	// "seq n", if there is none), the slot, or the record's.
	What string `json:"what"`
	ID   string `json:"id"`
	Why  string `json:"why"`

	Seq         int64  `json:"seq,omitzero"`
	Type        []byte `json:"type,omitempty"`
	Created     int64  `json:"created,omitzero"`
	Updated     int64  `json:"updated,omitzero"`
	Label       []byte `json:"label,omitempty"`
	Descr       []byte `json:"descr,omitempty"`
	Public      []byte `json:"public,omitempty"`
	Fingerprint []byte `json:"fingerprint,omitempty"`
	Sealed      []byte `json:"sealed,omitempty"`
}

// quarantined is all that is going to be taken out.
func (r *Repair) quarantined() (q []Quarantined) {
	for _, k := range r.Keys {
		id := k.KID
		if k.row.KID == (store.KID{}) {
			id = fmt.Sprint("seq ", k.Seq)
		}
		q = append(q, Quarantined{
			What: whatKey, ID: id, Why: k.Why, Seq: k.Seq, Type: []byte(k.row.Type), Created: k.row.Created, Updated: k.row.Updated,
			Label: []byte(k.row.Label), Descr: k.row.Descr, Public: k.row.Public, Fingerprint: k.row.Fingerprint, Sealed: k.row.Sealed,
		})
	}
	for _, o := range r.orphans {
		q = append(q, Quarantined{What: whatSlot, ID: fmt.Sprint(o.Slot), Why: "it belongs to no key", Sealed: o.Sealed})
	}
	for _, rec := range r.Records {
		if !rec.Kept {
			q = append(q, Quarantined{What: rec.Kind, ID: rec.ID, Why: rec.Why, Sealed: rec.sealed})
		}
	}
	return q
}

// writePending writes a new file and returns when it is on disk; "" for nothing.
func writePending(dir string, now int64, q []Quarantined) (name string, err error) {
	if len(q) == 0 {
		return "", nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	var text []byte
	for _, item := range q {
		line, err := json.Marshal(item)
		if err != nil {
			return "", err
		}
		text = append(append(text, line...), '\n')
	}
	for ; ; now++ {
		name = fmt.Sprintf("%08x", uint32(now))
		if _, err := os.Stat(filepath.Join(dir, name+quarantineExt)); err == nil {
			continue
		}
		f, err := os.OpenFile(filepath.Join(dir, name+pendingExt), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return "", err
		}
		_, err = f.Write(text)
		if err := errors.Join(err, f.Sync(), f.Close(), fsync.Dir(dir), fsync.Dir(filepath.Dir(dir))); err != nil {
			return "", errors.Join(err, os.Remove(f.Name()))
		}
		return name, nil
	}
}

// readPending returns what is in pending files. A line that was cut off by a
// crash is of a file whose repair had not begun.
func readPending(dir string) (q []Quarantined, err error) {
	names, err := filepath.Glob(filepath.Join(dir, "*"+pendingExt))
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(text)) {
			var item Quarantined
			if json.Unmarshal([]byte(line), &item) == nil {
				q = append(q, item)
			}
		}
	}
	return q, nil
}

// finishPending gives all pending files their names, and returns the one of this
// repair, if there is one.
func finishPending(dir, name string) (file string, err error) {
	names, err := filepath.Glob(filepath.Join(dir, "*"+pendingExt))
	if err != nil || len(names) == 0 {
		return "", err
	}
	for _, pending := range names {
		done := strings.TrimSuffix(pending, pendingExt) + quarantineExt
		if err := os.Rename(pending, done); err != nil {
			return "", err
		}
		if filepath.Base(done) == name+quarantineExt {
			file = done
		}
	}
	return file, fsync.Dir(dir)
}
