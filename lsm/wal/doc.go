// Package wal is the write-ahead log: one append-only, checksummed log per data folder for all tables and shards, so
// that a batch over several shards and a transaction over several tables are one record and share one sync.
//
// A caller replays the log once, opens it where Replay found its end, and appends:
//
//	end, err := wal.Replay(dir, after, func(r *wal.Record) error { … })
//	log, err := wal.Open(wal.Options{Dir: dir, End: end, After: after})
//	lsn, err := log.Append(ctx, record)
//	err = log.WaitDurable(ctx, lsn)
//
// # Segments
//
// The log is a sequence of files, segments, named by their id: 000000000001.wal, 000000000002.wal and so on without a
// gap. An id is never used twice. All integers are little-endian; all checksums are CRC32C (Castagnoli). A segment
// begins with a header, alone in its page so that no later write shares a sector with it:
//
//	offset  size
//	     0     8  magic "FLTDWAL" and the format's version, 1
//	     8     8  segment id
//	    16     8  salt, random
//	    24    36  zero
//	    60     4  checksum of the 60 bytes before
//	    64  4032  not used, not read
//	  4096        the first group
//
// A segment under its final name has been synced with its header, and so has its folder entry: it is prepared under
// another name (.tmp when it is new and filled with zeros, .spare when it is an old segment to be used again) and then
// renamed. An interrupted preparation therefore leaves no trace in the log, and a header that does not verify is damage.
// Overwriting blocks that exist needs no journal commit: a sync takes 0.1 to 0.2 ms where one that extends the file
// takes 0.3 to 4 ms.
//
// # Groups
//
// What the log goroutine writes at once is a group. A group begins at a multiple of 64, so that a reader that lost its
// way finds the next one, and its header is never split over two sectors:
//
//	offset  size
//	     0     4  checksum of header bytes 4 to 64, continued from the checksum in the segment's header
//	     4     4  checksum of the body
//	     8     8  segment id
//	    16     4  offset of this group in the segment
//	    20     4  length of the group, header and padding included: a multiple of 64
//	    24     8  LSN of the first record; in a mark, the LSN that the next record gets
//	    32     8  LSN of the last record before this group, 0 when there is none
//	    40     8  synced to: segment id
//	    48     4  synced to: offset
//	    52     4  number of records
//	    56     1  type: 1 records, 2 sync mark, 3 seal, 4 epoch mark
//	    57     3  zero
//	    60     4  kinds: bit k is set when a record of kind k is in the group
//	    64        body: the records, then zeros up to the length
//
// Segment id, offset and, through the segment header's checksum, the salt are under the header's checksum. The bytes
// that a segment held in an earlier life therefore never pass for groups of its present one, nor does a group that a
// client forged inside a record, since it cannot know the salt. A group is whole or it is not there: records appended by
// one call are in one group, so a crash keeps all of them or none.
//
// A record, at a multiple of 8:
//
//	offset  size
//	     0     4  length of the body
//	     4     4  schema id
//	     8     4  rows
//	    12     1  kind
//	    13     3  zero
//	    16     8  incarnation of the table
//	    24    16  shard (UUID)
//	    40        body, then zeros up to a multiple of 8
//
// Its LSN is that of the group plus its place in it.
//
// A mark has no body. A sync mark says nothing but how far the log is synced; it follows the last sync of a burst and
// nobody waits for it. A seal ends a segment. An epoch mark opens an epoch of LSNs.
//
// # LSNs and epochs
//
// An LSN is the log epoch (24 bits) and a count from 1 (40 bits). Each Open writes and syncs an epoch mark with an epoch
// above all that the log or Options.After has seen, before it hands out the first LSN. An LSN that was handed out and
// lost in a crash, as those of buffered records may be, belongs to an older epoch, so no LSN is used twice. A count that is used up opens the next epoch in the
// same way.
//
// # The torn tail
//
// A crash may leave any part of what was written after the last sync, in any order. Reading ends at the first group
// that does not verify, at position X. The reader then looks at all bytes behind X, in this segment and in all later
// ones, for group headers that verify, and takes the highest "synced to" of all headers it has seen: P. (That a segment
// exists proves too that everything was synced up to the end of the last segment but one before it.)
//
//	X >= P: a torn tail. The log ends at X.
//	X <  P: damage. Reading fails with an object.CorruptError that has the file and X.
//
// No crash is ever taken for damage: the writer puts P into a header only after fdatasync has returned for everything
// below P, what is synced survives, and a header that verifies at its own place in its own segment was composed by this
// writer. No damage below P is ever taken for a tail, since X < P is just what the rule tests. What lies between is the
// price: a flip in groups that no surviving header covers cannot be told from a torn tail. Acknowledged ones among them are
// only those of the very last sync, until the group or the sync mark that follows it is on the disk. Close waits for that.
//
// Order cannot be lost: each group tells the LSN before it, and a group that verifies but does not continue its
// predecessor is damage.
//
// # Changing segments
//
// INVARIANT: the next segment exists, synced and named, before a segment is sealed.
// INVARIANT: the seal is synced before the first group of the next segment is written.
//
// So an unsealed segment is the last that has groups, a sealed segment without a successor is damage, and the rule above
// needs no special case at the border. Open never writes on behind a tail it found: it seals there, cuts off the rest of
// the file and opens its epoch in the next segment, so that remains of the torn tail are not reachable any more and a
// restart takes no more space than the log has content. A segment that was prepared before a crash is used after it.
//
// A segment that is entered begins with the record that Options.Checkpoint gives, if it gives one: what must be known
// after a replay however much was trimmed. It speaks of everything that was appended before it. In the first segment of
// an Open it stands behind the epoch mark.
//
// INVARIANT: a segment is trimmed only when one behind it has that record, and has it synced.
//
// A group that is larger than a segment starts a segment, behind its checkpoint, and extends it.
//
// Trim gives whole segments back, oldest first, never one at or above the durable position. A few are kept as spares and
// become next segments; their old bytes stay until they are overwritten.
//
// # Goroutines and locks
//
// Who has the pen (mu.pen) owns the end of the log: gives LSNs, writes, and calls Options.Appended. That is the log
// goroutine, but while it waits for work: it gathers what callers of Append and Send have queued into a group, changes
// segments, for a new one calls Options.Checkpoint, and releases the callers of Append or calls the receipts of what was
// sent. A caller of Append that finds the pen laid down and nothing queued takes it, if its records fit the segment, and
// writes them itself.
//
// Who syncs (mu.syncing) runs fdatasync for what was written until then, and then raises the durable position. That is the
// sync goroutine, which does so again as long as something was written since the last one began. A caller of
// WaitDurable runs the sync that it waits for itself when that covers one call of Append and the one before covered no more.
// So a client that is alone and waits for each of its batches is woken by nobody.
//
// The keeper goroutine prepares the next segment and gives trimmed ones back. All three are started by Open and awaited by
// Close.
//
// A sync mark is due when the last group with records is synced and nothing has come behind it for a millisecond or two;
// that is a clock, too, but nobody waits for it. Written at once, it was in the way of a client's next batch, whose group
// says the same.
//
// Groups form while the log goroutine writes, syncs gather what was written while the previous one ran; nobody waits for
// a clock. The clock is only for buffered records, for which nobody waits at all: a group that has no others is synced
// when Options.Interval has passed since the first of them, or before, with a group that has others, when somebody calls
// WaitDurable, or at the end of its segment. It is a timer whose function takes mu; Close stops it after the last sync. One goroutine for both was the first idea. But writing during fdatasync costs no more than else (1.7 µs for 4
// KiB), and apart a caller that does not wait for each of its syncs appends 200,000 batches a second where it would get
// one for each sync, 5,000.
//
// Local has one lock, mu. Nothing is written, synced or called back under it. Options.Appended returns before
// Options.Durable is called for any of its records.
//
// # Poison
//
// After a failed write or fdatasync nobody knows what is on disk, and a second fdatasync may report success for pages
// that the kernel has dropped. The log is then poisoned: nothing more is written or synced, and every Append and every
// WaitDurable above the durable position fails with ErrPoisoned and the cause. Records at or below it are durable
// and stay so; buffered ones above it may be lost. Replaying and opening again is the way out. A full disk is no poison: when no segment can be
// prepared, or a group that is larger than its segment finds no room, the appends that needed it fail, and later ones try
// again. Other groups lie in blocks that exist.
//
// # The bucket form
//
// Bucket is the log in a store of objects, where nothing can be appended or synced: streams of entries, one for each shard
// and one for the catalog, and an entry is what a commit group has for its stream (entry.go, docs/log-format.md). A claim in
// the shard's manifest comes first.
// Then
//
//	err := stream.Fence(ctx, st)          a sentinel: who wrote before stops there
//	                                      (is the claim still the newest?)
//	err = wal.ReplayStreams(ctx, st, streams, prefix, func(r *wal.Record) error { … })
//	log, err := wal.OpenBucket(wal.BucketOptions{Store: st, Epoch: epoch, …})
//	log.Attach(stream)
//
// LSNs are given by one goroutine for all streams. Groups are stored one after the other, the entries of one at the same
// time, so the durable position is a prefix, and a stream has no gaps. The price is that a group waits for the slowest of
// its entries, and that a crash may leave some entries of the last group: each Append is in one of them, and whole; of those
// that nobody was told of, later ones may be there without earlier ones in other shards. Records of several shards cannot be
// appended together.
//
// A call that failed is tried again at the same place, and a name that is taken is read back: our own bytes are success, a
// higher epoch is ErrFenced. Anything else, and a call that goes on failing, poisons the log, as nobody knows what is stored.
//
// ReadLanceEntry reads the entries of other MemWAL writers, which have no checksums: a damaged one that still is an Arrow
// stream is not noticed.
//
// # Errors
//
// Damage is an *object.CorruptError with file and offset. ErrPoisoned, ErrClosed, ErrTooLarge and ErrNotReplayed are the
// sentinels.
package wal
