package manifest

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	"github.com/flightd/flightd/internal/lancepb"
)

// memWALIndex is the name of the system index that tells other programs of the shards in front of a table.
const memWALIndex = "__lance_mem_wal"

// bucketField is the name of the one value that tells shards from each other.
const bucketField = "bucket"

// newMemWAL returns the details of a table whose rows go to one shard, or to several by the bucket of a field. The
// sharding field is spelled as Lance spells it for such a table.
func newMemWAL(shards int, by int32) *lancepb.MemWalIndexDetails {
	transform, all := "unsharded", true
	field := &lancepb.ShardingField{FieldId: bucketField, Transform: &transform, ResultType: "int32"}
	if shards > 1 {
		transform = "bucket"
		field.SourceIds = []int32{by}
		field.Parameters = map[string]string{"num_buckets": strconv.Itoa(shards)}
	}
	return &lancepb.MemWalIndexDetails{
		NumShards:          uint32(shards),
		ShardingSpecs:      []*lancepb.ShardingSpec{{SpecId: 1, Fields: []*lancepb.ShardingField{field}}},
		MaintainAllIndexes: &all,
	}
}

// memWALFromProto reads what the system index says about generations that are in the table already.
func memWALFromProto(p *lancepb.IndexMetadata) (*lancepb.MemWalIndexDetails, map[uuid.UUID]uint64, error) {
	var d lancepb.MemWalIndexDetails
	if err := lancepb.Unwrap(p.GetIndexDetails(), &d); err != nil {
		return nil, nil, fmt.Errorf("index %q: %w", memWALIndex, err)
	}
	compacted := make(map[uuid.UUID]uint64, len(d.GetCompactedSstables()))
	for _, c := range d.GetCompactedSstables() {
		id, err := uuid.FromBytes(c.GetShardId().GetUuid())
		if err != nil {
			return nil, nil, fmt.Errorf("index %q: shard id: %w", memWALIndex, err)
		}
		compacted[id] = max(compacted[id], c.GetGeneration())
	}
	return &d, compacted, nil
}

// memWALProto returns a new entry for the system index, since Lance gives it a new id with each change. It says that it
// covers no fragments, see coversNothing.
func memWALProto(d *lancepb.MemWalIndexDetails, version uint64) (*lancepb.IndexMetadata, error) {
	details, err := lancepb.NewAny(d)
	if err != nil {
		return nil, fmt.Errorf("index %q: %w", memWALIndex, err)
	}
	zero, now := int32(0), uint64(time.Now().UnixMilli())
	return coversNothing(&lancepb.IndexMetadata{
		Uuid: uuidProto(uuid.New()), Name: memWALIndex, DatasetVersion: version,
		IndexDetails: details, IndexVersion: &zero, CreatedAt: &now,
	})
}

// coversNothing returns an entry for the system index that says so. Lance leaves that out, and means the same. But its
// version 6, which DuckDB's extension has, lists no index of a table when there is one that does not say what it covers.
func coversNothing(p *lancepb.IndexMetadata) (*lancepb.IndexMetadata, error) {
	if len(p.GetFragmentBitmap()) > 0 {
		return p, nil
	}
	none, err := roaring.New().ToBytes()
	if err != nil {
		return nil, fmt.Errorf("index %q: %w", memWALIndex, err)
	}
	p = proto.CloneOf(p)
	p.FragmentBitmap = none
	return p, nil
}

// compactedProto lists generations in a fixed order, so that equal states have equal bytes.
func compactedProto(m map[uuid.UUID]uint64) []*lancepb.CompactedSsTable {
	ids := slices.SortedFunc(maps.Keys(m), func(a, b uuid.UUID) int { return bytes.Compare(a[:], b[:]) })
	list := make([]*lancepb.CompactedSsTable, len(ids))
	for i, id := range ids {
		list[i] = &lancepb.CompactedSsTable{ShardId: uuidProto(id), Generation: m[id]}
	}
	return list
}
