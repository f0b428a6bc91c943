package server

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"softhem/internal/build"
	"softhem/internal/upgrade"
)

// Program tells what has to run in the place of this process: firmware that was
// installed through the API, or nothing. It is asked before Start, and not by a
// process that was started from firmware itself; that asks [StepBack].
func Program(cfg Config) (p *upgrade.Program, err error) {
	err = withImages(cfg, func(images upgrade.Config) (err error) {
		p, err = upgrade.Launch(images)
		return err
	})
	return p, err
}

// StepBack tells a process that was started from firmware, by a program of the
// version launcher, whether that has to run instead.
func StepBack(cfg Config, launcher string) (back bool, err error) {
	err = withImages(cfg, func(images upgrade.Config) (err error) {
		back, err = upgrade.StepBack(images, launcher)
		return err
	})
	return back, err
}

// withImages does what no other process on the data folder may do at the same time.
// Where nothing was ever uploaded it does nothing.
func withImages(cfg Config, do func(upgrade.Config) error) error {
	if err := cfg.validate(); err != nil || cfg.Memory {
		return err
	}
	dir := filepath.Join(cfg.DataDir, dirUpgrade)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := privateDir(cfg.DataDir); err != nil { // others could have put it there
		return err
	}
	lock, err := lockDir(cfg.DataDir)
	if err != nil {
		return err
	}
	defer lock.Close()
	return do(imagesConfig(cfg, dir))
}

func imagesConfig(cfg Config, dir string) upgrade.Config {
	return upgrade.Config{Dir: dir, Keys: cfg.UpgradeKeys, Version: build.Version(), Launched: cfg.Launched, Logger: cfg.Logger}
}

// Ready is called when the server is up and about to say so. If this process was
// started from firmware on trial, it is what runs from now on.
func (s *Server) Ready(ctx context.Context) error { return s.Module().FirmwareProven(ctx) }
