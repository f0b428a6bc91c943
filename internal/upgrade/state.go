package upgrade

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"softhem/internal/fsync"
)

// The folder:
//
//	state.json   what the images beside it are; see state
//	fw-<id>      an image of firmware: uploaded, to be tried, or in use
//	ui-<id>      an image of a console: uploaded, or in use
//	fw.part      being uploaded, as is ui.part
//	hem          the program of the firmware that was started last
//	*.new        being written
//
// An image is called by the first 16 bytes of the SHA-512 of all of it, in hex, so
// none is ever changed. Each change is one renaming of state.json: a crash leaves
// the old one or the new one, and files that it does not name, which go at the next
// start.
const (
	stateFile   = "state.json"
	programFile = "hem"
	newSuffix   = ".new"
	partSuffix  = ".part"
	fileMode    = 0o600
	dirMode     = 0o700
	programMode = 0o700
)

// state is state.json. Nobody's word is taken for what it says: images are
// verified before they are used.
type state struct {
	Uploads  map[Kind]string `json:"uploads,omitempty"`  // ids of what was uploaded and not installed yet
	Trial    *trial          `json:"trial,omitempty"`    // firmware that was installed and has not proven itself
	Firmware string          `json:"firmware,omitempty"` // id of the firmware that hem serve starts
	Console  string          `json:"console,omitempty"`  // id of the console that is served
	// Reports are of changes that the audit log may not know yet. They are
	// written with the change, and taken out when they were recorded.
	Reports []Report `json:"reports,omitempty"`
}

// A trial is firmware on its way: begun when it was started once. If it is found
// begun at another start, it did not get ready.
type trial struct {
	Image string `json:"image"`
	From  string `json:"from"` // version of the program that installed it
	Begun bool   `json:"begun,omitempty"`
}

// A Report is what the audit log is to be told.
type Report struct {
	Action string `json:"action"` // such as install_fw
	Image  string `json:"image"`  // id
	OK     bool   `json:"ok"`
	Who    string `json:"who,omitempty"` // as the log names them
}

// Text is the argument of its record.
func (r Report) Text() string { return r.Action + " " + r.Image }

func (s state) clone() state {
	next := s
	next.Uploads = make(map[Kind]string, len(s.Uploads))
	for k, id := range s.Uploads {
		next.Uploads[k] = id
	}
	if s.Trial != nil {
		t := *s.Trial
		next.Trial = &t
	}
	next.Reports = slices.Clone(s.Reports)
	return next
}

// maxReports bounds what is kept for a log that cannot be written.
const maxReports = 16

func (s *state) report(r Report) {
	if len(s.Reports) < maxReports {
		s.Reports = append(s.Reports, r)
	}
}

var imageID = regexp.MustCompile(`^[0-9a-f]{32}$`)

// valid finds a state that no program wrote.
func (s state) valid() bool {
	ids := []string{s.Firmware, s.Console}
	if s.Trial != nil {
		ids = append(ids, s.Trial.Image)
	}
	for _, id := range s.Uploads {
		ids = append(ids, id)
	}
	for _, id := range ids {
		if id != "" && !imageID.MatchString(id) {
			return false
		}
	}
	return true
}

// names are the files that the state is about.
func (s state) names() map[string]bool {
	names := map[string]bool{stateFile: true, programFile: true}
	add := func(k Kind, id string) {
		if id != "" {
			names[imageName(k, id)] = true
		}
	}
	add(Firmware, s.Firmware)
	add(Console, s.Console)
	for k, id := range s.Uploads {
		add(k, id)
	}
	if s.Trial != nil {
		add(Firmware, s.Trial.Image)
	}
	return names
}

func imageName(k Kind, id string) string { return string(k) + "-" + id }

// loadState reads the state of a folder, which need not be there.
func loadState(dir string) (state, error) {
	s := state{Uploads: make(map[Kind]string)}
	raw, err := os.ReadFile(filepath.Join(dir, stateFile))
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(raw, &s); err != nil || !s.valid() {
		return state{}, fmt.Errorf("%s is damaged; remove it, and with it what was installed there, or put it back", filepath.Join(dir, stateFile))
	}
	return s, nil
}

// save puts the state in place. After an error the old one holds, unless the disk
// failed between renaming and syncing.
func (s state) save(dir string) error {
	raw, err := json.MarshalIndent(s, "", " ")
	if err != nil {
		return err
	}
	path := filepath.Join(dir, stateFile)
	f, err := os.OpenFile(path+newSuffix, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, fileMode)
	if err != nil {
		return err
	}
	if _, err = f.Write(append(raw, '\n')); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return rename(path+newSuffix, path)
}

// rename puts a file in its place for good.
func rename(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return fsync.Dir(filepath.Dir(to))
}

// sweep removes what is not named: what was being made when the power went, and
// what a change has put out of use.
func sweep(dir string, keep map[string]bool) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if !keep[e.Name()] {
			err = errors.Join(err, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return err
}

// idOf is what an image of this SHA-512 is called.
func idOf(sum []byte) string { return fmt.Sprintf("%x", sum[:16]) }
