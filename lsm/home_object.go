package lsm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/flightd/flightd/lsm/wal"
	"github.com/flightd/flightd/manifest"
	"github.com/flightd/flightd/object"
)

// objectMarker is the content of _flightd/format in a store of objects.
const objectMarker = "flightd data in a store of objects, format 1\n"

// catalogFolder holds the checkpoints of the catalog in a store of objects, and catalogLog the catalog's stream of the log.
const (
	catalogFolder = systemFolder + "/catalog"
	catalogLog    = systemFolder + "/log"
)

const (
	// maxClaims bounds how often a claim looks again after the owner's checkpoint took its number.
	maxClaims = 16
	// rivalGrace is how old things must be that another process may still count on which was overtaken and does not know it:
	// numbers of versions that it might put, files that it might commit. No call to a store is on its way for that long.
	rivalGrace = time.Hour
)

// catalogClaim is what a checkpoint says of who wrote it.
type catalogClaim struct {
	// Epoch is that of the process. Each claim has a higher one; LSNs, shards and log entries have it, too.
	Epoch uint64 `json:"epoch"`
	// Nonce is random, so that a process knows its own claim when the answer was lost.
	Nonce string `json:"nonce"`
	// Owner names the process to people.
	Owner string `json:"owner"`
}

// objectHome is a store of objects that several processes can reach. Versions of the catalog are a chain of objects,
// numbered from 1, each put if its number is free: the checkpoints of one process and the claims of all compete for the
// same numbers, so who was overtaken cannot write another. A claim is a version with a higher epoch.
//
//	 who has it             claims it
//	checkpoint 7, epoch 3
//	                        reads 7, puts 8 with epoch 4   (is 8 the newest?)
//	checkpoint 8: taken     fences the catalog's stream    (is 8 the newest?)
//	writes no more          reads DDL; claims and fences each shard; replays
//
// INVARIANT: the log is trimmed behind a checkpoint or manifest that was put under the own epoch. A process that claimed
// later has read it, or its put had failed.
type objectHome struct {
	db *DB
	// own is the claim, version the number of the newest version of the catalog that is known to be ours.
	own     catalogClaim
	version atomic.Uint64
	// old are versions of the catalog that others have followed, oldest first, with the times at which that was so.
	old   []oldVersion
	after time.Duration // the grace
	lease *lease
	// tempDir is removed at the end, if it is not empty.
	tempDir string

	// bucket is the log once it is open, nil before.
	bucket  atomic.Pointer[wal.Bucket]
	catalog *wal.Stream
	mu      sync.Mutex
	streams map[uuid.UUID]*wal.Stream // of the shards, guarded by mu
}

// oldVersion is a version of the catalog that may be removed some time after another followed it.
type oldVersion struct {
	number uint64
	since  time.Time
}

// newObjectHome prepares for the claim.
func newObjectHome(db *DB) (*objectHome, error) {
	h := &objectHome{db: db, after: rivalGrace, streams: make(map[uuid.UUID]*wal.Stream)}
	db.st, db.space = db.opt.Store, boundless()
	if db.opt.SegmentBytes == 0 {
		db.opt.SegmentBytes = defaultSegmentBytes
	}
	h.own = catalogClaim{Nonce: uuid.NewString(), Owner: processName()}
	h.lease = &lease{db: db, lasts: db.opt.lease}
	if db.opt.Temp == "" {
		var err error
		if h.tempDir, err = os.MkdirTemp("", "flightd-"); err != nil {
			return nil, fmt.Errorf("make temporary folder: %w", err)
		}
		db.opt.Temp = h.tempDir
	}
	return h, nil
}

// catalogVersion returns the name of a version of the catalog.
func catalogVersion(n uint64) string { return fmt.Sprintf("%s/%020d.json", catalogFolder, n) }

// parseCatalogVersion returns the number in a name, 0 for another object.
func parseCatalogVersion(name string) uint64 {
	digits, ok := strings.CutSuffix(name, ".json")
	n, err := strconv.ParseUint(digits, 10, 64)
	if !ok || err != nil || len(digits) != 20 {
		return 0
	}
	return n
}

// catalogVersions returns the numbers of the versions that are there, in order.
func catalogVersions(ctx context.Context, st object.Store) ([]oldVersion, error) {
	list, err := st.List(ctx, catalogFolder)
	if err != nil {
		return nil, fmt.Errorf("find the newest catalog: %w", err)
	}
	var out []oldVersion
	for _, x := range list {
		if n := parseCatalogVersion(x.Name); n > 0 {
			out = append(out, oldVersion{n, x.ModTime})
		}
	}
	return out, nil
}

// newestCatalog returns the newest version of the catalog with its number, 0 when there is none, and those before it.
func newestCatalog(ctx context.Context, st object.Store) (c *catalog, number uint64, old []oldVersion, err error) {
	for range maxClaims {
		list, err := catalogVersions(ctx, st)
		if err != nil {
			return nil, 0, nil, err
		}
		if len(list) == 0 {
			return &catalog{}, 0, nil, nil
		}
		n := list[len(list)-1].number
		b, err := st.Get(ctx, catalogVersion(n))
		if errors.Is(err, object.ErrNotExist) {
			continue // another followed it, and it has gone
		}
		if err != nil {
			return nil, 0, nil, fmt.Errorf("read catalog: %w", err)
		}
		c, _, err := decodeCatalog(catalogVersion(n), b)
		if err == nil && (c.Claim == nil || c.Claim.Epoch == 0) {
			err = &object.CorruptError{Name: catalogVersion(n), Err: errors.New("it does not say whose it is")}
		}
		return c, n, list[:len(list)-1], err
	}
	return nil, 0, nil, errors.New("read catalog: its versions go faster than they can be read")
}

// claim implements home.
func (h *objectHome) claim(ctx context.Context) (*catalog, error) {
	if err := checkFormat(ctx, h.db.st, objectMarker); err != nil {
		return nil, err
	}
	c, err := h.take(ctx)
	if err != nil {
		return nil, fmt.Errorf("claim %s: %w", h.db.opt.Dir, err)
	}
	h.lease.start(h.own.Epoch)
	h.catalog = &wal.Stream{ID: uuid.Nil, Dir: catalogLog, Epoch: h.own.Epoch, After: c.Entry}
	// What the owner before put into the stream until now is in front of the sentinel, and will be replayed.
	if err := h.catalog.Fence(ctx, h.db.st); err != nil {
		return nil, err
	}
	return c, h.owned(ctx)
}

// take puts the version that is the claim.
func (h *objectHome) take(ctx context.Context) (*catalog, error) {
	rival := uint64(0) // the epoch that was found first
	for try := range maxClaims {
		c, n, old, err := newestCatalog(ctx, h.db.st)
		if err != nil {
			return nil, err
		}
		if c.Claim != nil && c.Claim.Nonce == h.own.Nonce { // the answer was lost
			h.own.Epoch = c.Claim.Epoch
			h.version.Store(n)
			return c, nil
		}
		epoch := uint64(0)
		if c.Claim != nil {
			epoch = c.Claim.Epoch
		}
		if try > 0 && epoch != rival {
			return nil, fmt.Errorf("%w: %s has claimed it at the same time", ErrFenced, c.Claim.Owner)
		}
		if try > 0 && !h.db.opt.Takeover {
			return nil, fmt.Errorf("%w by %s, which has just written a checkpoint", ErrInUse, c.Claim.Owner)
		}
		if try == 0 && epoch > 0 && !h.db.opt.Takeover {
			if err := h.lease.await(ctx, *c.Claim); err != nil {
				return nil, err
			}
			if c, n, old, err = newestCatalog(ctx, h.db.st); err != nil {
				return nil, err
			}
			if c.Claim.Epoch != epoch {
				return nil, fmt.Errorf("%w by %s, which has just claimed it", ErrInUse, c.Claim.Owner)
			}
		}
		rival = epoch
		h.own.Epoch = epoch + 1
		c.Claim = &h.own
		switch err := h.putVersion(ctx, n+1, c); {
		case err == nil:
			h.old = old
			if n > 0 {
				h.old = append(h.old, oldVersion{n, time.Now()})
			}
			// Numbers that have gone can be put again, by a claim that slept: only the newest version counts.
			return c, h.owned(ctx)
		case !errors.Is(err, object.ErrExists):
			return nil, err
		}
	}
	return nil, fmt.Errorf("%w by a process that writes checkpoints faster than it can be claimed; stop that first", ErrInUse)
}

// putVersion puts a version of the catalog that is ours, or returns object.ErrExists when another's has its number.
func (h *objectHome) putVersion(ctx context.Context, n uint64, c *catalog) error {
	b, err := c.encode()
	if err != nil {
		return err
	}
	if err := h.db.st.PutIfAbsent(ctx, catalogVersion(n), b); err != nil {
		return fmt.Errorf("write catalog: %w", err)
	}
	h.version.Store(n)
	return nil
}

// store implements home. A version of ours that is there although we were told otherwise is followed by another.
func (h *objectHome) store(ctx context.Context, c *catalog) error {
	for {
		n := h.version.Load()
		err := h.putVersion(ctx, n+1, c)
		if err == nil {
			h.old = append(h.old, oldVersion{n, time.Now()})
			if b := h.bucket.Load(); b != nil {
				b.Release(uuid.Nil, c.Entry, 0)
			}
			h.prune(ctx)
			return nil
		}
		if !errors.Is(err, object.ErrExists) {
			return err
		}
		if err := h.owned(ctx); err != nil {
			return err
		}
		if h.version.Load() == n {
			return err // it has gone again, or cannot be seen
		}
	}
}

// prune removes versions of the catalog that nobody can count on any more.
func (h *objectHome) prune(ctx context.Context) {
	for len(h.old) > 0 && time.Since(h.old[0].since) > h.after {
		err := h.db.st.Delete(ctx, catalogVersion(h.old[0].number))
		if err != nil && !errors.Is(err, object.ErrNotExist) {
			h.db.logger.Warn("remove an old version of the catalog; will try again", "version", h.old[0].number, "error", err)
			return
		}
		h.old = h.old[1:]
	}
}

// owned implements home.
func (h *objectHome) owned(ctx context.Context) error {
	known := h.version.Load()
	list, err := catalogVersions(ctx, h.db.st)
	if err != nil {
		return err
	}
	if len(list) > 0 && list[len(list)-1].number <= known {
		return nil
	}
	c, n, _, err := newestCatalog(ctx, h.db.st)
	if err != nil {
		return err
	}
	if c.Claim != nil && c.Claim.Nonce == h.own.Nonce {
		for old := h.version.Load(); old < n && !h.version.CompareAndSwap(old, n); old = h.version.Load() {
		}
		return nil
	}
	owner := "nobody any more"
	if c.Claim != nil {
		owner = fmt.Sprintf("%s, with epoch %d", c.Claim.Owner, c.Claim.Epoch)
	}
	return h.fence(fmt.Errorf("the catalog is that of %s; ours was %d: %w", owner, h.own.Epoch, wal.ErrFenced))
}

// fence implements home.
func (h *objectHome) fence(err error) error {
	if b := h.bucket.Load(); b != nil {
		b.Poison(err)
	}
	return fmt.Errorf("%w: %w", ErrFenced, err)
}

// replayDDL implements home.
func (h *objectHome) replayDDL(ctx context.Context, _ *catalog, fn func(*wal.Record) error) error {
	return wal.ReplayStreams(ctx, h.db.st, []*wal.Stream{h.catalog}, batchPrefix, fn)
}

// replay implements home. The streams are read from where manifests and catalog begin: keys that came before are in a
// checkpoint behind.
func (h *objectHome) replay(ctx context.Context, fn func(*wal.Record) error) (LSN, error) {
	streams := []*wal.Stream{h.catalog}
	for _, s := range h.streams {
		streams = append(streams, s)
	}
	last := LSN(0)
	err := wal.ReplayStreams(ctx, h.db.st, streams, batchPrefix, func(r *wal.Record) error {
		last = r.LSN
		return fn(r)
	})
	return last, err
}

// openLog implements home. The epoch is above that of all LSNs that were ever given.
func (h *objectHome) openLog(LSN) (wal.Log, error) {
	db := h.db
	b, err := wal.OpenBucket(wal.BucketOptions{Store: db.st, Epoch: h.own.Epoch, Rows: loggedRows, Interval: db.opt.LogInterval,
		Appended: db.appended, Checkpoint: db.ledger.checkpoint, Durable: db.marks.sync, Poisoned: db.poisoned, Logger: db.logger})
	if err != nil {
		return nil, err
	}
	b.Attach(h.catalog)
	for _, s := range h.streams {
		b.Attach(s)
	}
	h.bucket.Store(b)
	return b, nil
}

// trimmed implements home. All DDL in the catalog's stream is in the catalog, as nobody else changes that now.
func (h *objectHome) trimmed(c *catalog, _ LSN) (bool, error) {
	b := h.bucket.Load()
	entry, err := b.Position(uuid.Nil, b.DurableLSN())
	if err != nil || entry <= c.Entry {
		return false, logError(err)
	}
	c.Entry = entry
	return true, nil
}

// grace implements home.
func (h *objectHome) grace() time.Duration { return h.after }

// oneSchema implements home.
func (h *objectHome) oneSchema() bool { return true }

// oneShard implements home.
func (h *objectHome) oneShard() bool { return true }

// close implements home.
func (h *objectHome) close() error {
	b := h.bucket.Load()
	h.lease.end(b == nil || !errors.Is(b.Err(), wal.ErrPoisoned))
	if h.tempDir == "" {
		return nil
	}
	return os.RemoveAll(h.tempDir)
}

// claimShard implements home. The epoch is that of the process, so that opening a shard again claims nothing, and who
// claimed the catalog later has the shard, too.
func (h *objectHome) claimShard(ctx context.Context, s *shard) (*manifest.Shard, error) {
	o := s.claimOptions()
	o.Epoch = h.own.Epoch
	man, err := manifest.ClaimShard(ctx, h.db.st, s.dir(), s.id, true, o)
	if errors.Is(err, manifest.ErrFenced) {
		return nil, h.fence(err)
	}
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	known := h.streams[s.id] != nil
	h.mu.Unlock()
	if known {
		return man, nil
	}
	stream := &wal.Stream{ID: s.id, Dir: path.Join(s.dir(), "wal"), Epoch: h.own.Epoch, After: man.Entry}
	stream.Generation.Store(man.CurrentGeneration)
	if err := stream.Fence(ctx, h.db.st); err != nil {
		return nil, err
	}
	newest, err := manifest.LoadShard(ctx, h.db.st, s.dir(), o)
	if err != nil {
		return nil, err
	}
	if newest.Epoch != h.own.Epoch {
		return nil, h.fence(fmt.Errorf("shard %s has epoch %d, ours is %d: %w", s.dir(), newest.Epoch, h.own.Epoch, manifest.ErrFenced))
	}
	h.mu.Lock()
	h.streams[s.id] = stream
	h.mu.Unlock()
	if b := h.bucket.Load(); b != nil {
		b.Attach(stream)
	}
	return man, nil
}

// leave implements home.
func (h *objectHome) leave(t *Table) {
	for _, s := range t.shards {
		h.mu.Lock()
		delete(h.streams, s.id)
		h.mu.Unlock()
		if b := h.bucket.Load(); b != nil {
			b.Detach(s.id)
		}
	}
}

// position implements home. Position 1 is the sentinel of the first who claimed the shard.
func (h *objectHome) position(s *shard, lsn LSN) (uint64, error) {
	b := h.bucket.Load()
	if b == nil {
		return 1, nil
	}
	entry, err := b.Position(s.id, lsn)
	return max(entry, 1), logError(err)
}

// released implements home.
func (h *objectHome) released(man *manifest.Shard) {
	if b := h.bucket.Load(); b != nil {
		b.Release(man.ID, man.Entry, man.CurrentGeneration)
	}
}

// named implements home. No folder is used twice: a process that was overtaken may still be removing what had the name. The
// first table of a name has the folder that other programs expect, later ones the name, '~', which no name has, and a part
// of the shard's random identity.
func (h *objectHome) named(c *catalog, e *tableEntry) error {
	if e.Shards > 1 {
		return fmt.Errorf("table %q: %w number of shards %d: in a store of objects a table has one, as its log has an object for each shard, "+
			"and two objects are not stored together; leave shards out", e.name(), ErrInvalid, e.Shards)
	}
	e.Folder = e.name().folder()
	if len(c.Used) >= maxUsed || slices.Contains(c.Used, e.Folder) {
		e.Folder = strings.TrimSuffix(e.Folder, folderSuffix) + "~" + strings.ReplaceAll(e.Shard.String(), "-", "")[:12] + folderSuffix
	}
	return nil
}

// maxUsed bounds Catalog.Used: when so many names have had their folders, new tables get others.
const maxUsed = 4096

// stage implements home. Nothing can be moved: the table is made where it will be, and the catalog says so before.
func (h *objectHome) stage(ctx context.Context, e *tableEntry) (string, error) {
	cat := h.db.cat
	cat.Staged = append(cat.Staged, *e)
	cat.use(e)
	if h.db.checkpoint(ctx); h.db.stale {
		cat.abandon(e.Incarnation)
		return "", errors.New("the catalog cannot be written; the log of the server says why")
	}
	return e.Folder, nil
}

// readsByName implements home.
func (h *objectHome) readsByName() bool { return true }

// unborn implements home.
func (h *objectHome) unborn(t *Table) {
	db := h.db
	h.leave(t)
	db.cat.abandon(t.entry.Incarnation)
	ctx := context.Background()
	if err := db.removeDropped(ctx); err != nil {
		t.warn("remove what is no longer needed; will try again", err)
	}
}
