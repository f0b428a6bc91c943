package upgrade

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
)

// maxProgram is the longest program in bytes: several times what one has today, and
// what a bomb is stopped at.
const maxProgram = 256 << 20

// expand writes the program of a firmware's payload, which is the program itself or
// the program compressed by gzip, and returns its length.
func expand(to io.Writer, payload io.Reader) (int64, error) {
	r := bufio.NewReaderSize(payload, 64<<10)
	var program io.Reader = r
	if magic, _ := r.Peek(2); bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(r)
		if err != nil {
			return 0, fmt.Errorf("%w: %w", ErrImage, err)
		}
		program = z
	}
	inside := bufio.NewReaderSize(program, 64<<10)
	if head, _ := inside.Peek(tarBlock); isTar(head) {
		return 0, fmt.Errorf("%w: it is an archive, and no program", ErrImage)
	}
	n, err := io.Copy(to, io.LimitReader(inside, maxProgram+1))
	switch {
	case errors.Is(err, gzip.ErrHeader), errors.Is(err, gzip.ErrChecksum), errors.Is(err, io.ErrUnexpectedEOF):
		return n, fmt.Errorf("%w: %w", ErrImage, err)
	case err != nil:
		return n, err
	case n > maxProgram:
		return n, fmt.Errorf("%w: its program has more than %d bytes", ErrImage, maxProgram)
	case n == 0:
		return n, fmt.Errorf("%w: it is empty", ErrImage)
	}
	return n, nil
}
