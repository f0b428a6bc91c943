// Package control is how the commands that keep a module talk to it while it
// runs: HTTP on a unix socket in the data folder.
//
//	POST /backup   an archive of the folder, see internal/backup
//	POST /check    the same, in the other direction: is it good?
//	POST /rekey    a new root key
//
// Who may connect is who may enter the folder, which is 0700, and may write the
// socket, which is 0600: the module's own user and root, who can read and write
// all of the folder anyway. There is no other check, and nothing here tells more
// than the folder does: see the archive's root key.
package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Socket is the name of the socket in the data folder.
const Socket = "control.sock"

// A Keeper is what can be done with a module by who keeps it. Errors are
// sentences for that person.
type Keeper interface {
	// Backup writes an archive of one moment of the module to w.
	Backup(ctx context.Context, w io.Writer) error
	// Check restores an archive aside, opens all that is in it, and removes
	// it again.
	Check(ctx context.Context, r io.Reader) (Report, error)
	// Rekey puts another root key in the place of the one in use.
	Rekey(ctx context.Context, ask RekeyRequest) (RekeyReport, error)
}

// An Interrupter is a reader or writer that can be called off while it waits for
// the other side, which may never do anything.
type Interrupter interface{ Interrupt() }

// A Report says what is in an archive in which everything is in order.
type Report struct {
	EID     string `json:"eid"`
	Created int64  `json:"created"` // Unix seconds
	Keys    int64  `json:"keys"`
	Records int64  `json:"records"` // of the log
	Files   int    `json:"log_files"`
	RootKey string `json:"root_key"` // raw, age or none: what there is of it
}

// A RekeyRequest says how the new root key is to be kept where the module cannot
// know: the passphrase of an age file that a person is asked for at each start.
type RekeyRequest struct {
	Passphrase []byte `json:"passphrase,omitempty"`
}

// A RekeyReport says what was done: nothing yet, if a passphrase is needed.
type RekeyReport struct {
	WantsPassphrase bool   `json:"wants_passphrase,omitempty"`
	File            string `json:"file"` // of the root key
}

// The end of an archive: one of these follows it, as a trailer. Without one it
// was cut.
const (
	trailerDone  = "Softhem-Done"
	trailerError = "Softhem-Error"
)

// Handler answers on the socket.
func Handler(k Keeper) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /backup", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/x-tar")
		out := &counted{w: w, c: http.NewResponseController(w)}
		err := k.Backup(r.Context(), out)
		if err != nil && !out.any {
			fail(w, err)
			return
		}
		if err != nil {
			w.Header().Set(http.TrailerPrefix+trailerError, oneLine(err))
			return
		}
		w.Header().Set(http.TrailerPrefix+trailerDone, "yes")
	})
	mux.HandleFunc("POST /check", func(w http.ResponseWriter, r *http.Request) {
		// What follows an archive that was refused is not read.
		report, err := k.Check(r.Context(), &body{r.Body, http.NewResponseController(w)})
		answer(w, report, err)
	})
	mux.HandleFunc("POST /rekey", func(w http.ResponseWriter, r *http.Request) {
		var ask RekeyRequest
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 128<<10)).Decode(&ask); err != nil {
			fail(w, errors.New("the request cannot be read"))
			return
		}
		defer clear(ask.Passphrase)
		report, err := k.Rekey(r.Context(), ask)
		answer(w, report, err)
	})
	return mux
}

type counted struct {
	w   io.Writer
	c   *http.ResponseController
	any bool
}

func (c *counted) Interrupt() { c.c.SetWriteDeadline(time.Unix(1, 0)) }

func (c *counted) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil // the first write begins the answer
	}
	c.any = true
	return c.w.Write(p)
}

type body struct {
	io.Reader
	c *http.ResponseController
}

func (b *body) Interrupt() { b.c.SetReadDeadline(time.Unix(1, 0)) }

func answer(w http.ResponseWriter, v any, err error) {
	if err != nil {
		fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v)
}

func fail(w http.ResponseWriter, err error) {
	http.Error(w, oneLine(err), http.StatusConflict)
}

func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }

// longest is how long the path of a socket can be on every system.
const longest = 103

// path is a name for the socket of a folder that is short enough, and what has to
// be kept open as long as it is used.
func path(dir string) (string, io.Closer, error) {
	name := filepath.Join(dir, Socket)
	if len(name) <= longest {
		return name, io.NopCloser(nil), nil
	}
	folder, err := os.Open(dir)
	if err != nil {
		return "", nil, err
	}
	short := fmt.Sprintf("/proc/self/fd/%d", folder.Fd())
	if _, err := os.Stat(short); err != nil {
		folder.Close()
		return "", nil, fmt.Errorf("the path of the data folder is too long for a socket in it (%d bytes)", len(name))
	}
	return filepath.Join(short, Socket), folder, nil
}

// Listen opens the socket of a folder that is this process's alone, and so
// removes one that another process has left there.
func Listen(dir string) (net.Listener, error) {
	if err := os.Remove(filepath.Join(dir, Socket)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	name, held, err := path(dir)
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("unix", name)
	if err != nil {
		held.Close()
		return nil, err
	}
	// The folder keeps others out in the moment before.
	if err := os.Chmod(name, 0o600); err != nil {
		l.Close()
		held.Close()
		return nil, err
	}
	return &listener{l, held}, nil
}

type listener struct {
	net.Listener
	held io.Closer
}

func (l *listener) Close() error { return errors.Join(l.Listener.Close(), l.held.Close()) }
