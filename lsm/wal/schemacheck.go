package wal

import (
	"errors"

	flatbuffers "github.com/google/flatbuffers/go"
)

// Slots of the tables of an IPC message that say how many fields and entries of metadata there are.
const (
	slotHeaderType, slotHeader        = 6, 8
	slotSchemaFields, slotSchemaPairs = 6, 8
	slotFieldChildren, slotFieldPairs = 14, 16
	headerSchema                      = 1
	schemaDepth                       = 64
)

var errSchema = errors.New("its schema has more fields or metadata than bytes for them")

// checkSchema refuses a message whose schema claims more than the message can hold: a reader of Arrow makes room for as many
// fields as a schema says, before it looks for them. It panics where an offset points outside, as a reader would.
func checkSchema(meta []byte) error {
	message := flatbuffers.Table{Bytes: meta, Pos: flatbuffers.GetUOffsetT(meta)}
	if message.GetByteSlot(slotHeaderType, 0) != headerSchema {
		return nil
	}
	at := flatbuffers.UOffsetT(message.Offset(slotHeader))
	if at == 0 {
		return nil
	}
	var schema flatbuffers.Table
	message.Union(&schema, at)
	c := schemaCheck{left: len(meta)}
	return c.table(&schema, slotSchemaFields, slotSchemaPairs, 0)
}

// schemaCheck walks over the fields of a schema. Several may be at one place, so that what is left for them is counted.
type schemaCheck struct{ left int }

// table checks the fields and the metadata of a schema, or of a field.
func (c *schemaCheck) table(t *flatbuffers.Table, fields, pairs flatbuffers.VOffsetT, depth int) error {
	if depth > schemaDepth {
		return errSchema
	}
	if _, err := c.vector(t, pairs); err != nil {
		return err
	}
	n, err := c.vector(t, fields)
	if err != nil {
		return err
	}
	for i := range n {
		start := t.Vector(flatbuffers.UOffsetT(t.Offset(fields)))
		field := flatbuffers.Table{Bytes: t.Bytes, Pos: t.Indirect(start + flatbuffers.UOffsetT(4*i))}
		if err := c.table(&field, slotFieldChildren, slotFieldPairs, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// vector returns the length of a vector of tables.
func (c *schemaCheck) vector(t *flatbuffers.Table, slot flatbuffers.VOffsetT) (int, error) {
	at := flatbuffers.UOffsetT(t.Offset(slot))
	if at == 0 {
		return 0, nil
	}
	n := t.VectorLen(at)
	if c.left -= n; n < 0 || c.left < 0 {
		return 0, errSchema
	}
	return n, nil
}
