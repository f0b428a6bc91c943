package control

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// keeper answers as it is told to; what a module answers is tested there.
type keeper struct {
	text string
	err  error
}

func (k *keeper) Backup(_ context.Context, w io.Writer) error {
	if _, err := io.WriteString(w, k.text); err != nil {
		return err
	}
	return k.err
}

func (k *keeper) Check(_ context.Context, r io.Reader) (Report, error) {
	b, err := io.ReadAll(r)
	return Report{EID: string(b)}, errors.Join(err, k.err)
}

func (k *keeper) Rekey(_ context.Context, ask RekeyRequest) (RekeyReport, error) {
	return RekeyReport{File: string(ask.Passphrase)}, k.err
}

func serve(t *testing.T, dir string, k Keeper) *http.Server {
	t.Helper()
	l, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: Handler(k)}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	return srv
}

// Each way there and back, in a folder with a short and with a long path.
func TestControl(t *testing.T) {
	ctx := t.Context()
	short, err := os.MkdirTemp("", "hem")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(short) })
	long := filepath.Join(t.TempDir(), strings.Repeat("long/", 30))
	if err := os.MkdirAll(long, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{short, long} {
		if _, err := Dial(ctx, dir); !errors.Is(err, ErrNotRunning) {
			t.Errorf("before it runs: %v", err)
		}
		k := &keeper{text: strings.Repeat("backup", 100_000)}
		srv := serve(t, dir, k)
		if info, err := os.Stat(filepath.Join(dir, Socket)); err != nil || info.Mode().Perm() != 0o600 {
			t.Error(info.Mode(), err)
		}
		c, err := Dial(ctx, dir)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		var got strings.Builder
		if err := c.Backup(ctx, &got); err != nil || got.String() != k.text {
			t.Errorf("%d bytes, %v", got.Len(), err)
		}
		if r, err := c.Check(ctx, strings.NewReader("content")); err != nil || r.EID != "content" {
			t.Error(r, err)
		}
		if r, err := c.Rekey(ctx, RekeyRequest{Passphrase: []byte("words")}); err != nil || r.File != "words" {
			t.Error(r, err)
		}
		k.err = errors.New("it is\nas it is")
		if err := c.Backup(ctx, io.Discard); err == nil || err.Error() != "it is as it is" {
			t.Errorf("a backup that fails at its end: %v", err)
		}
		k.text = ""
		if err := c.Backup(ctx, io.Discard); err == nil || err.Error() != "it is as it is" {
			t.Errorf("a backup that fails at once: %v", err)
		}
		if _, err := c.Check(ctx, strings.NewReader("content")); err == nil || err.Error() != "it is as it is" {
			t.Errorf("a check that fails: %v", err)
		}
		if err := srv.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := Dial(ctx, dir); !errors.Is(err, ErrNotRunning) {
			t.Errorf("after it has ended: %v", err)
		}
	}
}

// What a process that was killed has left is no obstacle; and a stream that ends
// without a word is no backup.
func TestControlLeftovers(t *testing.T) {
	ctx := t.Context()
	dir, err := os.MkdirTemp("", "hem")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, Socket)})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	if _, err := Dial(ctx, dir); !errors.Is(err, ErrNotRunning) {
		t.Errorf("a socket that nobody listens on: %v", err)
	}
	again, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "half") })}
	go srv.Serve(again)
	defer srv.Close()
	c, err := Dial(ctx, dir)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Backup(ctx, io.Discard); err == nil || !strings.Contains(err.Error(), "cut off") {
		t.Error(err)
	}
}
