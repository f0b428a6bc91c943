-- Keys. What stands in clear is here, the sealed part in sealed_key.
CREATE TABLE key (
	seq         INTEGER PRIMARY KEY, -- order of creation, from key_total
	kid         BLOB    NOT NULL,
	type        TEXT    NOT NULL,
	created     INTEGER NOT NULL,    -- Unix seconds
	updated     INTEGER NOT NULL,
	label       TEXT    NOT NULL,
	descr       BLOB,                -- NULL: none
	fingerprint BLOB,                -- NULL: none
	slot        INTEGER NOT NULL,    -- of sealed_key
	public      BLOB                 -- NULL: none. Last, for it may be 2592 bytes
) STRICT;
CREATE UNIQUE INDEX key_kid ON key (kid);
CREATE UNIQUE INDEX key_fingerprint ON key (fingerprint) WHERE fingerprint IS NOT NULL;
-- Searches for the beginning of descr, and for all of it.
CREATE INDEX key_descr ON key (descr) WHERE descr IS NOT NULL;

-- Searches for the end: descr with its bytes in reverse, of the keys with one.
CREATE TABLE key_suffix (
	reversed BLOB    NOT NULL,
	seq      INTEGER NOT NULL,
	PRIMARY KEY (reversed, seq)
) STRICT, WITHOUT ROWID;

-- Searches for something within: the descr of the keys of 256 consecutive seqs
-- in one row, because what such a search costs is the rows it steps through. A
-- block gets its row when its last seq was given; without a descr in it, none.
-- For each key with a descr: seq & 255 and the length of descr, a byte each,
-- then descr.
CREATE TABLE key_packed (
	block  INTEGER PRIMARY KEY, -- seq >> 8
	packed BLOB NOT NULL
) STRICT;

-- How many seqs have no key (any more) in each 64, 4096, 262144 and 16777216
-- of them, without rows for none: the way to the nth key. A block without any
-- key has no rows for its parts either.
CREATE TABLE key_gap (
	level INTEGER NOT NULL, -- 0, 1, 2, 3
	block INTEGER NOT NULL, -- seq >> 6, >> 12, >> 18, >> 24
	gone  INTEGER NOT NULL,
	PRIMARY KEY (level, block)
) STRICT, WITHOUT ROWID;
INSERT INTO key_gap VALUES (0, 0, 1), (1, 0, 1), (2, 0, 1), (3, 0, 1); -- seq 0 is never given

CREATE TABLE key_total (
	only    INTEGER PRIMARY KEY CHECK (only = 1),
	live    INTEGER NOT NULL CHECK (live >= 0),
	deleted INTEGER NOT NULL,
	last    INTEGER NOT NULL, -- the latest seq given, never to be given again
	slots   INTEGER NOT NULL CHECK (slots >= live) -- rows of sealed_key
) STRICT;
INSERT INTO key_total VALUES (1, 0, 0, 0, 256);

-- The sealed parts. Where SQLite moves rows between pages it leaves copies of
-- them behind, so here it is never given a reason to: all rows have one
-- length; they are only appended, or overwritten in place; none is deleted. A
-- slot without a key holds zeros and is in free_slot.
--
-- Only the first split of a table moves rows: when it outgrows its one page.
-- So it is made to outgrow it here, before there is a secret in it.
CREATE TABLE sealed_key (
	slot   INTEGER PRIMARY KEY, -- from 1, without gaps
	sealed BLOB NOT NULL CHECK (length(sealed) = 128)
) STRICT;
CREATE TABLE free_slot (slot INTEGER PRIMARY KEY) STRICT;
WITH RECURSIVE slots (slot) AS (VALUES (1) UNION ALL SELECT slot + 1 FROM slots WHERE slot < 256)
INSERT INTO sealed_key SELECT slot, zeroblob(128) FROM slots;
INSERT INTO free_slot SELECT slot FROM sealed_key;
