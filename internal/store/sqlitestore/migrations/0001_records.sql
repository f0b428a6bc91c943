-- Sealed values by kind and id. The store cannot read them.
CREATE TABLE record (
	kind   TEXT NOT NULL,
	id     TEXT NOT NULL,
	sealed BLOB NOT NULL,
	PRIMARY KEY (kind, id)
) STRICT, WITHOUT ROWID;

-- The stretch of the audit log that belongs to the latest change: one row.
CREATE TABLE log_tail (
	only   INTEGER PRIMARY KEY CHECK (only = 1),
	file   TEXT    NOT NULL,
	offset INTEGER NOT NULL, -- bytes
	lines  BLOB    NOT NULL
) STRICT;
