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

-- Searches for something within: every descr, 64 keys to a row, because what
-- such a search costs is the rows it steps through. For each key with a descr:
-- seq & 63 and the length of descr, a byte each, then descr; in any order.
CREATE TABLE key_packed (
	block  INTEGER PRIMARY KEY, -- seq >> 6
	packed BLOB NOT NULL
) STRICT;

-- How many keys there are in each 64, 4096 and 262144 of seq, without rows for
-- none: the way to the nth key.
CREATE TABLE key_count (
	level INTEGER NOT NULL, -- 0, 1, 2
	block INTEGER NOT NULL, -- seq >> 6, >> 12, >> 18
	live  INTEGER NOT NULL CHECK (live >= 0),
	PRIMARY KEY (level, block)
) STRICT, WITHOUT ROWID;

CREATE TABLE key_total (
	only    INTEGER PRIMARY KEY CHECK (only = 1),
	live    INTEGER NOT NULL,
	deleted INTEGER NOT NULL,
	last    INTEGER NOT NULL -- the latest seq given, never to be given again
) STRICT;
INSERT INTO key_total VALUES (1, 0, 0, 0);

-- The sealed parts. Where SQLite moves rows between pages it leaves copies of
-- them behind, so here it is never given a reason to: all rows have one
-- length; they are only appended, or overwritten in place; none is deleted. A
-- slot without a key holds zeros and is in free_slot.
--
-- Only the first split of a table moves rows: when it outgrows its one page.
-- So it is made to outgrow it here, before there is a secret in it.
CREATE TABLE sealed_key (
	slot   INTEGER PRIMARY KEY,
	sealed BLOB NOT NULL CHECK (length(sealed) = 128)
) STRICT;
CREATE TABLE free_slot (slot INTEGER PRIMARY KEY) STRICT;
WITH RECURSIVE slots (slot) AS (VALUES (1) UNION ALL SELECT slot + 1 FROM slots WHERE slot < 256)
INSERT INTO sealed_key SELECT slot, zeroblob(128) FROM slots;
INSERT INTO free_slot SELECT slot FROM sealed_key;

-- What follows from a key being there, so that no statement can forget it.
CREATE TRIGGER key_inserted AFTER INSERT ON key BEGIN
	DELETE FROM free_slot WHERE slot = new.slot;
	UPDATE key_total SET live = live + 1, last = new.seq;
	INSERT INTO key_count (level, block, live)
		VALUES (0, new.seq >> 6, 1), (1, new.seq >> 12, 1), (2, new.seq >> 18, 1)
		ON CONFLICT (level, block) DO UPDATE SET live = live + 1;
END;
CREATE TRIGGER key_deleted AFTER DELETE ON key BEGIN
	UPDATE sealed_key SET sealed = zeroblob(128) WHERE slot = old.slot;
	INSERT INTO free_slot VALUES (old.slot);
	UPDATE key_total SET live = live - 1, deleted = deleted + 1;
	UPDATE key_count SET live = live - 1 WHERE level = 0 AND block = old.seq >> 6;
	UPDATE key_count SET live = live - 1 WHERE level = 1 AND block = old.seq >> 12;
	UPDATE key_count SET live = live - 1 WHERE level = 2 AND block = old.seq >> 18;
	DELETE FROM key_count WHERE level = 0 AND block = old.seq >> 6 AND live = 0;
	DELETE FROM key_count WHERE level = 1 AND block = old.seq >> 12 AND live = 0;
	DELETE FROM key_count WHERE level = 2 AND block = old.seq >> 18 AND live = 0;
END;
