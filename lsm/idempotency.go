package lsm

import (
	"container/list"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/flightd/flightd/lsm/wal"
)

// Bounds of idempotency keys.
const (
	defaultIdempotencyWindow = 7 * 24 * time.Hour
	defaultIdempotencyKeys   = 100_000
	// maxKeyText bounds a key and the name of its user.
	maxKeyText = 256
	// checkpointShare is the part of a log segment that the checkpoint of the keys may take: a segment that begins with
	// one must have room for what it is there for.
	checkpointShare = 4
)

// An idempotency record of the log is
//
//	offset  size
//	     0     4  flags: bit 0 is set in a checkpoint
//	     4     4  number of keys
//	     8        the keys, one behind the other:
//	     0     8    incarnation of the table
//	     8     8    time of the last news, in milliseconds since 1970
//	    16     8    seq, 0 for the LSN of this record
//	    24     8    batches
//	    32     8    rows
//	    40     8    fingerprint of the stream's schema
//	    48     4    flags: bit 0 is set when the request is complete
//	    52     2    length of the user's name
//	    54     2    length of the key
//	    56          the user's name, the key
//
// little-endian. A checkpoint has all keys that live and stands first in its segment: what it lacks is forgotten. Any
// other has news of one key, in the group of the records whose effect it speaks of, so that a crash leaves both or none.
const (
	keysPrefixBytes    = 8
	keyHeadBytes       = 56
	keysFlagCheckpoint = 1
	keyFlagComplete    = 1
)

// Answer is what a request under an idempotency key came to so far.
type Answer struct {
	// Batches and Rows were stored under the key, by all streams together.
	Batches, Rows int64
	// Seq is where the last of them stands in the log, 0 when nothing is known of the key.
	Seq LSN
	// Complete is true when nothing more will follow.
	Complete bool
}

// keyScope is where a key means something. The incarnation makes a table that is made again another one.
type keyScope struct {
	incarnation uint64
	user, key   string
}

// keyEntry is one remembered key.
type keyEntry struct {
	keyScope
	Answer
	// schema is the fingerprint of the streams that came under the key.
	schema uint64
	// at is when there were last news, in milliseconds since 1970.
	at int64
}

// encodedBytes returns the size of the entry in a record.
func (e *keyEntry) encodedBytes() int64 { return keyHeadBytes + int64(len(e.user)+len(e.key)) }

// encode appends the entry.
func (e *keyEntry) encode(b []byte) []byte {
	flags := uint32(0)
	if e.Complete {
		flags |= keyFlagComplete
	}
	for _, n := range [...]uint64{e.incarnation, uint64(e.at), uint64(e.Seq), uint64(e.Batches), uint64(e.Rows), e.schema} {
		b = binary.LittleEndian.AppendUint64(b, n)
	}
	b = binary.LittleEndian.AppendUint32(b, flags)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(e.user)))
	b = binary.LittleEndian.AppendUint16(b, uint16(len(e.key)))
	return append(append(b, e.user...), e.key...)
}

// decodeKeyEntry undoes encode and returns what follows.
func decodeKeyEntry(b []byte) (e keyEntry, rest []byte, err error) {
	if len(b) < keyHeadBytes {
		return e, nil, fmt.Errorf("a key needs %d bytes, the record has %d left", keyHeadBytes, len(b))
	}
	n := func(i int) uint64 { return binary.LittleEndian.Uint64(b[8*i:]) }
	e.incarnation, e.at, e.Seq, e.Batches, e.Rows, e.schema = n(0), int64(n(1)), LSN(n(2)), int64(n(3)), int64(n(4)), n(5)
	e.Complete = binary.LittleEndian.Uint32(b[48:])&keyFlagComplete != 0
	user, key := int(binary.LittleEndian.Uint16(b[52:])), int(binary.LittleEndian.Uint16(b[54:]))
	if b = b[keyHeadBytes:]; user+key > len(b) {
		return e, nil, fmt.Errorf("a key's texts have %d bytes, the record has %d left", user+key, len(b))
	}
	e.user, e.key = string(b[:user]), string(b[user:user+key])
	return e, b[user+key:], nil
}

// encodeKeys returns the body of an idempotency record.
func encodeKeys(checkpoint bool, entries ...*keyEntry) []byte {
	size, flags := int64(keysPrefixBytes), uint32(0)
	for _, e := range entries {
		size += e.encodedBytes()
	}
	if checkpoint {
		flags |= keysFlagCheckpoint
	}
	b := binary.LittleEndian.AppendUint32(make([]byte, 0, size), flags)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(entries)))
	for _, e := range entries {
		b = e.encode(b)
	}
	return b
}

// decodeKeys calls each with the keys of an idempotency record that stands at an LSN.
func decodeKeys(body []byte, lsn LSN, each func(keyEntry)) (checkpoint bool, err error) {
	if len(body) < keysPrefixBytes {
		return false, errors.New("it is too short for idempotency keys")
	}
	checkpoint = binary.LittleEndian.Uint32(body)&keysFlagCheckpoint != 0
	count := binary.LittleEndian.Uint32(body[4:])
	body = body[keysPrefixBytes:]
	for range count {
		var e keyEntry
		if e, body, err = decodeKeyEntry(body); err != nil {
			return checkpoint, err
		}
		if e.Seq == 0 {
			e.Seq = lsn
		}
		each(e)
	}
	if len(body) > 0 {
		return checkpoint, fmt.Errorf("%d bytes follow the last of %d keys", len(body), count)
	}
	return checkpoint, nil
}

// fingerprint identifies the columns of a stream: names, types and nullability, in order.
func fingerprint(s *arrow.Schema) uint64 {
	h := sha256.New()
	for _, f := range s.Fields() {
		fmt.Fprintf(h, "%q %s %t\n", f.Name, f.Type, f.Nullable)
	}
	return max(1, binary.LittleEndian.Uint64(h.Sum(nil)))
}

// ledger remembers idempotency keys, each for a time after its last news, and of too many the youngest. The log has
// them: replay and who writes the log write it, in the order of the log; whoever claims a key reads it.
type ledger struct {
	window   time.Duration
	maxKeys  int
	maxBytes int64
	now      func() time.Time

	mu sync.Mutex
	// keys finds the elements of order, which are *keyEntry, oldest news first. bytes is their size in a record.
	keys  map[keyScope]*list.Element
	order *list.List
	bytes int64
	// claims are the streams that are at work under a key.
	claims map[claimName]*Claim
}

// newLedger returns an empty ledger.
func newLedger(o *Options) *ledger {
	return &ledger{window: o.IdempotencyWindow, maxKeys: o.IdempotencyKeys, maxBytes: o.SegmentBytes / checkpointShare, now: time.Now,
		keys: make(map[keyScope]*list.Element), order: list.New(), claims: make(map[claimName]*Claim)}
}

// put takes note of news.
func (l *ledger) put(e keyEntry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if x := l.keys[e.keyScope]; x != nil {
		*x.Value.(*keyEntry) = e // the size depends on the scope alone
		l.order.MoveToBack(x)
		return
	}
	l.keys[e.keyScope] = l.order.PushBack(&e)
	l.bytes += e.encodedBytes()
	for len(l.keys) > l.maxKeys || l.bytes > l.maxBytes {
		l.forgetLocked(l.order.Front())
	}
}

func (l *ledger) forgetLocked(x *list.Element) {
	e := x.Value.(*keyEntry)
	l.order.Remove(x)
	delete(l.keys, e.keyScope)
	l.bytes -= e.encodedBytes()
}

// expireLocked forgets what is too old.
func (l *ledger) expireLocked() {
	oldest := l.now().Add(-l.window).UnixMilli()
	for x := l.order.Front(); x != nil && x.Value.(*keyEntry).at < oldest; x = l.order.Front() {
		l.forgetLocked(x)
	}
}

// find returns what is known of a key.
func (l *ledger) find(s keyScope) (keyEntry, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expireLocked()
	x := l.keys[s]
	if x == nil {
		return keyEntry{}, false
	}
	return *x.Value.(*keyEntry), true
}

// reset forgets all keys.
func (l *ledger) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.keys)
	l.order.Init()
	l.bytes = 0
}

// keep forgets the keys of tables that are no more.
func (l *ledger) keep(exists func(incarnation uint64) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for x := l.order.Front(); x != nil; {
		next := x.Next()
		if !exists(x.Value.(*keyEntry).incarnation) {
			l.forgetLocked(x)
		}
		x = next
	}
}

// count returns how many keys live.
func (l *ledger) count() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expireLocked()
	return int64(len(l.keys))
}

// checkpoint returns the record that a segment of the log begins with, nil when no key lives. The log goroutine calls
// it, as it does put, so it has exactly the news that were logged before. (100,000 keys of 36 bytes make 9 MB.)
func (l *ledger) checkpoint() *wal.Record {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expireLocked()
	if len(l.keys) == 0 {
		return nil
	}
	entries := make([]*keyEntry, 0, len(l.keys))
	for x := l.order.Front(); x != nil; x = x.Next() {
		entries = append(entries, x.Value.(*keyEntry))
	}
	return &wal.Record{Kind: wal.Idempotency, Body: [][]byte{encodeKeys(true, entries...)}}
}

// replay applies an idempotency record of the log.
func (l *ledger) replay(body []byte, lsn LSN) error {
	var entries []keyEntry
	checkpoint, err := decodeKeys(body, lsn, func(e keyEntry) { entries = append(entries, e) })
	if err != nil {
		return err
	}
	if checkpoint {
		l.reset()
	}
	for _, e := range entries {
		l.put(e)
	}
	return nil
}
