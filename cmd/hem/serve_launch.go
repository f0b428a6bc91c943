package main

import (
	"fmt"
	"os"
	"strings"
	"syscall"

	"softhem/internal/build"
	"softhem/internal/server"
)

// firmwareEnv tells a program that it was started from firmware: by its image's id,
// and the version and the path of the program that did so.
const firmwareEnv = "HEM_FIRMWARE"

// launch puts the firmware that was installed in the place of this process. It
// returns if there is none. Of a process that is firmware already, it makes the one
// that started it again, if that is newer.
func (s *service) launch() error {
	if told, ok := s.t.env(firmwareEnv); ok {
		words := strings.SplitN(told, " ", 3)
		if len(words) != 3 {
			return fmt.Errorf("the variable %s is set, and not by hem serve; unset it", firmwareEnv)
		}
		s.o.Launched = words[0]
		if back, err := server.StepBack(s.o.Config, words[1]); err != nil || !back {
			return err
		}
		return become(words[2], environment())
	}
	program, err := server.Program(s.o.Config)
	if err != nil || program == nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("the upgrade cannot be run: %w", err)
	}
	return become(program.Path, append(environment(), fmt.Sprintf("%s=%s %s %s", firmwareEnv, program.Image, build.Version(), self)))
}

// become runs a program in this process, with its arguments, its sockets and its
// place with the service manager. It returns only if that cannot be done.
func become(path string, env []string) error {
	if err := syscall.Exec(path, os.Args, env); err != nil {
		return fmt.Errorf("%s cannot be run: %w", path, err)
	}
	return nil
}

// environment is that of this process without what launch adds.
func environment() (env []string) {
	for _, entry := range os.Environ() {
		if !strings.HasPrefix(entry, firmwareEnv+"=") {
			env = append(env, entry)
		}
	}
	return env
}
