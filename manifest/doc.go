// Package manifest decides which files make a table and which generations make a shard.
//
// Both are chains: folders of numbered, immutable versions that only grow. A version is published by creating its
// name if it is absent, so of several writers exactly one wins each number and there are no gaps. The newest version
// is found from a hint, best effort, by looking forward in small parallel steps.
//
// REQUIRES: whoever removes old versions lets the hint point at the newest one first. A hint at an old version that was
// kept, with a gap behind it, would look like the end of the chain.
//
// # A table
//
// Below the root of a table lie
//
//	_versions/{2^64-1-version, 20 digits}.manifest    versions, newest first in a listing
//	_versions/latest_version_hint.json                {"version":N}
//	_deletions/{fragment}-{read version}-{id}.bin     deleted offsets of one fragment, a portable roaring bitmap
//	_deletions/{fragment}-{read version}-{id}.arrow   the same from other writers, an Arrow IPC file
//	_indices/{uuid}/...                               index segments
//	data/...                                          data files
//
// A version is one file. Integers are little-endian; the first sixteen bytes are ours alone and other writers
// leave them out, also when they restore or clone a version of ours and keep our name in it:
//
//	+----------+------------+------------+
//	| "FLIGHTD" 1 | crc u32 | 0 u32      |  crc32c of everything that follows
//	+----------+------------+------------+
//	| length u32 | lancepb.IndexSection  |
//	+------------+-----------------------+
//	| length u32 | lancepb.Transaction   |
//	+------------+-----------------------+
//	| length u32 | lancepb.Manifest      |  ends exactly where the footer begins
//	+------------+-----+-----+-----------+
//	| manifest at u64  | 0 u16 | 2 u16 | "LANC" |
//	+------------------+-----+-----+-----------+
//
// The Manifest holds the offsets of the other two length words. The order of sections is a habit, not a rule.
//
// A deletion file that we wrote has its crc32c in the manifest, in field 2047 of its message, which other readers skip
// and other writers drop.
//
// # A shard
//
// Below the folder of a shard lie
//
//	manifest/{version, 64 bits reversed, as 64 digits}.binpb   a bare lancepb.ShardManifest
//	manifest/version_hint.json                                 {"version":N}
//
// The reversed name spreads the objects of a bucket. Three fields of our shard manifests are ours alone, and other readers
// skip them. 2045, 16 bytes, is random and new in each version: a writer that finds its number taken reads the version
// back, and when it is its own, byte for byte, its call had succeeded and only the answer was lost. 2046, a fixed64, is
// the LSN up to which everything is in generations, where the log is one object for each entry and
// replay_after_wal_entry_position is the number of an entry; without it that field is the LSN. 2047, a fixed32, is the
// crc32c of the bytes before it and the last field of the file.
//
// # Commits
//
// INVARIANT: a version is linked to its name only after every file that it names for the first time has been synced,
// and so have the folders that lead to these files. Files of other writers, who may not sync, are synced before we
// build on their version.
//
// INVARIANT: a committed change is in the chain exactly once. When a number is taken, Commit reads the transactions
// of the versions that came between; it moves its change on top of those that commute with it and returns
// ErrConflict for the others.
//
// A shard has one writer. Its epoch rises with each claim and is part of every version, and since a claim takes the
// next number, a writer that lost its shard collides at its next commit and finds the higher epoch: ErrFenced.
//
// # Trust
//
// Manifests come from disks and other programs. No length in them is used before it is bounded by the file, paths
// that leave the table are refused, and feature flags that we do not know make the version unreadable, or unwritable,
// with an UnsupportedError. Anything else that is wrong is an object.CorruptError. What we do not understand but may
// ignore is kept and written back.
//
// # Concurrency
//
// All functions may be called from many goroutines and processes at once; a Version and a Shard are immutable.
// The existence checks of one look forward run in goroutines that end before it returns. There are no locks.
package manifest
