package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"softhem/api"
	"softhem/hem"
	"softhem/internal/suite"
)

// errNoCheckpoint is what lines that hold are worth by themselves.
var errNoCheckpoint = errors.New("not tamper-evident without a checkpoint: every line holds, which proves that nothing broke by accident, " +
	"but whoever can write the files could have rewritten or cut them; give one that was kept elsewhere with --checkpoint, or if that is enough for you, add --lines-only")

// A verdict is what was found in one file. Its JSON is stable.
type verdict struct {
	File    string     `json:"file"`
	OK      bool       `json:"ok"` // every line holds
	Records int        `json:"records"`
	Keys    int        `json:"keys"`   // MAC keys the file uses
	Failed  int        `json:"failed"` // records with result FAILED
	Errors  int        `json:"errors"` // and ERROR
	SetBack int        `json:"set_back"`
	First   int64      `json:"first"` // times, Unix seconds
	Last    int64      `json:"last"`
	Bad     *badRecord `json:"bad,omitzero"`
}

// A badRecord is the first that does not hold.
type badRecord struct {
	Line   int    `json:"line"` // from 1
	Record uint64 `json:"record"`
	Offset int64  `json:"offset"` // of the line, in bytes
	Why    string `json:"why"`
}

// A verification is all files. Its JSON is stable.
type verification struct {
	LinesHold     bool        `json:"lines_hold"`
	TamperEvident bool        `json:"tamper_evident"`   // every checkpoint given holds, and so does every line
	Covered       int64       `json:"covered,omitzero"` // records under the last checkpoint given that holds
	Records       int64       `json:"records,omitzero"` // of the whole log; with a checkpoint only
	Another       *recordSpan `json:"another,omitzero"` // where the first record is that is another
	Missing       *recordSpan `json:"missing,omitzero"` // records that a checkpoint covers and that are gone
	Files         []verdict   `json:"files"`
}

// A recordSpan is a stretch of the log, its records counted from 0 over all
// files.
type recordSpan struct {
	From int64 `json:"from"`
	To   int64 `json:"to"` // the first after it
}

func newLogVerifyCmd(o *options) *cobra.Command {
	var files, checkpoints []string
	var key string
	var linesOnly bool
	c := &cobra.Command{
		Use:   "verify [ID...] | --file FILE... --key KEY",
		Short: "Verify log files",
		Long: `Verify a log against a checkpoint of it that was kept outside the module: that no
record was changed, dropped, added or moved since, and none cut off, whoever has had the
files. Without --file the module is asked for its log, with the file being written; with
--file it is not, and --key says whose log it is. Then all files have to be given.

Without a checkpoint every line is verified by itself: its form, its place, its MAC, and that
each MAC key is signed by the module. But the MAC key stands in the file. So lines that hold
show that nothing broke by accident, and no more, and the exit status is 1 even when every line
holds, unless --lines-only says that this is all you ask.

The first bad record is named. If all lines hold because they were forged with their keys, a
checkpoint can only tell before which record it happened, and a second one after which; if
hem log follow has kept its own notes beside the checkpoint (.leaves), they tell the record.

A line before the first record of a file is no part of what a checkpoint covers.`,
		Example: `  hem log checkpoint -o yesterday.checkpoint
  hem log verify --checkpoint yesterday.checkpoint
  hem log verify --lines-only 6955b900
  hem config get --json > module.json
  hem log verify --checkpoint yesterday.checkpoint --file *.log --key module.json`,
		Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			var eidSign []byte
			if key != "" {
				var err error
				if eidSign, err = readKey(key); err != nil {
					return &usageError{c.CommandPath(), err.Error()}
				}
			}
			if len(checkpoints) > 0 && (linesOnly || len(files) == 0 && len(args) > 0) {
				return &usageError{c.CommandPath(), "a checkpoint is of the whole log; --lines-only and single files do not go with it"}
			}
			e, err := readEvidence(checkpoints)
			if err != nil {
				return err
			}
			result := verification{Files: []verdict{}}
			switch {
			case len(files) == 0:
				err = o.verifyOnline(c.Context(), args, eidSign, e, &result)
			case eidSign == nil:
				return &usageError{c.CommandPath(), "--key is missing; without it a log signed by anyone would pass"}
			default:
				err = o.verifyFiles(append(files, args...), eidSign, e, &result)
			}
			if err != nil {
				return err
			}
			return o.reportVerification(&result, linesOnly)
		},
	}
	c.Flags().StringArrayVar(&files, "file", nil, "`file` to verify, and all arguments, without asking a module")
	c.Flags().StringArrayVar(&checkpoints, "checkpoint", nil, "`file` with a checkpoint that was kept outside the module; repeatable")
	c.Flags().StringVar(&key, "key", "", "the module's eid_sign: base64, or a file with it or with the output of hem config get --json")
	c.Flags().BoolVar(&linesOnly, "lines-only", false, "be content when every line holds")
	return c
}

// readKey takes an Ed25519 public key as base64, or from a file that holds it raw,
// as base64, or as JSON under the names the API has for it.
func readKey(text string) ([]byte, error) {
	if raw, err := api.DecodeBase64(text); err == nil && len(raw) == suite.Ed25519Public {
		return raw, nil
	}
	content, err := os.ReadFile(text)
	if err != nil {
		return nil, errors.New("--key is neither base64 of 32 bytes nor a file that can be read")
	}
	if len(content) == suite.Ed25519Public {
		return content, nil
	}
	var names struct {
		EIDSign string `json:"eid_sign"` // of the configuration
		Key     string `json:"key"`      // of /api/logger/key
	}
	spelled := string(bytes.TrimSpace(content))
	if json.Unmarshal(content, &names) == nil {
		if spelled = names.EIDSign; spelled == "" {
			spelled = names.Key
		}
	}
	if raw, err := api.DecodeBase64(spelled); err == nil && len(raw) == suite.Ed25519Public {
		return raw, nil
	}
	return nil, errors.New("--key: the file holds no key of 32 bytes")
}

func (o *options) verifyFiles(paths []string, eidSign []byte, e *evidence, result *verification) error {
	if err := e.begin(eidSign, result); err != nil {
		return err
	}
	if e.given() { // names sort by age, however they were given
		slices.SortStableFunc(paths, func(a, b string) int { return strings.Compare(filepath.Base(a), filepath.Base(b)) })
	}
	o.progress.begin()
	defer o.progress.end()
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		err = e.file(path, &counted{Reader: f, o: o, name: path}, result)
		f.Close()
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return e.end(result)
}

// A counted reader shows how far it is.
type counted struct {
	io.Reader
	o    *options
	name string
	n    int64 // bytes
	said int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	const step = 8 << 20
	if c.n += int64(n); c.n-c.said >= step {
		c.said = c.n
		c.o.progress.say(fmt.Sprintf("verifying %s, %d MB", clean(c.name), c.n/1_000_000))
	}
	return n, err
}

// verifyOnline fetches and verifies the files named, or all that are finished,
// and with a checkpoint all there is. eidSign, if not nil, is the key the module
// must have.
func (o *options) verifyOnline(ctx context.Context, ids []string, eidSign []byte, e *evidence, result *verification) error {
	return o.with(ctx, need{scope: api.ScopeLoggerGet}, func(m *hem.Client) error {
		moduleKey, err := loggerKey(ctx, m)
		if err != nil {
			return err
		}
		if eidSign != nil && !suite.Equal(eidSign, moduleKey) {
			return errors.New("the module's key is not the one given with --key; is it the right module?")
		}
		if err := e.begin(moduleKey, result); err != nil {
			return err
		}
		size := int64(0)
		if e.given() {
			if size, err = e.expectNow(ctx, m, moduleKey); err != nil {
				return err
			}
		}
		all := len(ids) == 0
		if all {
			if ids, err = allLogs(ctx, m); err != nil {
				return err
			}
		}
		current := ""
		for i, id := range ids {
			file, err := m.LogFile(ctx, strings.ToLower(id))
			if all && i == len(ids)-1 && errors.Is(err, api.ErrNotAcceptable) {
				if current = id; !e.given() {
					o.note("%s is left out: it is being written", clean(id))
				}
				continue
			}
			if err != nil {
				return err
			}
			err = e.file(id, &counted{Reader: file, o: o, name: id}, result)
			file.Close()
			if err != nil {
				return fmt.Errorf("log %s: %w", clean(id), err)
			}
		}
		if e.given() {
			if err := e.rest(ctx, m, current, size, result); err != nil {
				return err
			}
			return e.end(result)
		}
		if len(result.Files) == 0 {
			return errors.New("there is no finished log file yet; the first is finished by a reboot: hem reboot")
		}
		return nil
	})
}

// loggerKey is the key of the module's log, which must be able to sign with it.
func loggerKey(ctx context.Context, m *hem.Client) ([]byte, error) {
	k, err := m.LoggerKey(ctx)
	if err != nil {
		return nil, err
	}
	key, keyErr := api.DecodeBase64(k.Key)
	nonce, nonceErr := api.DecodeBase64(k.Nonce)
	signature, signatureErr := api.DecodeBase64(k.NonceSigned)
	if errors.Join(keyErr, nonceErr, signatureErr) != nil || !suite.VerifyEd25519(key, nonce, signature) {
		return nil, fmt.Errorf("read the log's key: %w: the signature that goes with it does not hold", hem.ErrProtocol)
	}
	return key, nil
}

// reportVerification prints what was found, and is an error unless it is enough.
func (o *options) reportVerification(result *verification, linesOnly bool) error {
	var first *verdict
	for i := range result.Files {
		if v := &result.Files[i]; !v.OK && first == nil {
			first = v
		}
	}
	result.LinesHold = first == nil
	result.TamperEvident = result.TamperEvident && first == nil && result.Another == nil && result.Missing == nil
	if o.json {
		if err := printJSON(o.t.out, result); err != nil {
			return err
		}
	} else {
		t := &table{}
		for _, v := range result.Files {
			t.add(clean(v.File), "%s", v)
		}
		if err := t.print(o.t.out); err != nil {
			return err
		}
	}
	switch {
	case first != nil:
		return fmt.Errorf("%s does not hold from line %d on (record %d): %s; the lines before it do", clean(first.File), first.Bad.Line, first.Bad.Record, first.Bad.Why)
	case result.Another != nil:
		return fmt.Errorf("the log is not the one of the checkpoint: every line holds, but the first record that is another is between %d and %d, counted from 0 over all files; somebody wrote it anew with the keys in the file",
			result.Another.From, result.Another.To-1)
	case result.Missing != nil:
		return fmt.Errorf("the log was cut: it has %d records, and had %d when the checkpoint was signed; record %d, counted from 0 over all files, and those after it are gone",
			result.Missing.From, result.Missing.To, result.Missing.From)
	case result.TamperEvident:
		if !o.json {
			_, err := fmt.Fprintf(o.t.out, "the first %d records of %d are those that the checkpoint was signed for\n", result.Covered, result.Records)
			return err
		}
	case !linesOnly:
		return errNoCheckpoint
	}
	return nil
}

func (v verdict) String() string {
	if !v.OK {
		return fmt.Sprintf("BAD at line %d (record %d): %s", v.Bad.Line, v.Bad.Record, v.Bad.Why)
	}
	text := fmt.Sprintf("every line holds: %d records, %s to %s", v.Records, instant(v.First), instant(v.Last))
	for _, more := range []struct {
		n    int
		what string
	}{{v.Failed, "failed"}, {v.Errors, "with errors"}} {
		if more.n > 0 {
			text += fmt.Sprintf(", %d %s", more.n, more.what)
		}
	}
	if v.SetBack > 0 {
		text += fmt.Sprintf("; the clock was set back %d times", v.SetBack)
	}
	return text
}
