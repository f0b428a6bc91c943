package audit

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"softhem/internal/suite"
)

// maxCheckpoint bounds the text of a checkpoint that is read, in bytes.
const maxCheckpoint = 16 << 10

// A Checkpoint says that the log had Size records under Root. Its text is a
// C2SP tlog-checkpoint, which is a signed note:
//
//	softhem/<eid, 64 hex digits>\n    origin, and the name of the key
//	<size, decimal>\n
//	<root, base64>\n
//	\n
//	— softhem/<eid> <base64 of 4 bytes of key hash and the Ed25519 signature>\n
//
// The signature is by eid_sign. Further lines and signatures, such as those
// of witnesses, are let through and not looked at.
type Checkpoint struct {
	Origin string
	Size   int64
	Root   tlog.Hash
}

func (c Checkpoint) text() string {
	return fmt.Sprintf("%s\n%d\n%s\n", c.Origin, c.Size, c.Root)
}

// OriginPrefix is what every origin begins with.
const OriginPrefix = "softhem/"

// Origin is the origin of the checkpoints of the module whose EncedoID is eid.
func Origin(eid []byte) string { return OriginPrefix + hex.EncodeToString(eid) }

// An eidSigner signs notes in the name of a module.
type eidSigner struct {
	note.Verifier
	sign func(msg []byte) []byte
}

func (s eidSigner) Sign(msg []byte) ([]byte, error) { return s.sign(msg), nil }

// verifier takes the signatures of the module of that origin.
func verifier(origin string, eidSign []byte) (note.Verifier, error) {
	if len(eidSign) != suite.Ed25519Public {
		return nil, errors.New("audit: eid_sign is not 32 bytes")
	}
	key, err := note.NewEd25519VerifierKey(origin, eidSign)
	if err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	return note.NewVerifier(key)
}

// signed is the text of c with its signature.
func (c Checkpoint) signed(eidSign []byte, sign func(msg []byte) []byte) ([]byte, error) {
	v, err := verifier(c.Origin, eidSign)
	if err != nil {
		return nil, err
	}
	return note.Sign(&note.Note{Text: c.text()}, eidSigner{v, sign})
}

// ErrOtherKey: the checkpoint is signed by another key than that asked for,
// or by none.
var ErrOtherKey = errors.New("audit: the checkpoint is not signed by this key")

// ParseCheckpoint reads a checkpoint and checks its signature under eidSign
// (32 bytes). Whose it is, its origin says.
func ParseCheckpoint(text, eidSign []byte) (Checkpoint, error) {
	var c Checkpoint
	if len(text) > maxCheckpoint {
		return c, errors.New("audit: no checkpoint: too long")
	}
	lines := bytes.SplitN(text, []byte{'\n'}, 4)
	if len(lines) < 4 {
		return c, errors.New("audit: no checkpoint: fewer than three lines")
	}
	c.Origin = string(lines[0])
	if eid, ok := strings.CutPrefix(c.Origin, OriginPrefix); !ok || !isHex32(eid) {
		return c, errors.New("audit: no checkpoint of a module: the first line is not softhem/ and 64 hex digits")
	}
	size, err := strconv.ParseInt(string(lines[1]), 10, 64)
	if err != nil || size < 0 || !canonical(lines[1], uint64(size), 10) {
		return c, errors.New("audit: no checkpoint: the second line is no number of records")
	}
	root, err := base64.StdEncoding.Strict().DecodeString(string(lines[2]))
	if err != nil || len(root) != tlog.HashSize {
		return c, errors.New("audit: no checkpoint: the third line is no hash")
	}
	c.Size, c.Root = size, tlog.Hash(root)
	v, err := verifier(c.Origin, eidSign)
	if err != nil {
		return c, err
	}
	n, err := note.Open(text, note.VerifierList(v))
	if err != nil {
		return c, fmt.Errorf("%w: %w", ErrOtherKey, err)
	}
	if !strings.HasPrefix(n.Text, c.text()) {
		return c, errors.New("audit: no checkpoint: the signed text is another")
	}
	return c, nil
}

func isHex32(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == 32 && strings.ToLower(s) == s
}
