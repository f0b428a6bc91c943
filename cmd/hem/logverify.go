package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"softhem/api"
	"softhem/hem"
	"softhem/internal/audit"
	"softhem/internal/suite"
)

// errNoCheckpoint is what lines that hold are worth by themselves.
var errNoCheckpoint = errors.New("not tamper-evident without a checkpoint: every line holds, which proves that nothing broke by accident, " +
	"but whoever can write the files could have rewritten or cut them; if that is enough for you, add --lines-only")

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
	LinesHold     bool      `json:"lines_hold"`
	TamperEvident bool      `json:"tamper_evident"` // always false: there are no checkpoints yet
	Files         []verdict `json:"files"`
}

func newLogVerifyCmd(o *options) *cobra.Command {
	var files []string
	var key string
	var linesOnly bool
	c := &cobra.Command{
		Use:   "verify [ID...] | --file FILE... --key KEY",
		Short: "Verify log files",
		Long: `Verify that every line of log files holds: its form, its place, its MAC, and that each MAC
key is signed by the module. Without --file the module's finished files are fetched,
all or those named; with --file the module is not asked, and --key says whose log it is.

The MAC key stands in the file. So lines that hold show that nothing broke by accident,
and no more: to notice a log that was rewritten or cut takes a checkpoint that was
kept outside the module, which this version cannot use yet. Therefore the exit status is
1 even when every line holds, unless --lines-only says that this is all you ask.`,
		Example: `  hem log verify --lines-only
  hem log verify 6955b900
  hem config get --json > module.json
  hem log verify --lines-only --file *.log --key module.json`,
		Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			var eidSign []byte
			if key != "" {
				var err error
				if eidSign, err = readKey(key); err != nil {
					return &usageError{c.CommandPath(), err.Error()}
				}
			}
			result := verification{Files: []verdict{}}
			var err error
			switch {
			case len(files) == 0:
				err = o.verifyOnline(c.Context(), args, eidSign, &result)
			case eidSign == nil:
				return &usageError{c.CommandPath(), "--key is missing; without it a log signed by anyone would pass"}
			default:
				err = verifyFiles(append(files, args...), eidSign, &result)
			}
			if err != nil {
				return err
			}
			return o.reportVerification(&result, linesOnly)
		},
	}
	c.Flags().StringArrayVar(&files, "file", nil, "`file` to verify, and all arguments, without asking a module")
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

func verifyFiles(paths []string, eidSign []byte, result *verification) error {
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		v, err := verify(path, f, eidSign)
		f.Close()
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		result.Files = append(result.Files, v)
	}
	return nil
}

// verifyOnline fetches and verifies the files named, or all that are finished.
// eidSign, if not nil, is the key the module must have.
func (o *options) verifyOnline(ctx context.Context, ids []string, eidSign []byte, result *verification) error {
	return o.with(ctx, need{scope: api.ScopeLoggerGet}, func(m *hem.Client) error {
		moduleKey, err := loggerKey(ctx, m)
		if err != nil {
			return err
		}
		if eidSign != nil && !suite.Equal(eidSign, moduleKey) {
			return errors.New("the module's key is not the one given with --key; is it the right module?")
		}
		all := len(ids) == 0
		if all {
			if ids, err = allLogs(ctx, m); err != nil {
				return err
			}
		}
		for i, id := range ids {
			file, err := m.LogFile(ctx, strings.ToLower(id))
			if all && i == len(ids)-1 && errors.Is(err, api.ErrNotAcceptable) {
				o.note("%s is left out: it is being written", clean(id))
				continue
			}
			if err != nil {
				return err
			}
			v, err := verify(id, file, moduleKey)
			file.Close()
			if err != nil {
				return fmt.Errorf("log %s: %w", clean(id), err)
			}
			result.Files = append(result.Files, v)
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

// verify reads one file to its end or to its first bad record. An error is r's.
func verify(name string, r io.Reader, eidSign []byte) (verdict, error) {
	report, err := audit.VerifyFile(r, eidSign)
	v := verdict{
		File: name, Records: report.Records, Keys: report.Keys, Failed: report.Failed, Errors: report.Errors,
		SetBack: report.SetBack, First: report.First, Last: report.Last,
	}
	if bad, ok := errors.AsType[*audit.BadRecordError](err); ok {
		v.Bad = &badRecord{Line: bad.Line, Record: bad.Seq, Offset: bad.Offset, Why: bad.Why}
		return v, nil
	}
	v.OK = err == nil
	return v, err
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
