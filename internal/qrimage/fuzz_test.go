package qrimage

import (
	"bytes"
	"errors"
	"image"
	"testing"
)

// Files of any kind: each is a text, or refused for one of the reasons there are.
func FuzzPicture(f *testing.F) {
	f.Add(asPNG(f, draw(f, "offer", 1, 0)))
	f.Add(asJPEG(f, draw(f, "offer", 2, 0)))
	f.Add([]byte("\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"))
	f.Fuzz(func(t *testing.T, file []byte) {
		text, err := Read(t.Context(), bytes.NewReader(file))
		if err != nil && (text != "" || !errors.Is(err, ErrNoPicture) && !errors.Is(err, ErrTooLarge) && !errors.Is(err, ErrNoCode)) {
			t.Errorf("%q, %v", text, err)
		}
	})
}

// Pixels of any kind, which no checksum of a file keeps from the search.
func FuzzPixels(f *testing.F) {
	code := draw(f, "offer", 1, 0)
	f.Add(uint8(code.Stride), code.Pix)
	code = draw(f, "a longer offer, of another version, with an alignment pattern", 1, 0)
	f.Add(uint8(code.Stride), code.Pix)
	f.Fuzz(func(t *testing.T, width uint8, pixels []byte) {
		if width == 0 || len(pixels) > 1<<12 {
			return
		}
		img := image.NewGray(image.Rect(0, 0, int(width), len(pixels)/int(width)))
		copy(img.Pix, pixels)
		if text, err := find(img); err != nil && (text != "" || !errors.Is(err, ErrNoCode)) {
			t.Errorf("%q, %v", text, err)
		}
	})
}
