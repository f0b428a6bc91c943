package store

import "context"

// A Repairer is a store whose damage can be looked at, and taken out. No module
// runs on it meanwhile.
type Repairer interface {
	Store
	// Faults has the database check itself, and returns what it finds.
	Faults(ctx context.Context) ([]string, error)
	// EachKey calls fn with every row of the key table, in order of creation,
	// until it returns an error.
	EachKey(ctx context.Context, fn func(KeyRow) error) error
	// Orphans are sealed parts that belong to no row.
	Orphans(ctx context.Context) ([]Orphan, error)
	// EachRecord calls fn with every record, until it returns an error.
	EachRecord(ctx context.Context, yield func(kind Kind, id string, sealed []byte) error) error
	// RepairKeys removes the rows of these seqs, whatever their state, together
	// with all sealed parts that belong to no row, and makes everything that
	// follows from the rows anew: indexes, counts, places. It tells whether
	// anything of that was wrong. An error, which may be that the database does
	// not pass its own check after it, has to end the transaction.
	RepairKeys(ctx context.Context, tx Tx, seqs []int64) (wrong bool, err error)
	// DropLogTail removes the log tail.
	DropLogTail(ctx context.Context, tx Tx) error
}

// A KeyRow is a row of the key table as it is found.
type KeyRow struct {
	Key
	// Err is why the row, or a part of it, cannot be read; of Key there is then
	// what could be, Seq at least.
	Err error
}

// An Orphan is a sealed part without a row.
type Orphan struct {
	Slot   int64
	Sealed []byte
}
