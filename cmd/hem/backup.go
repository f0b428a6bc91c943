package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"softhem/internal/backup"
	"softhem/internal/control"
	"softhem/internal/envelope"
	"softhem/internal/fsync"
)

// written is what hem backup prints with --json.
type written struct {
	File    string `json:"file"`
	Bytes   int64  `json:"bytes"`
	Checked string `json:"checked"` // checkedFile or checkedContent
	control.Report
}

const (
	checkedFile    = "file"    // what was decrypted from the file
	checkedContent = "content" // what was encrypted into it
)

func newBackupCmd(t terminal, o *options) *cobra.Command {
	b := &backupCmd{o: o}
	c := &cobra.Command{
		Use:   "backup --to FILE",
		Short: "Write all of a module into one encrypted file",
		Long: `Write all of a module of this host into one age file: its store, its log and its keys, as they
were at one moment. The module goes on working meanwhile. If none runs on the folder, it is
opened for this, which its log shows.

The file is encrypted with a passphrase, which is asked for or read from --passphrase-file, or for
age recipients. Whoever can decrypt it has the module with all its keys, if the root key is a raw
file: it goes along as it is. A root key that is itself an age file stays encrypted in there. One
that is not at hand, because its medium was taken away, is not in the backup. Nor are the disks of hem
storage, of which only the key is: copy their images while they are locked.

A backup is tried out before it gets its name: all of it is restored aside, and every record, every key
and the log are opened. With recipients alone the file cannot be decrypted here: then what goes into it
is tried out, and --identity has the file itself decrypted.

` + helpKeep,
		Example: `  hem backup --data /var/lib/softhem --to /mnt/backup/hem.age
  hem backup --config /etc/softhem/serve.toml --to hem.age --recipient age1…
  hem backup --to hem.age --recipient age1… --identity key.txt`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return b.run(c) },
	}
	b.k = newKeeper(t, o, c)
	f := c.Flags()
	f.StringVar(&b.to, "to", "", "`FILE` to write; it is replaced when the new one was found good")
	f.StringArrayVar(&b.recipients, "recipient", nil, "age `RECIPIENT` (age1…) to encrypt for, instead of with a passphrase; repeatable")
	f.StringVar(&b.identity, "identity", "", "`FILE` of an age identity, to decrypt what was written for trying it out")
	f.StringVar(&b.passphraseFile, "passphrase-file", "", "`FILE` with the passphrase of the backup, - for standard input (default: ask twice on the terminal)")
	exclude(c, "recipient", "passphrase-file")
	return c
}

type backupCmd struct {
	o          *options
	k          *keeper
	to         string
	recipients []string

	identity, passphraseFile string
}

func (b *backupCmd) run(c *cobra.Command) error {
	ctx := c.Context()
	if b.to == "" || b.to == "-" {
		return &usageError{c.CommandPath(), "name the file to write with --to"}
	}
	if b.identity != "" && len(b.recipients) == 0 {
		return &usageError{c.CommandPath(), "--identity is for what was encrypted for a --recipient"}
	}
	if err := b.k.settle(ctx, c); err != nil {
		return err
	}
	var identity, passphrase []byte
	var err error
	if b.identity != "" {
		if identity, err = b.o.secretFile("--identity", b.identity); err != nil {
			return fmt.Errorf("--identity: %w", err)
		}
		defer clear(identity)
	}
	if len(b.recipients) == 0 {
		if passphrase, err = b.o.secretTwice(ctx, "--passphrase-file", "backup", b.passphraseFile, b.o.judgePassphrase(c, "backup")); err != nil {
			return err
		}
		defer clear(passphrase)
	}
	result := written{File: b.to, Checked: checkedFile}
	if len(b.recipients) > 0 && identity == nil {
		result.Checked = checkedContent
	}
	err = b.k.with(ctx, func(k control.Keeper) error {
		return replaceWhenGood(b.to, func(f *os.File) (err error) {
			if err = b.write(ctx, k, f, passphrase, &result); err != nil {
				return err
			}
			if result.Checked == checkedFile {
				err = b.check(ctx, k, f, identity, passphrase, &result)
			}
			return err
		})
	})
	if refused, ok := errors.AsType[*envelope.FileError](err); ok {
		return &usageError{c.CommandPath(), refused.Error()}
	}
	if err != nil {
		return fmt.Errorf("no backup was made: %w", err)
	}
	return b.tell(&result)
}

// judgePassphrase takes no empty passphrase of something that is a file, and
// warns of one that can be found by trying.
func (o *options) judgePassphrase(c *cobra.Command, of string) func([]byte) error {
	return func(passphrase []byte) error {
		switch n := utf8.RuneCount(passphrase); {
		case n == 0:
			return &usageError{c.CommandPath(), "the passphrase of the " + of + " is empty"}
		case n < shortPassphrase:
			o.warn("the passphrase of the %s has fewer than %d characters: who gets the file can find it by trying", of, shortPassphrase)
		}
		return nil
	}
}

// write encrypts what the module gives into f. When nobody here can decrypt it,
// what is encrypted is tried out on the way.
func (b *backupCmd) write(ctx context.Context, k control.Keeper, f *os.File, passphrase []byte, result *written) error {
	sealed, err := envelope.SealFor(f, b.recipients, passphrase)
	if err != nil {
		return err
	}
	to, wait := io.Writer(sealed), func(error) error { return nil }
	if result.Checked == checkedContent {
		r, w := io.Pipe()
		checked := make(chan error, 1)
		go func() {
			var err error
			result.Report, err = k.Check(ctx, r)
			r.Close() // so that nobody waits to write on
			checked <- err
		}()
		to = io.MultiWriter(sealed, w)
		wait = func(err error) error {
			w.CloseWithError(err) // nil is the end
			return <-checked
		}
	}
	err = k.Backup(ctx, to)
	if checkErr := wait(err); checkErr != nil && (err == nil || errors.Is(err, io.ErrClosedPipe)) {
		err = checkErr
	}
	if err == nil {
		err = sealed.Close()
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		result.Bytes, err = f.Seek(0, io.SeekEnd)
	}
	return err
}

// check decrypts f and has it tried out.
func (b *backupCmd) check(ctx context.Context, k control.Keeper, f *os.File, identity, passphrase []byte, result *written) error {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	r, err := envelope.OpenFor(f, identity, func() ([]byte, error) { return append([]byte(nil), passphrase...), nil })
	if refused, ok := errors.AsType[*envelope.FileError](err); ok {
		return fmt.Errorf("what was written cannot be opened: %s", refused)
	}
	if err == nil {
		result.Report, err = k.Check(ctx, r)
	}
	return err
}

func (b *backupCmd) tell(result *written) error {
	if b.o.json {
		return printJSON(b.o.t.out, result)
	}
	how := "restored from the file, and opened"
	if result.Checked == checkedContent {
		how = "restored before it was encrypted, and opened; give --identity to have the file itself decrypted"
	}
	b.o.note("%s: the module %s with %d keys and %d records of its log; all of it was %s", result.File, result.EID, result.Keys, result.Records, how)
	switch result.RootKey {
	case backup.RootRaw:
		b.o.note("the root key is in it: who can decrypt this file has the module and all its keys")
	case backup.RootAge:
		b.o.note("the root key is in it as the age file that it is: keep what opens that as well")
	default:
		b.o.warn("the root key was not at hand and is not in it: without a copy of it elsewhere this backup is worth nothing")
	}
	return nil
}

// replaceWhenGood has fill write a file that gets the name path when fill
// returns nil. Until then, and after a crash, path is what it was; what a crash
// leaves beside it is written over the next time.
func replaceWhenGood(path string, fill func(*os.File) error) (err error) {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a file", path)
	}
	temp := path + newSuffix
	f, err := os.OpenFile(temp, os.O_RDWR|os.O_CREATE|openNoFollow, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("another backup is being written to %s", path)
	}
	mine, err1 := f.Stat()
	named, err2 := os.Stat(temp)
	if err1 != nil || err2 != nil || !os.SameFile(mine, named) { // renamed since it was opened
		return fmt.Errorf("another backup was written to %s at the same time", path)
	}
	defer func() {
		if err != nil {
			os.Remove(temp)
		}
	}()
	if err := errors.Join(f.Chmod(0o600), f.Truncate(0)); err != nil {
		return err
	}
	if err := fill(f); err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), os.Rename(temp, path)); err != nil {
		return err
	}
	return fsync.Dir(filepath.Dir(path))
}

// moment is a time as people read it.
func moment(unix int64) string { return time.Unix(unix, 0).UTC().Format(time.RFC3339) }
