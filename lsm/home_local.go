package lsm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/flightd/flightd/lsm/wal"
	"github.com/flightd/flightd/manifest"
	"github.com/flightd/flightd/object"
)

// walFolder holds the log, below the data folder.
const walFolder = systemFolder + "/wal"

// localHome is a folder on a local disk: a lock keeps others off, the checkpoint of the catalog is a file that is replaced,
// and the log is segments. Nobody can take the folder over while the lock is held.
type localHome struct {
	db   *DB
	lock *folderLock
	// end is where the replay of the log ended.
	end wal.State
}

// newLocalHome makes and locks the folder.
func newLocalHome(ctx context.Context, db *DB) (*localHome, error) {
	o := &db.opt
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("make data folder: %w", err)
	}
	lock, err := lockFolder(o.Dir)
	if err != nil {
		return nil, err
	}
	local := object.NewLocal(o.Dir)
	db.st = local
	db.space, err = newSpace(o.Dir)
	if err == nil {
		err = local.Sweep(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, lock.unlock())
	}
	if o.SegmentBytes == 0 {
		o.SegmentBytes = diskSegmentBytes(o.Dir)
	}
	return &localHome{db: db, lock: lock}, nil
}

// walDir returns the folder of the log.
func (h *localHome) walDir() string { return filepath.Join(h.db.opt.Dir, walFolder) }

// claim implements home.
func (h *localHome) claim(ctx context.Context) (*catalog, error) {
	if err := checkFormat(ctx, h.db.st, formatMarker); err != nil {
		return nil, err
	}
	c, err := loadCatalog(ctx, h.db.st)
	if err != nil {
		return nil, err
	}
	// Replay writes the catalog's checkpoint and flushes memtables: nothing of that may be durable before the log is.
	return c, wal.Sync(h.walDir())
}

// store implements home: the file is replaced as a whole.
func (h *localHome) store(ctx context.Context, c *catalog) error {
	b, err := c.encode()
	if err != nil {
		return err
	}
	if err := h.db.st.Put(ctx, catalogFile, b); err != nil {
		return fmt.Errorf("write catalog: %w", err)
	}
	return nil
}

// replayDDL implements home.
func (h *localHome) replayDDL(_ context.Context, c *catalog, fn func(*wal.Record) error) error {
	_, err := wal.Replay(h.walDir(), c.Trimmed, fn)
	return err
}

// replay implements home. It begins at the beginning: the checkpoints of keys lie below what the tables need, and those
// skip what they have.
func (h *localHome) replay(_ context.Context, fn func(*wal.Record) error) (LSN, error) {
	var err error
	h.end, err = wal.ReplayAll(h.walDir(), fn)
	return h.end.LSN, err
}

// openLog implements home.
func (h *localHome) openLog(after LSN) (wal.Log, error) {
	db := h.db
	return wal.Open(wal.Options{Dir: h.walDir(), End: h.end, After: after, SegmentBytes: db.opt.SegmentBytes, Interval: db.opt.LogInterval,
		Appended: db.appended, Checkpoint: db.ledger.checkpoint, Durable: db.marks.sync, Poisoned: db.poisoned, Logger: db.logger})
}

// claimShard implements home.
func (h *localHome) claimShard(ctx context.Context, s *shard) (*manifest.Shard, error) {
	return manifest.ClaimShard(ctx, h.db.st, s.dir(), s.id, true, s.claimOptions())
}

// leave implements home.
func (h *localHome) leave(*Table) {}

// named implements home: the table's name says it.
func (h *localHome) named(*catalog, *tableEntry) error { return nil }

// readsByName implements home.
func (h *localHome) readsByName() bool { return false }

// stage implements home: the folder moves to its place when the table is born.
func (h *localHome) stage(_ context.Context, e *tableEntry) (string, error) {
	return stageRoot(e.Incarnation), nil
}

// unborn implements home.
func (h *localHome) unborn(t *Table) { t.discard(context.Background(), t.root) }

// position implements home.
func (h *localHome) position(*shard, LSN) (uint64, error) { return 0, nil }

// released implements home.
func (h *localHome) released(*manifest.Shard) {}

// trimmed implements home.
func (h *localHome) trimmed(c *catalog, upTo LSN) (bool, error) {
	news := upTo > c.Trimmed
	c.Trimmed = max(upTo, c.Trimmed)
	return news, nil
}

// owned implements home.
func (h *localHome) owned(context.Context) error { return nil }

// fence implements home.
func (h *localHome) fence(err error) error { return err }

// grace implements home.
func (h *localHome) grace() time.Duration { return 0 }

// oneSchema implements home.
func (h *localHome) oneSchema() bool { return false }

// oneShard implements home.
func (h *localHome) oneShard() bool { return false }

// close implements home.
func (h *localHome) close() error { return h.lock.unlock() }
