// Package qrimage reads QR codes from pictures.
package qrimage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	_ "image/jpeg" // photographs
	_ "image/png"  // screenshots
	"io"

	"github.com/makiuchi-d/gozxing"
	"github.com/makiuchi-d/gozxing/qrcode"
)

// Limits of a picture. It is looked at no further than needed to know its size
// before memory is taken for its pixels.
const (
	MaxBytes  = 16 << 20
	MaxPixels = 20_000_000 // of a photograph: 80 MB while it is read
)

var (
	// ErrNoPicture: it is no PNG or JPEG, or a damaged one.
	ErrNoPicture = errors.New("no PNG or JPEG picture, or a damaged one")
	// ErrTooLarge: the file or the picture is beyond the limits.
	ErrTooLarge = fmt.Errorf("the picture is larger than %d MiB or %d megapixels", MaxBytes>>20, MaxPixels/1_000_000)
	// ErrNoCode: there is no QR code in it that can be read.
	ErrNoCode = errors.New("there is no QR code in the picture that can be read; try one that shows the code larger, straight and whole")
)

// IsPicture tells by its first bytes whether a file is one of those that Read
// reads.
func IsPicture(begin []byte) bool {
	return bytes.HasPrefix(begin, []byte("\x89PNG\r\n\x1a\n")) || bytes.HasPrefix(begin, []byte("\xff\xd8\xff"))
}

// Read reads the text of the QR code in a PNG or JPEG picture; of several, any.
// A picture can be made so that looking for the code takes hours; that goes on
// when ctx ends, and Read does not wait for it.
func Read(ctx context.Context, r io.Reader) (string, error) {
	file, err := io.ReadAll(io.LimitReader(r, MaxBytes+1))
	if err != nil {
		return "", err
	}
	if len(file) > MaxBytes {
		return "", ErrTooLarge
	}
	size, _, err := image.DecodeConfig(bytes.NewReader(file))
	if err != nil || size.Width <= 0 || size.Height <= 0 {
		return "", ErrNoPicture
	}
	if size.Width > MaxPixels/size.Height {
		return "", ErrTooLarge
	}
	img, _, err := image.Decode(bytes.NewReader(file))
	if err != nil {
		return "", ErrNoPicture
	}
	type result struct {
		text string
		err  error
	}
	found := make(chan result, 1)
	go func() {
		text, err := find(img)
		found <- result{text, err}
	}()
	select {
	case f := <-found:
		return f.text, f.err
	case <-ctx.Done():
		return "", fmt.Errorf("%w (%w)", ErrNoCode, ctx.Err())
	}
}

// find looks for a code as a camera would, and then as in a drawing without
// noise, which finds small ones.
func find(img image.Image) (text string, err error) {
	// What a picture holds is anybody's, and geometry is full of divisions and
	// indices: where the library stumbles, there is no code.
	defer func() {
		if recover() != nil {
			text, err = "", ErrNoCode
		}
	}()
	source := gozxing.NewLuminanceSourceFromImage(img)
	for _, binarizer := range []gozxing.Binarizer{gozxing.NewHybridBinarizer(source), gozxing.NewGlobalHistgramBinarizer(source)} {
		pixels, err := gozxing.NewBinaryBitmap(binarizer)
		if err != nil {
			return "", ErrNoCode
		}
		for _, how := range []gozxing.DecodeHintType{gozxing.DecodeHintType_TRY_HARDER, gozxing.DecodeHintType_PURE_BARCODE} {
			found, err := qrcode.NewQRCodeReader().Decode(pixels, map[gozxing.DecodeHintType]any{
				how: true, gozxing.DecodeHintType_CHARACTER_SET: "UTF-8",
			})
			if err == nil {
				return found.GetText(), nil
			}
		}
	}
	return "", ErrNoCode
}
