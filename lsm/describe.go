package lsm

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/flightd/flightd/lsm/wal"
)

// Describe says what the body of a log record means, for people, a line for each thing in it. It is empty for a batch,
// which the record itself describes.
func Describe(r *wal.Record) string {
	body := slices.Concat(r.Body...)
	var b strings.Builder
	switch r.Kind {
	case wal.DDL:
		fmt.Fprintf(&b, "%s\n", body)
	case wal.StageCommit:
		c, err := decodeStageCommit(body)
		if err != nil {
			return fmt.Sprintf("damage: %v\n", err)
		}
		for _, g := range c.Generations {
			fmt.Fprintf(&b, "generation %s, %d rows\n", g.Path, g.Rows)
		}
	case wal.Idempotency:
		checkpoint, err := decodeKeys(body, r.LSN, func(e keyEntry) { b.WriteString(e.String() + "\n") })
		if err != nil {
			fmt.Fprintf(&b, "damage: %v\n", err)
		}
		if checkpoint {
			return "checkpoint of idempotency keys\n" + b.String()
		}
	}
	return b.String()
}

// String returns the entry as a line.
func (e *keyEntry) String() string {
	state := "so far"
	if e.Complete {
		state = "complete"
	}
	return fmt.Sprintf("key %q of user %q, incarnation %d: %d rows in %d batches, %s, seq %s, schema %016x, %s", e.key, e.user, e.incarnation,
		e.Rows, e.Batches, state, e.Seq, e.schema, time.UnixMilli(e.at).UTC().Format(time.RFC3339Nano))
}
