package wal

import (
	"context"
	"fmt"
	"io"

	"github.com/flightd/flightd/object"
)

// OwnEntry is an entry of the bucket form that flightd wrote.
type OwnEntry struct {
	Position, Epoch uint64
	// Sentinel says that it only shows who owns the stream from here on.
	Sentinel bool
	// Records have the IPC messages of batches as their bodies, without a prefix.
	Records []Record
}

// ReadOwnEntry reads an entry and verifies its checksum. It returns nil for an entry of another writer.
func ReadOwnEntry(ctx context.Context, st object.Store, name string, position uint64) (*OwnEntry, error) {
	b, err := st.Get(ctx, name)
	if err != nil {
		return nil, err
	}
	e, err := decodeEntry(name, b, func([]byte) []byte { return nil })
	if err != nil || !e.own {
		return nil, err
	}
	return &OwnEntry{Position: position, Epoch: e.epoch, Sentinel: e.sentinel, Records: e.records}, nil
}

// Describe prints the entry with its records. body says what a record means that is no batch.
func (e *OwnEntry) Describe(w io.Writer, body func(*Record) string) error {
	if e.Sentinel {
		_, err := fmt.Fprintf(w, "entry %d: sentinel of epoch %d\n", e.Position, e.Epoch)
		return err
	}
	if _, err := fmt.Fprintf(w, "entry %d: epoch %d, %d records\n", e.Position, e.Epoch, len(e.Records)); err != nil {
		return err
	}
	for i := range e.Records {
		describeRecord(w, &e.Records[i], body)
	}
	return nil
}
