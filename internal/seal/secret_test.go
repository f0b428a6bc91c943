package seal

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

const canary = "correct-horse-battery-staple-32b"

func TestSecretNeverShows(t *testing.T) {
	s := Secret(canary)
	outputs := map[string]string{}
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%d", "%o", "%b", "%c", "%U", "%t", "%.3s", "%20v"} {
		outputs["fmt "+format] = fmt.Sprintf(format, s)
		outputs["fmt in a struct "+format] = fmt.Sprintf(format, struct{ Key Secret }{s})
		outputs["fmt by pointer "+format] = fmt.Sprintf(format, &s)
	}
	outputs["Print"] = fmt.Sprint(s)
	outputs["String"] = s.String()
	outputs["GoString"] = s.GoString()
	outputs["error"] = fmt.Errorf("failed with %w: %v", ErrTampered, s).Error()
	j, err := json.Marshal(map[string]any{"key": s, "in": struct{ Key Secret }{s}})
	if err != nil {
		t.Fatal(err)
	}
	outputs["json"] = string(j)
	text, err := s.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	outputs["text"] = string(text)
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("m", "key", s, "in", struct{ Key Secret }{s}, slog.Group("g", "key", s))
	outputs["slog text"] = log.String()
	log.Reset()
	slog.New(slog.NewJSONHandler(&log, nil)).Info("m", "key", s, "in", struct{ Key Secret }{s}, slog.Group("g", "key", s))
	outputs["slog json"] = log.String()

	for path, out := range outputs {
		if !strings.Contains(out, "[secret]") {
			t.Errorf("%s gives %q, without [secret]", path, out)
		}
		mustHide(t, path, out)
	}
}

func TestSealerNeverShowsItsKey(t *testing.T) {
	s := &Sealer{key: Secret(canary)}
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
		mustHide(t, format, fmt.Sprintf(format, s))
		mustHide(t, format, fmt.Sprintf(format, struct{ S *Sealer }{s}))
	}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("m", "sealer", s)
	mustHide(t, "slog", log.String())
}

// mustHide looks for the canary as text, hex, decimal bytes and base64.
func mustHide(t *testing.T, path, out string) {
	t.Helper()
	j, err := json.Marshal([]byte(canary))
	if err != nil {
		t.Fatal(err)
	}
	decimal := strings.Trim(fmt.Sprint([]byte(canary[:4])), "[]")
	for _, form := range []string{canary[:8], hex.EncodeToString([]byte(canary[:4])), decimal, string(j[1:12])} {
		if strings.Contains(strings.ToLower(out), strings.ToLower(form)) {
			t.Errorf("%s shows the secret: %q", path, out)
		}
	}
}

func TestWipe(t *testing.T) {
	s := Secret(canary)
	alias := s[3:9]
	s.Wipe()
	if !bytes.Equal(s, make([]byte, len(canary))) || !bytes.Equal(alias, make([]byte, 6)) {
		t.Fatal("bytes of the secret are left")
	}
}
