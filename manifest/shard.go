package manifest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"slices"

	"github.com/google/uuid"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/flightd/flightd/internal/lancepb"
	"github.com/flightd/flightd/object"
)

// Shard is one version of a shard's state. It is immutable; Commit makes the next.
type Shard struct {
	// ID names the shard's folder.
	ID uuid.UUID
	// Version counts the versions of the shard from 1.
	Version uint64
	// SpecID is the sharding spec that the shard belongs to, 0 for one that was chosen by hand.
	SpecID uint64
	// Epoch is the fencing token of the shard's writer; each claim raises it. Lance makes shards that nobody has claimed yet,
	// with 0.
	Epoch uint64
	// ReplayAfter is the LSN up to which everything is in a generation.
	ReplayAfter uint64
	// Entry is the position of the last log entry of which everything is in a generation, where the log is one object
	// for each entry; 0 where it is not, and then other programs are told ReplayAfter.
	Entry uint64
	// LastSeen is an LSN, or the position of an entry when Entry is in use, that existed when the version was written. It
	// is a hint.
	LastSeen uint64
	// CurrentGeneration is the number of the next generation to be flushed; the first is 1.
	CurrentGeneration uint64
	// Generations are those flushed and not yet retired, oldest first.
	Generations []Generation
	// Bucket is the bucket of the table's rows that the shard has, nil when it has them all.
	Bucket *int
	// Sealed shards refuse the claims of writers that do not know them to be ours.
	Sealed bool

	// nonce is new in each version.
	nonce uuid.UUID
	raw   *lancepb.ShardManifest
	o     Options
}

// Generation is a flushed memtable.
type Generation struct {
	// Number orders generations; a row in a higher one is newer.
	Number uint64
	// Path is the folder inside that of the shard.
	Path string
	// Rows counts its rows, superseded ones included.
	Rows int64
	// Bytes and KeyBytes are the size in memory of all columns and of those of the key; 0 when unknown.
	Bytes, KeyBytes int64
}

// maxClaims bounds how often a claim looks again after a rival's commit took its version.
const maxClaims = 16

// LoadShard loads the newest version of the shard in dir, or returns an error that is object.ErrNotExist.
func LoadShard(ctx context.Context, st object.Store, dir string, o Options) (*Shard, error) {
	s, err := newestShard(ctx, st, dir, o)
	if err == nil && s == nil {
		err = object.ErrNotExist
	}
	if err != nil {
		return nil, fmt.Errorf("load shard %s: %w", dir, err)
	}
	return s, nil
}

// LoadShardFile loads one version of a shard from its file.
func LoadShardFile(ctx context.Context, st object.Store, name string) (*Shard, error) {
	b, err := st.Get(ctx, name)
	if err != nil {
		return nil, err
	}
	return decodeShard(name, b)
}

// newestShard returns nil when the shard has no versions.
func newestShard(ctx context.Context, st object.Store, dir string, o Options) (*Shard, error) {
	chain := shardChain(st, dir, o)
	n, err := chain.newest(ctx)
	if err != nil || n == 0 {
		return nil, err
	}
	name := chain.path(n)
	b, err := st.Get(ctx, name)
	if err != nil {
		return nil, err
	}
	s, err := decodeShard(name, b)
	if err != nil {
		return nil, err
	}
	if s.Version != n {
		return nil, corrupt(name, 0, "the manifest says that it is version %d, expected %d", s.Version, n)
	}
	s.o = o
	return s, nil
}

// ClaimShard makes the caller the writer of the shard in dir: it publishes a version with the next epoch, which
// fences all writers before. A shard that does not exist is created with the id. A shard is left sealed or active as
// the caller asks; one that is sealed is only given to a caller who asks for a sealed one, else ErrSealed. A caller
// that loses against another claim gets ErrFenced and must not try again by itself, or two processes would take the
// shard from each other for ever.
//
// With Options.Epoch the shard gets that epoch. One that has it is the caller's by an earlier claim, and is returned as it
// is: claiming again raises nothing. One that has a higher one is ErrFenced.
func ClaimShard(ctx context.Context, st object.Store, dir string, id uuid.UUID, sealed bool, o Options) (*Shard, error) {
	var target uint64
	for range maxClaims {
		cur, err := newestShard(ctx, st, dir, o)
		if err != nil {
			return nil, fmt.Errorf("claim shard %s: %w", dir, err)
		}
		if cur == nil {
			cur = &Shard{ID: id, SpecID: 1, CurrentGeneration: 1, Bucket: o.Bucket, o: o}
		}
		switch {
		case cur.ID != id:
			return nil, fmt.Errorf("claim shard %s: the folder belongs to shard %s, not %s", dir, cur.ID, id)
		case cur.Sealed && !sealed:
			return nil, fmt.Errorf("claim shard %s: %w", dir, ErrSealed)
		case o.Epoch > 0 && cur.Epoch == o.Epoch:
			return cur, nil
		case o.Epoch > 0 && cur.Epoch > o.Epoch:
			return nil, fmt.Errorf("claim shard %s: its epoch is %d, ours is %d: %w", dir, cur.Epoch, o.Epoch, ErrFenced)
		case target > 0 && cur.Epoch >= target:
			return nil, fmt.Errorf("claim shard %s: epoch %d is taken: %w", dir, target, ErrFenced)
		}
		target = max(cur.Epoch+1, o.Epoch)
		next, err := cur.publish(ctx, st, dir, func(s *Shard) { s.Epoch, s.Sealed = target, sealed })
		if !errors.Is(err, object.ErrExists) {
			if err != nil {
				return nil, fmt.Errorf("claim shard %s: %w", dir, err)
			}
			return next, nil
		}
	}
	return nil, fmt.Errorf("claim shard %s: %w: its writer commits faster than we can claim; stop it first", dir, ErrFenced)
}

// Commit publishes the version that follows the newest one, with edit applied, as long as the shard is still ours.
// The edit may run several times, each time on a fresh copy. ErrFenced means that somebody has claimed the shard.
func (s *Shard) Commit(ctx context.Context, st object.Store, dir string, edit func(*Shard)) (*Shard, error) {
	cur := s
	for range maxAttempts {
		next, err := cur.publish(ctx, st, dir, func(n *Shard) {
			edit(n)
			n.Epoch = s.Epoch
		})
		if !errors.Is(err, object.ErrExists) {
			if err != nil {
				return nil, fmt.Errorf("commit to shard %s: %w", dir, err)
			}
			return next, nil
		}
		if cur, err = LoadShard(ctx, st, dir, s.o); err != nil {
			return nil, err
		}
		if cur.Epoch != s.Epoch {
			return nil, fmt.Errorf("commit to shard %s: epoch is %d, ours was %d: %w", dir, cur.Epoch, s.Epoch, ErrFenced)
		}
	}
	return nil, fmt.Errorf("commit to shard %s: lost %d races in a row", dir, maxAttempts)
}

// publish stores the version after s, or returns object.ErrExists.
func (s *Shard) publish(ctx context.Context, st object.Store, dir string, edit func(*Shard)) (*Shard, error) {
	next := *s
	next.Generations = slices.Clone(s.Generations)
	edit(&next)
	next.ID, next.Version, next.nonce = s.ID, s.Version+1, uuid.New()
	if err := next.validate(); err != nil {
		return nil, err
	}
	data, err := next.encode()
	if err != nil {
		return nil, err
	}
	chain := shardChain(st, dir, s.o)
	if err := chain.put(ctx, next.Version, data); err != nil {
		if !errors.Is(err, object.ErrExists) || !chain.holds(ctx, next.Version, data) {
			return nil, err
		}
	}
	return &next, nil
}

// validate holds what every version of a shard promises to its readers.
func (s *Shard) validate() error {
	if s.ID == uuid.Nil || s.CurrentGeneration == 0 {
		return fmt.Errorf("shard %s: its id is not nil, and its current generation, %d, begins at 1", s.ID, s.CurrentGeneration)
	}
	last := uint64(0)
	for _, g := range s.Generations {
		if g.Number <= last || g.Number >= s.CurrentGeneration {
			return fmt.Errorf("shard %s: generation %d follows %d, and the next to be flushed is %d", s.ID, g.Number, last, s.CurrentGeneration)
		}
		if !fs.ValidPath(g.Path) || g.Path == "." || g.Rows < 0 || g.Bytes < 0 || g.KeyBytes < 0 {
			return fmt.Errorf("shard %s: generation %d in %q has %d rows", s.ID, g.Number, g.Path, g.Rows)
		}
		last = g.Number
	}
	return nil
}

// Fields of our shard manifests that Lance does not have. Other readers skip them.
const (
	// nonceField is 16 random bytes, new in each version: whoever finds a number taken knows by them whether it was
	// itself who took it, by a call of which the answer was lost.
	nonceField = 2045
	// lsnField is ReplayAfter where Entry is what other programs are told.
	lsnField = 2046
	// checksumField ends the file.
	checksumField = 2047
)

// checksumBytes is the size of that field: two bytes of tag, four of value.
const checksumBytes = 6

// encode returns the bytes of the version.
func (s *Shard) encode() ([]byte, error) {
	p := &lancepb.ShardManifest{}
	if s.raw != nil {
		p = proto.CloneOf(s.raw)
	}
	p.ShardId, p.Version, p.ShardSpecId = uuidProto(s.ID), s.Version, uint32(s.SpecID)
	p.WriterEpoch, p.ReplayAfterWalEntryPosition, p.WalEntryPositionLastSeen = s.Epoch, s.ReplayAfter, s.LastSeen
	own := protowire.AppendTag(foreignFields(p.ProtoReflect().GetUnknown()), nonceField, protowire.BytesType)
	own = protowire.AppendBytes(own, s.nonce[:])
	if s.Entry > 0 {
		p.ReplayAfterWalEntryPosition = s.Entry
		own = protowire.AppendFixed64(protowire.AppendTag(own, lsnField, protowire.Fixed64Type), s.ReplayAfter)
	}
	p.ProtoReflect().SetUnknown(own)
	p.CurrentGeneration = s.CurrentGeneration
	p.Status = lancepb.ShardStatus_ACTIVE
	if s.Sealed {
		p.Status = lancepb.ShardStatus_SEALED
	}
	// Other writers name other fields; those stay as they came.
	p.ShardFieldEntries = slices.DeleteFunc(p.ShardFieldEntries, func(f *lancepb.ShardFieldEntry) bool { return f.GetFieldId() == bucketField })
	if s.Bucket != nil {
		value := binary.LittleEndian.AppendUint32(nil, uint32(*s.Bucket))
		p.ShardFieldEntries = append(p.ShardFieldEntries, &lancepb.ShardFieldEntry{FieldId: bucketField, Value: value})
	}
	p.Sstables = nil
	for _, g := range s.Generations {
		p.Sstables = append(p.Sstables, &lancepb.SsTable{
			Generation: g.Number, Path: g.Path, PhysicalRows: known(g.Rows), InMemoryBytes: known(g.Bytes), PrimaryKeyBytes: known(g.KeyBytes),
		})
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(p)
	if err != nil {
		return nil, err
	}
	sum := crc32.Checksum(b, castagnoli)
	return protowire.AppendFixed32(protowire.AppendTag(b, checksumField, protowire.Fixed32Type), sum), nil
}

// foreignFields returns a copy of unknown fields without those that are ours.
func foreignFields(b []byte) []byte {
	var out []byte
	for len(b) > 0 {
		number, _, n := protowire.ConsumeField(b)
		if n < 0 {
			break // proto.Unmarshal has let it pass, so it does not come to this
		}
		if number != nonceField && number != lsnField {
			out = append(out, b[:n]...)
		}
		b = b[n:]
	}
	return out
}

// lsnOf returns what unknown fields say of the LSN, and whether they do.
func lsnOf(b []byte) (uint64, bool) {
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeField(b)
		if n < 0 {
			return 0, false
		}
		if number == lsnField && kind == protowire.Fixed64Type {
			return binary.LittleEndian.Uint64(b[n-8 : n]), true
		}
		b = b[n:]
	}
	return 0, false
}

// known returns nil for 0: absent means not measured.
func known(n int64) *uint64 {
	if n == 0 {
		return nil
	}
	u := uint64(n)
	return &u
}

// decodeShard parses and checks the bytes of a shard manifest.
func decodeShard(name string, b []byte) (*Shard, error) {
	tag := protowire.AppendTag(nil, checksumField, protowire.Fixed32Type)
	if at := len(b) - checksumBytes; at >= 0 && string(b[at:at+len(tag)]) == string(tag) {
		want := binary.LittleEndian.Uint32(b[at+len(tag):])
		if got := crc32.Checksum(b[:at], castagnoli); got != want {
			return nil, corrupt(name, 0, "checksum is %08x, expected %08x", got, want)
		}
		b = b[:at]
	}
	p := new(lancepb.ShardManifest)
	if err := proto.Unmarshal(b, p); err != nil {
		return nil, corrupt(name, 0, "%w", err)
	}
	id, err := uuid.FromBytes(p.GetShardId().GetUuid())
	if err != nil {
		return nil, corrupt(name, 0, "shard id: %w", err)
	}
	s := &Shard{
		ID: id, Version: p.GetVersion(), SpecID: uint64(p.GetShardSpecId()), Epoch: p.GetWriterEpoch(),
		ReplayAfter: p.GetReplayAfterWalEntryPosition(), LastSeen: p.GetWalEntryPositionLastSeen(),
		CurrentGeneration: p.GetCurrentGeneration(), Sealed: p.GetStatus() == lancepb.ShardStatus_SEALED, raw: p,
	}
	if lsn, ok := lsnOf(p.ProtoReflect().GetUnknown()); ok {
		s.Entry, s.ReplayAfter = s.ReplayAfter, lsn
	}
	for _, f := range p.GetShardFieldEntries() {
		if f.GetFieldId() == bucketField && len(f.GetValue()) == 4 {
			n := int(int32(binary.LittleEndian.Uint32(f.GetValue())))
			s.Bucket = &n
		}
	}
	for _, g := range p.GetSstables() {
		s.Generations = append(s.Generations, Generation{
			Number: g.GetGeneration(), Path: g.GetPath(), Rows: int64(g.GetPhysicalRows()),
			Bytes: int64(g.GetInMemoryBytes()), KeyBytes: int64(g.GetPrimaryKeyBytes()),
		})
	}
	if err := s.validate(); err != nil {
		return nil, corrupt(name, 0, "%w", err)
	}
	return s, nil
}
