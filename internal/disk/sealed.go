package disk

import (
	"sync"

	"softhem/internal/suite"
)

// sealed is a disk whose image is encrypted sector by sector, each under its
// number:
//
//	image = XTS-AES-256(key, 0, sector 0) ‖ XTS-AES-256(key, 1, sector 1) ‖ …
//
// A sector of zeros in the image, a hole for example, reads as zeros: it was
// never written, or was trimmed. No sector encrypts to that (2^-4096).
//
// Requests may begin and end anywhere. What does not cover a sector is read,
// changed and written as a whole, during which nobody else writes.
type sealed struct {
	*image
	cipher *suite.DiskCipher
	mu     sync.RWMutex // a read sees no sector half written
}

// around is the smallest run of whole sectors that holds a range.
func around(off, n int64) (first, last int64) {
	return off / SectorSize, (off + n + SectorSize - 1) / SectorSize
}

func (s *sealed) ReadAt(p []byte, off int64) (int, error) {
	first, last := around(off, int64(len(p)))
	if whole := last - first; whole*SectorSize == int64(len(p)) {
		s.mu.RLock()
		defer s.mu.RUnlock()
		return len(p), s.load(p, first)
	}
	sectors := make([]byte, (last-first)*SectorSize)
	defer clear(sectors)
	s.mu.RLock()
	defer s.mu.RUnlock()
	if err := s.load(sectors, first); err != nil {
		return 0, err
	}
	return copy(p, sectors[off-first*SectorSize:]), nil
}

// load reads whole sectors and decrypts them.
func (s *sealed) load(sectors []byte, first int64) error {
	if _, err := s.image.ReadAt(sectors, first*SectorSize); err != nil {
		return err
	}
	for ; len(sectors) > 0; first, sectors = first+1, sectors[SectorSize:] {
		if sector := sectors[:SectorSize]; !allZero(sector) {
			s.cipher.Decrypt(sector, uint64(first))
		}
	}
	return nil
}

func allZero(b []byte) bool {
	for _, x := range b {
		if x != 0 {
			return false
		}
	}
	return true
}

// WriteAt encrypts a copy: p is its owner's.
func (s *sealed) WriteAt(p []byte, off int64) (int, error) {
	first, last := around(off, int64(len(p)))
	sectors := make([]byte, (last-first)*SectorSize)
	start := off - first*SectorSize
	s.mu.Lock()
	defer s.mu.Unlock()
	if start != 0 {
		if err := s.load(sectors[:SectorSize], first); err != nil {
			return 0, err
		}
	}
	if end := start + int64(len(p)); end%SectorSize != 0 && (start == 0 || last-first > 1) {
		if err := s.load(sectors[len(sectors)-SectorSize:], last-1); err != nil {
			return 0, err
		}
	}
	copy(sectors[start:], p)
	s.cipher.Encrypt(sectors, uint64(first))
	if _, err := s.file.WriteAt(sectors, first*SectorSize); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Zero makes holes of whole sectors and writes the rest as any data.
func (s *sealed) Zero(off, n int64, keep bool) error {
	if keep {
		return s.writeZeros(off, n)
	}
	from, to := (off+SectorSize-1)/SectorSize*SectorSize, (off+n)/SectorSize*SectorSize
	if from >= to {
		return s.writeZeros(off, n)
	}
	if err := s.writeZeros(off, from-off); err != nil {
		return err
	}
	s.mu.Lock()
	err := s.image.Zero(from, to-from, false)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	return s.writeZeros(to, off+n-to)
}

func (s *sealed) writeZeros(off, n int64) error {
	zeros := make([]byte, min(n, zeroChunk))
	for n > 0 {
		chunk := zeros[:min(n, zeroChunk)]
		if _, err := s.WriteAt(chunk, off); err != nil {
			return err
		}
		off, n = off+int64(len(chunk)), n-int64(len(chunk))
	}
	return nil
}
