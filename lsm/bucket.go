package lsm

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
)

// A row of a table with n shards goes to shard bucket(v), v being the value of the first column of the key, by Lance's
// bucket transform: (murmur3(v) & (2^31-1)) % n. Of several columns the first alone decides, as a field of a sharding spec
// has one source column; all rows of a key are in one shard either way.
//
// The hash is that of Lance, which is that of Spark: seed 0, integers of up to 32 bits, booleans and dates as one 32-bit
// word, 64-bit integers and timestamps as two, the low one first; texts as words, little-endian, and then each of the
// last bytes, sign-extended, as a word of its own. Lance has no hash of binaries and decimals; here binaries are hashed as
// texts, and decimals as Spark does: of up to 18 digits as their unscaled 64-bit integers, others as the least bytes,
// big-endian, that hold it. A program that evaluates the spec itself is refused by Lance for those, and so is not misled.

// bucketOf returns the bucket of a hash.
func bucketOf(hash int32, shards int) int { return int(hash&0x7fffffff) % shards }

// hashWord is the hash of a 32-bit integer.
func hashWord(v int32) int32 { return int32(finishHash(mixHash(0, uint32(v)), 4)) }

// hashLong is the hash of a 64-bit integer.
func hashLong(v int64) int32 {
	return int32(finishHash(mixHash(mixHash(0, uint32(v)), uint32(uint64(v)>>32)), 8))
}

// hashBytes is the hash of bytes.
func hashBytes(b []byte) int32 {
	h, n := uint32(0), len(b)
	for ; len(b) >= 4; b = b[4:] {
		h = mixHash(h, binary.LittleEndian.Uint32(b))
	}
	for _, c := range b {
		h = mixHash(h, uint32(int32(int8(c))))
	}
	return int32(finishHash(h, uint32(n)))
}

// mixHash takes a word in.
func mixHash(h, word uint32) uint32 {
	h ^= bits.RotateLeft32(word*0xcc9e2d51, 15) * 0x1b873593
	return bits.RotateLeft32(h, 13)*5 + 0xe6546b64
}

// finishHash returns the hash after the last word of so many bytes.
func finishHash(h, n uint32) uint32 {
	h ^= n
	h = (h ^ h>>16) * 0x85ebca6b
	h = (h ^ h>>13) * 0xc2b2ae35
	return h ^ h>>16
}

// hashInt is the hash of a value of the key's first column that is normalised to an integer.
func (k *keyCodec) hashInt(v int64) int32 {
	switch k.fields[0].Type.ID() {
	case arrow.INT64, arrow.TIMESTAMP, arrow.DATE64:
		return hashLong(v)
	case arrow.UINT64:
		return hashLong(int64(uint64(v) ^ 1<<63))
	}
	return hashWord(int32(v))
}

// hashWide is the hash of a value of the key's first column that is normalised to bytes.
func (k *keyCodec) hashWide(v []byte) int32 {
	t, ok := k.fields[0].Type.(*arrow.Decimal128Type)
	if !ok {
		return hashBytes(v)
	}
	if t.Precision <= 18 {
		return hashLong(int64(binary.BigEndian.Uint64(v[8:])))
	}
	var plain [16]byte
	copy(plain[:], v)
	plain[0] ^= 1 << 7
	b := plain[:]
	for len(b) > 1 && (b[0] == 0 && b[1] < 1<<7 || b[0] == 0xFF && b[1] >= 1<<7) {
		b = b[1:]
	}
	return hashBytes(b)
}

// hashKey is the hash of the i-th key of a column.
func (k *keyCodec) hashKey(keys keyColumn, i int) int32 {
	switch {
	case keys.wide == nil:
		return k.hashInt(keys.ints[i])
	case len(k.cols) == 1:
		return k.hashWide(keys.wide(i))
	}
	return k.hashFirst(keys.wide(i))
}

// hashFirst is the hash of a tuple's first value, see appendTuple.
func (k *keyCodec) hashFirst(tuple []byte) int32 {
	if t := k.fields[0].Type; isIntKey(t) {
		v, _ := cutTupleInt(t, tuple[1:])
		return k.hashInt(v)
	}
	v, _ := cutTupleBytes(tuple[1:])
	return k.hashWide(v)
}

// shardsOf returns for each row of a batch its shard, of so many.
func (k *keyCodec) shardsOf(rec arrow.RecordBatch, shards int) []uint16 {
	out := make([]uint16, rec.NumRows())
	first := *k // the first column alone decides
	first.cols, first.fields = k.cols[:1], k.fields[:1]
	first.wide = isWideKey(k.fields[0].Type)
	keys := first.normaliseArray(rec.Column(first.cols[0]), nil)
	for i := range out {
		out[i] = uint16(bucketOf(first.hashKey(keys, i), shards))
	}
	return out
}

// byShard returns the keys of a run by the shards that have them.
func (t *Table) byShard(run *keyRun) []*keyRun {
	n := len(t.shards)
	if n == 1 {
		return []*keyRun{run}
	}
	parts := make([]*keyRun, n)
	for i := range parts {
		parts[i] = &keyRun{codec: run.codec}
	}
	keys := run.column()
	for i := range run.Len() {
		p := parts[bucketOf(run.codec.hashKey(keys, i), n)]
		if run.codec.wide {
			p.wide = append(p.wide, run.wide[i])
		} else {
			p.ints = append(p.ints, run.ints[i])
		}
	}
	return parts
}

// distribute cuts a put into parts by the shards of its rows. If all are of one shard it has no parts and is that
// shard's. Parts have memory of their own, so that each memtable holds no more than its rows.
func (p *put) distribute(t *Table) error {
	p.shard = t.shards[0]
	if len(t.shards) == 1 || p.rec.NumRows() == 0 {
		return nil
	}
	shards := p.schema.codec.shardsOf(p.rec, len(t.shards))
	rows := make([][]int32, len(t.shards))
	for i, s := range shards {
		rows[s] = append(rows[s], int32(i))
	}
	if n := len(rows[shards[0]]); n == len(shards) {
		p.shard = t.shards[shards[0]]
		return nil
	}
	for i, list := range rows {
		if len(list) == 0 {
			continue
		}
		part, err := p.part(t.shards[i], list)
		if err != nil {
			p.dropParts()
			return err
		}
		p.charge(t.db.budget, part.bytes)
		p.parts = append(p.parts, part)
	}
	return nil
}

// splitBytes bounds what the parts of a batch take in memory, each with buffers of its own: they are there beside the batch
// until it is logged, so who admits the batch takes the memory of both.
func (t *Table) splitBytes(b Batch) int64 {
	n := int64(len(t.shards))
	if n == 1 {
		return 0
	}
	n = min(n, b.Record.NumRows())
	return recordBytes(b.Record) + n*(batchOverhead+b.Record.NumCols()*(columnOverhead+partPadding))
}

// partPadding bounds what a column takes in a part beside its share of the batch: the ends of its buffers, and what an
// allocation is rounded up by.
const partPadding = 512

// charge takes the memory of a part from what was taken for the parts when the batch was admitted, and what is missing there
// without waiting.
func (p *put) charge(b *budget, n int64) {
	from := min(n, p.reserved)
	p.reserved -= from
	if n > from {
		b.add(n - from)
	}
}

// spread is distribute for a put that nobody else has yet: after an error its batch is let go.
func (p *put) spread(t *Table) error {
	err := p.distribute(t)
	if p.reserved > 0 {
		t.db.budget.release(p.reserved)
		p.reserved = 0
	}
	if err != nil {
		p.letGo()
		err = fmt.Errorf("table %q: %w", t.name, err)
	}
	return err
}

// part returns a put of some rows.
func (p *put) part(s *shard, rows []int32) (*put, error) {
	cols := make([]arrow.Array, p.rec.NumCols())
	defer func() {
		for _, c := range cols {
			if c != nil {
				c.Release()
			}
		}
	}()
	for i, c := range p.rec.Columns() {
		var err error
		if cols[i], err = takeRows(c, rows); err != nil {
			return nil, err
		}
	}
	x := &put{shard: s, schema: p.schema, rec: array.NewRecordBatch(p.rec.Schema(), cols, int64(len(rows)))}
	if p.tombs != nil {
		tombs, err := takeRows(p.tombs, rows)
		if err != nil {
			x.rec.Release()
			return nil, err
		}
		x.tombs = tombs.(*array.Boolean)
	}
	x.bytes = (&Batch{Record: x.rec}).bytes()
	return x, nil
}

// leaveParts returns the parts and lets go of the whole batch, of which they have copies; it returns the put itself if it
// has none.
func (p *put) leaveParts() []*put {
	parts := p.parts
	if parts == nil {
		return []*put{p}
	}
	p.parts = nil
	p.drop(p.shard.table)
	return parts
}

// held returns the memory of the batch and its parts.
func (p *put) held() int64 {
	n := p.bytes
	for _, x := range p.parts {
		n += x.bytes
	}
	return n
}

// dropParts lets go of the parts.
func (p *put) dropParts() {
	for _, x := range p.parts {
		x.drop(x.shard.table)
	}
	p.parts = nil
}

// validateShards refuses numbers of shards that a table with a key, or without one, cannot have.
func validateShards(n int, key []string) error {
	switch {
	case n < 0 || n > MaxShards:
		return fmt.Errorf("%w number of shards %d: it is 1 to %d", ErrInvalid, n, MaxShards)
	case n > 1 && len(key) == 0:
		return fmt.Errorf("%w number of shards %d: rows are spread by their key, and the table has none; give it a PRIMARY KEY or leave shards out", ErrInvalid, n)
	}
	return nil
}
