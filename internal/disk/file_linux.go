package disk

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// memoryFile is a file without a name in any folder; it is gone when it is
// closed.
func memoryFile(name string) (*os.File, error) {
	fd, err := unix.MemfdCreate("softhem-"+name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("no place in memory for %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// punch makes a hole, if the file system has such.
func punch(f *os.File, off, n int64) (done bool, err error) {
	for {
		err = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return false, nil
	}
	return err == nil, err
}
