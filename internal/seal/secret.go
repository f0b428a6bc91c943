package seal

import (
	"fmt"
	"io"
	"log/slog"
)

// A Secret is key material that does not show itself: fmt, encoding/json,
// everything that asks for text, and log/slog see "[secret]" instead.
//
// One path stays open, because package fmt calls no methods on unexported
// fields: a struct that keeps a Secret in such a field must not be printed
// itself, or must bring its own Format as Sealer does.
type Secret []byte

const redacted = "[secret]"

// Wipe overwrites the bytes with zeroes. Copies made before are not reached.
func (s Secret) Wipe() { clear(s) }

func (Secret) String() string   { return redacted }
func (Secret) GoString() string { return redacted }

// Format answers every verb, also those that String does not serve, such as
// %x and %d.
func (Secret) Format(f fmt.State, _ rune) { io.WriteString(f, redacted) }

func (Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }
func (Secret) LogValue() slog.Value         { return slog.StringValue(redacted) }
