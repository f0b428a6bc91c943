package upgrade

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// starter starts a program on a folder again and again, as an operator does.
type starter struct {
	t   *testing.T
	dir string
	log bytes.Buffer
}

func newStarter(t *testing.T) *starter {
	t.Helper()
	return &starter{t: t, dir: filepath.Join(t.TempDir(), "upgrade")}
}

// start is one start by the program of a version; edit changes its settings.
func (s *starter) start(edit func(*Config)) *Program {
	s.t.Helper()
	cfg := Config{Dir: s.dir, Keys: [][]byte{key(s.t, 1).Public()}, Version: "1.0.0", Logger: slog.New(slog.NewTextHandler(&s.log, nil))}
	if edit != nil {
		edit(&cfg)
	}
	p, err := Launch(cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	return p
}

// runs wants a start to run a script.
func (s *starter) runs(script string) *Program {
	s.t.Helper()
	p := s.start(nil)
	if p == nil {
		s.t.Fatalf("nothing is run\n%s", &s.log)
	}
	content, err := os.ReadFile(p.Path)
	if err != nil || string(content) != script {
		s.t.Fatalf("%q is run, want %q: %v", content, script, err)
	}
	info, err := os.Stat(p.Path)
	if err != nil || info.Mode().Perm() != 0o700 {
		s.t.Errorf("its mode is %v, %v", info.Mode(), err)
	}
	return p
}

func (s *starter) runsItself() {
	s.t.Helper()
	if p := s.start(nil); p != nil {
		s.t.Fatalf("%s is run", p.Image)
	}
}

// folder is that of the module in a program that was started.
func (s *starter) folder(p *Program, version string) *Folder {
	s.t.Helper()
	return folder(s.t, s.dir, func(c *Config) {
		c.Version = version
		if p != nil {
			c.Launched = p.Image
		}
	})
}

// reported are the reports that wait, which the module records.
func (s *starter) reported(f *Folder) (actions []string) {
	s.t.Helper()
	reports := f.Reports()
	for _, r := range reports {
		actions = append(actions, r.Action+map[bool]string{true: " ok", false: " failed"}[r.OK])
	}
	if err := f.Reported(reports); err != nil {
		s.t.Fatal(err)
	}
	return actions
}

const first, second = "#!/bin/sh\nfirst", "#!/bin/sh\nsecond"

// Firmware that was installed is tried once, kept when it is ready, and taken out
// when it is not; what ran before runs again.
func TestThreat_T124_TrialAndRollBack(t *testing.T) {
	s := newStarter(t)
	s.runsItself()
	install(t, s.folder(nil, "1.0.0"), Firmware, signed(t, []byte(first), key(t, 1)))

	// It proves itself, and runs from then on.
	p := s.runs(first)
	f := s.folder(p, "1.1.0")
	recorded(t)(f.Proven())
	if c, err := f.Proven(); c != nil || err != nil {
		t.Errorf("proven twice: %v", err)
	}
	s.runs(first)
	s.runs(first)

	// The next does not get ready: killed, crashed, hung, all the same.
	install(t, s.folder(p, "1.1.0"), Firmware, signed(t, zipped(t, []byte(second)), key(t, 1)))
	bad := s.runs(second)
	again := s.runs(first)
	if got := s.reported(s.folder(again, "1.1.0")); !slices.Equal(got, []string{"run_fw failed"}) {
		t.Errorf("reports %v", got)
	}
	if c, err := s.folder(bad, "1.2.0").Proven(); c != nil || err != nil {
		t.Errorf("what was taken out proved itself: %v", err)
	}
	s.runs(first)
	if got := names(t, s.dir); len(got) != 3 {
		t.Errorf("the folder has %v", got)
	}
	// It may be tried again, if somebody says so again.
	install(t, s.folder(again, "1.1.0"), Firmware, signed(t, zipped(t, []byte(second)), key(t, 1)))
	recorded(t)(s.folder(s.runs(second), "1.2.0").Proven())
	s.runs(second)
}

// The very first upgrade that fails leaves the program that is installed.
func TestRollBackToTheInstalledProgram(t *testing.T) {
	s := newStarter(t)
	install(t, s.folder(nil, "1.0.0"), Firmware, signed(t, []byte(first), key(t, 1)))
	s.runs(first)
	s.runsItself()
	s.runsItself()
	if got := s.reported(s.folder(nil, "1.0.0")); !slices.Equal(got, []string{"run_fw failed"}) {
		t.Errorf("reports %v", got)
	}
}

// What lies in the folder is verified whenever it is run, by the keys of that day.
func TestThreat_T125_FirmwareIsVerifiedAtEachStart(t *testing.T) {
	s := newStarter(t)
	install(t, s.folder(nil, "1.0.0"), Firmware, signed(t, []byte(first), key(t, 1)))
	path := func(id string) string { return filepath.Join(s.dir, imageName(Firmware, id)) }
	p := s.runs(first)
	recorded(t)(s.folder(p, "1.1.0").Proven())
	good, err := os.ReadFile(path(p.Image))
	if err != nil {
		t.Fatal(err)
	}
	for name, image := range map[string][]byte{
		"another byte": append([]byte("!"), good[1:]...), "cut off": good[:len(good)-1], "empty": nil,
		"a stranger's": signed(t, []byte("#!/bin/sh\nevil"), key(t, 2)), "too large": append(make([]byte, MaxImage), good...),
	} {
		if err := os.WriteFile(path(p.Image), image, 0o600); err != nil {
			t.Fatal(err)
		}
		// Nor is what was unpacked last time run instead.
		if got := s.start(nil); got != nil {
			t.Errorf("%s: it is run", name)
		}
	}
	if err := os.WriteFile(path(p.Image), good, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, keys := range map[string][][]byte{"another key": {key(t, 2).Public()}, "no key": nil} {
		if got := s.start(func(c *Config) { c.Keys = keys }); got != nil {
			t.Errorf("with %s it is run", name)
		}
	}
	s.runs(first)

	// A trial that cannot even begin is over.
	image := signed(t, []byte(second), key(t, 1))
	install(t, s.folder(p, "1.1.0"), Firmware, image)
	if err := os.WriteFile(path(idOf(sum(image))), signed(t, []byte(second), key(t, 2)), 0o600); err != nil {
		t.Fatal(err)
	}
	again := s.runs(first)
	if got := s.reported(s.folder(again, "1.1.0")); !slices.Equal(got, []string{"run_fw failed"}) {
		t.Errorf("reports %v", got)
	}
}

// An image that is older than what it would replace takes itself out.
func TestThreat_T126_NoWayBack(t *testing.T) {
	step := func(s *starter, p *Program, version, launcher string) bool {
		t.Helper()
		back, err := StepBack(Config{Dir: s.dir, Version: version, Launched: p.Image, Logger: slog.New(slog.DiscardHandler)}, launcher)
		if err != nil {
			t.Fatal(err)
		}
		return back
	}
	for _, x := range []struct {
		version, from, launcher string
		back                    bool
	}{
		{"1.1.0", "1.0.0", "1.0.0", false}, {"1.0.0", "1.0.0", "1.0.0", false}, {"1.10.0", "1.9.0", "1.9.0", false}, {"2.0.0", "1.9.9", "1.0.0", false},
		{"1.0.0", "1.1.0", "1.0.0", true}, {"1.0.0", "1.0.0", "1.1.0", true}, {"1.0.0-rc1", "1.0.0", "1.0.0", true}, {"", "1.0.0", "1.0.0", true}, {"x", "1.0.0", "1.0.0", true},
	} {
		s := newStarter(t)
		install(t, s.folder(nil, x.from), Firmware, signed(t, []byte(first), key(t, 1)))
		p := s.runs(first)
		if got := step(s, p, x.version, x.launcher); got != x.back {
			t.Errorf("%q in place of %q, started by %q: %v", x.version, x.from, x.launcher, got)
		} else if got {
			s.runsItself()
			if got := s.reported(s.folder(nil, x.from)); !slices.Equal(got, []string{"run_fw failed"}) {
				t.Errorf("reports %v", got)
			}
		} else {
			recorded(t)(s.folder(p, x.version).Proven())
		}
	}
	// The operator has installed a newer program: the upgrade of before is out.
	s := newStarter(t)
	install(t, s.folder(nil, "1.0.0"), Firmware, signed(t, []byte(first), key(t, 1)))
	p := s.runs(first)
	recorded(t)(s.folder(p, "1.1.0").Proven())
	if step(s, s.runs(first), "1.1.0", "1.1.0") || !step(s, s.runs(first), "1.1.0", "1.2.0") {
		t.Error("the newer program is not the one that runs")
	}
	s.runsItself()
}
