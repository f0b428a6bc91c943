package upgrade

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/mod/semver"
)

// A Program is what is to run in the place of the process that asked.
type Program struct {
	Path  string
	Image string // id of the firmware it was taken from
}

// Launch decides what a start of the program comes to: the program that was
// installed in the folder, or, with a nil Program, this one. It is called before
// anything of the module is opened, by the one process that runs on the folder.
//
// Firmware that was installed is tried once: that it was started is on disk before
// it is. If the next start finds it started and not proven, whatever the reason,
// it is taken out, and what ran before runs again. Firmware is verified at each
// start; what no key that is trusted today has signed is not run.
func Launch(cfg Config) (*Program, error) {
	s, err := loadState(cfg.Dir)
	if err != nil {
		return nil, err
	}
	if t := s.Trial; t != nil && t.Begun {
		cfg.Logger.Error("the upgrade that was tried did not get ready; what ran before runs again", "image", t.Image)
		if err := dropTrial(cfg.Dir, &s); err != nil {
			return nil, err
		}
	}
	if t := s.Trial; t != nil {
		path, err := unpack(cfg, t.Image)
		if err == nil {
			t.Begun = true
			if err := s.save(cfg.Dir); err != nil {
				return nil, fmt.Errorf("the upgrade cannot be tried: %w", err)
			}
			cfg.Logger.Info("an upgrade is tried", "image", t.Image)
			return &Program{path, t.Image}, nil
		}
		cfg.Logger.Error("the upgrade that was installed cannot be tried", "image", t.Image, "error", err)
		if err := dropTrial(cfg.Dir, &s); err != nil {
			return nil, err
		}
	}
	if s.Firmware == "" {
		return nil, nil
	}
	path, err := unpack(cfg, s.Firmware)
	if err != nil {
		cfg.Logger.Error("the upgrade that was installed cannot be run; this program runs instead", "image", s.Firmware, "error", err)
		return nil, nil
	}
	return &Program{path, s.Firmware}, nil
}

// StepBack tells a program that was started from firmware whether it has to make way
// for the one that started it, of which it is told the version: it is older than
// that, or than what it was meant to replace. Then it has taken itself out. So an
// image that was signed once and has a hole cannot be put back, and a program that
// the operator installed meanwhile wins.
func StepBack(cfg Config, launcher string) (bool, error) {
	s, err := loadState(cfg.Dir)
	if err != nil {
		return false, err
	}
	switch onTrial := s.Trial != nil && s.Trial.Image == cfg.Launched; {
	case onTrial && (older(cfg.Version, launcher) || older(cfg.Version, s.Trial.From)):
		cfg.Logger.Error("the upgrade is older than what it was to replace, and is not run", "version", cfg.Version, "replaces", s.Trial.From, "installed program", launcher)
		return true, dropTrial(cfg.Dir, &s)
	case !onTrial && s.Firmware == cfg.Launched && older(cfg.Version, launcher):
		cfg.Logger.Warn("the program that is installed is newer than the upgrade, which is taken out", "version", cfg.Version, "installed program", launcher)
		s.Firmware = ""
		return true, s.save(cfg.Dir)
	}
	return false, nil
}

// older compares versions as semver does. What is no version is older than any.
func older(version, than string) bool { return semver.Compare("v"+version, "v"+than) < 0 }

// dropTrial takes the firmware out that is being tried, for the log to hear of.
func dropTrial(dir string, s *state) error {
	s.report(Report{"run_fw", s.Trial.Image, false, ""})
	s.Trial = nil
	if err := s.save(dir); err != nil {
		return fmt.Errorf("an upgrade that failed cannot be taken out: %w", err)
	}
	return nil
}

// unpack verifies firmware and puts its program where it can be run.
func unpack(cfg Config, id string) (path string, err error) {
	f, payload, err := open(filepath.Join(cfg.Dir, imageName(Firmware, id)), cfg.Keys)
	if err != nil {
		return "", err
	}
	defer f.Close()
	path = filepath.Join(cfg.Dir, programFile)
	program, err := os.OpenFile(path+newSuffix, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, programMode)
	if err != nil {
		return "", err
	}
	_, err = expand(program, payload)
	if err = errors.Join(err, program.Close()); err != nil {
		return "", errors.Join(err, os.Remove(path+newSuffix))
	}
	// Not synced: the next start unpacks it again.
	return path, os.Rename(path+newSuffix, path)
}
