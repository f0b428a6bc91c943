package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"

	"softhem/hem"
)

// patience is how long nothing is said about a wait.
const patience = time.Second

// progress shows on a terminal what takes long, on one line that goes away when
// it is over. Without a terminal it does nothing.
type progress struct {
	w io.Writer // nil without a terminal

	mu      sync.Mutex
	timer   *time.Timer
	running bool
	shown   bool
}

func newProgress(stderr io.Writer) *progress {
	if f, ok := stderr.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return &progress{w: f}
	}
	return &progress{}
}

// begin starts a wait, which is mentioned once it has lasted.
func (p *progress) begin() {
	if p.w == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running = true
	p.timer = time.AfterFunc(patience, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.running && !p.shown {
			p.show("waiting for the module")
		}
	})
}

// stage hears from the client what it is at.
func (p *progress) stage(s hem.Stage) {
	if p.w == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.running {
		return
	}
	switch s {
	case hem.StagePassphrase: // the prompt has the line now
		p.timer.Stop()
		p.erase()
	case hem.StageDerive:
		p.show("deriving the key from the passphrase")
	case hem.StageLogin:
		p.show("logging in")
	case hem.StageSelfTest:
		p.show("the module tests itself")
	case hem.StageWait:
		p.show("waiting, as the module asked for")
	}
}

// hide takes the line away so that something else can be written.
func (p *progress) hide() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.erase()
}

// end is the end of the wait.
func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running {
		p.running = false
		p.timer.Stop()
	}
	p.erase()
}

// show and erase want p.mu held.
func (p *progress) show(text string) {
	p.erase()
	fmt.Fprintf(p.w, "hem: %s ...", text)
	p.shown = true
}

func (p *progress) erase() {
	if p.shown {
		io.WriteString(p.w, "\r\x1b[K")
		p.shown = false
	}
}

// say shows what a command is at, for those that know better than the client.
func (p *progress) say(text string) {
	if p.w == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running {
		p.show(text)
	}
}
