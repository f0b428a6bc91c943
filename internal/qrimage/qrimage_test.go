package qrimage

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"rsc.io/qr"
)

// offer has the length of what hem pair shows.
var offer = `{"link":"https://broker.example/notify/register/challenge/` + strings.Repeat("q", 43) + `","hash":"` + strings.Repeat("h", 43) +
	`=","user":"Jürgen","email":"j@example.org","hostname":"vault","k":"` + strings.Repeat("k", 22) + `=="}`

// draw draws a code with a scale in pixels, its quiet zone, turned around its middle.
func draw(t testing.TB, text string, scale float64, degrees float64) *image.Gray {
	t.Helper()
	code, err := qr.Encode(text, qr.L)
	if err != nil {
		t.Fatal(err)
	}
	const quiet = 4
	sin, cos := math.Sincos(degrees * math.Pi / 180)
	side := float64(code.Size+2*quiet) * scale
	size := int(math.Ceil(side * (math.Abs(sin) + math.Abs(cos))))
	img := image.NewGray(image.Rect(0, 0, size, size))
	for y := range size {
		for x := range size {
			dx, dy := float64(x)+.5-float64(size)/2, float64(y)+.5-float64(size)/2
			u, v := (cos*dx+sin*dy+side/2)/scale-quiet, (cos*dy-sin*dx+side/2)/scale-quiet
			shade := uint8(255)
			if u >= 0 && v >= 0 && u < float64(code.Size) && v < float64(code.Size) && code.Black(int(u), int(v)) {
				shade = 0
			}
			img.SetGray(x, y, color.Gray{shade})
		}
	}
	return img
}

// taken makes a drawing look like a photograph: dim to one side, and noisy.
func taken(img *image.Gray) *image.Gray {
	noise := rand.New(rand.NewPCG(1, 2))
	out := image.NewGray(img.Rect)
	for i, c := range img.Pix {
		light := 90 + 120*float64(i%img.Stride)/float64(img.Stride)
		out.Pix[i] = uint8(min(max(float64(c)*light/255+30+noise.NormFloat64()*12, 0), 255))
	}
	return out
}

func asPNG(t testing.TB, img image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func asJPEG(t testing.TB, img image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := jpeg.Encode(&b, img, &jpeg.Options{Quality: 70}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestRead(t *testing.T) {
	library, err := qr.Encode(offer, qr.M)
	if err != nil {
		t.Fatal(err)
	}
	for name, file := range map[string][]byte{
		"the encoder's own PNG": library.PNG(), "one pixel a module": asPNG(t, draw(t, offer, 1, 0)), "two": asPNG(t, draw(t, offer, 2, 0)),
		"large": asPNG(t, draw(t, offer, 11, 0)), "upside down": asPNG(t, draw(t, offer, 3, 180)), "a quarter": asPNG(t, draw(t, offer, 3, 90)),
		"askew": asPNG(t, draw(t, offer, 5, 12)), "photographed": asJPEG(t, taken(draw(t, offer, 8, -7))),
		"JPEG": asJPEG(t, draw(t, offer, 4, 0)),
	} {
		if !IsPicture(file) {
			t.Errorf("%s: no picture", name)
		}
		got, err := Read(t.Context(), bytes.NewReader(file))
		if err != nil || got != offer {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

// What is no code, or too large, is refused with its reason, and before memory is
// taken for it.
func TestReadRefuses(t *testing.T) {
	good := asPNG(t, draw(t, offer, 2, 0))
	huge := bytes.Clone(good)
	copy(huge[16:], []byte{0, 1, 0, 0, 0, 1, 0, 0}) // width and height 65536, of which there is nothing
	fixed := pngCRC(huge)
	for name, row := range map[string]struct {
		file []byte
		want error
	}{
		"nothing": {nil, ErrNoPicture}, "a text": {[]byte(offer), ErrNoPicture}, "half a picture": {good[:len(good)/2], ErrNoPicture},
		"a picture without a code": {asPNG(t, image.NewGray(image.Rect(0, 0, 200, 200))), ErrNoCode}, "one pixel": {asPNG(t, image.NewGray(image.Rect(0, 0, 1, 1))), ErrNoCode},
		"65536 pixels a side": {fixed, ErrTooLarge}, "a long file": {make([]byte, MaxBytes+1), ErrTooLarge},
	} {
		got, err := Read(t.Context(), bytes.NewReader(row.file))
		if got != "" || !errors.Is(err, row.want) {
			t.Errorf("%s: %q, %v, want %v", name, got, err, row.want)
		}
	}
}

// A picture full of corner marks keeps the search busy, and nobody waiting.
func TestReadEnds(t *testing.T) {
	img := image.NewGray(image.Rect(0, 0, 1800, 1800))
	for i := range img.Pix {
		x, y := i%1800%9-4, i/1800%9-4
		if d := max(x, -x, y, -y); d == 2 || d == 4 {
			img.Pix[i] = 255
		}
	}
	ctx, end := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer end()
	begun := time.Now()
	_, err := Read(ctx, bytes.NewReader(asPNG(t, img)))
	if !errors.Is(err, ErrNoCode) {
		t.Errorf("%v", err)
	}
	t.Logf("after %v: %v", time.Since(begun), err)
}

// pngCRC makes the header's checksum right again.
func pngCRC(file []byte) []byte {
	binary.BigEndian.PutUint32(file[29:], crc32.ChecksumIEEE(file[12:29]))
	return file
}
