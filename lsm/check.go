package lsm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/flightd/flightd/lsm/wal"
	"github.com/flightd/flightd/manifest"
	"github.com/flightd/flightd/object"
)

// Fault is one thing that is wrong in a data folder.
type Fault struct {
	// File is where: a path with slashes below the data folder. It is a folder when something in it is missing.
	File string
	// Offset is where in the file the bad bytes begin, -1 when the fault has no one place.
	Offset int64
	// Err says what was found and what was expected.
	Err error
}

// String implements fmt.Stringer.
func (f Fault) String() string {
	if f.Offset < 0 {
		return fmt.Sprintf("%s: %v", f.File, f.Err)
	}
	return fmt.Sprintf("%s: offset %d: %v", f.File, f.Offset, f.Err)
}

// Checked counts what Check has looked at.
type Checked struct {
	// Tables are those of the catalog; Unfinished are those among them whose CREATE TABLE a crash cut off, which the
	// next Open finishes.
	Tables, Unfinished int
	// Generations, Fragments, DeletionFiles and Indexes are those that the newest versions name; KeyFilters are those of the
	// generations.
	Generations, Fragments, DeletionFiles, Indexes, KeyFilters int
	// LogRecords and LogRows are in the log, those that are in generations already included.
	LogRecords, LogRows int64
	// Rows and Bytes are in data files, deleted and superseded rows included.
	Rows, Bytes int64
	// Unsummed are data and index files without checksums, as other programs write them, and deletion files like that;
	// OtherIndexes are of kinds that only those programs read. Of both only the outside was checked.
	Unsummed, OtherIndexes int
	// Unread says of files in a form of Lance's that is not read here what it is. They are not checked, and are no faults.
	Unread []string
	// Unnamed are files, and folders of files, in tables that no version names, UnnamedBytes their size: what a crash or
	// another program left, and the collector removes in time.
	Unnamed      int
	UnnamedBytes int64
	// Strangers are shards of other MemWAL writers, StrangerEntries the log entries in them that no generation has; they
	// have no checksums.
	Strangers, StrangerEntries int
	// Faults is how often report was called.
	Faults int
}

// Check verifies a data folder that nobody has open, and changes nothing: the catalog, the log, and of each table the
// newest manifests with all files that they name, in a store also the catalogs before the newest: sizes, every checksum, the order of indexes, and whether files agree
// with each other. It calls report for each fault and goes on; of one file it reports a hundred at most. The hints at
// newest versions are left out, as nothing depends on them, and so are older versions.
//
// An error means that the folder could not be checked: it is in use (ErrInUse), or no data folder.
func Check(ctx context.Context, dir string, report func(Fault)) (Checked, error) {
	lock, err := shareFolder(dir)
	if err != nil {
		return Checked{}, err
	}
	defer lock.release()
	return check(ctx, dir, object.NewLocal(dir), report)
}

// CheckStore is Check of the data in a store that nobody writes meanwhile. name is what an error calls them.
func CheckStore(ctx context.Context, name string, st object.Store, report func(Fault)) (Checked, error) {
	return check(ctx, name, st, report)
}

func check(ctx context.Context, dir string, st object.Store, report func(Fault)) (Checked, error) {
	c := &checker{dir: dir, st: st, report: report, stages: make(map[uint64][]stagedCommit)}
	if err := c.format(ctx); err != nil {
		return c.sum, err
	}
	cat, whole := c.catalog(ctx)
	var end LSN
	if c.shared {
		end = c.entries(ctx, cat)
	} else {
		end = c.log(cat, whole)
	}
	for i := range cat.Tables {
		c.table(ctx, &cat.Tables[i], cat.Tables[i].Incarnation == cat.LastIncarnation)
	}
	switch {
	case !whole:
		c.strays(ctx, cat)
	case !c.shared:
		c.guests(ctx, cat)
	}
	if c.highest > end && !c.brokenLog {
		c.fault(walFolder, fmt.Errorf("the log ends at LSN %s, but manifests and catalog go up to %s: its end is missing", end, c.highest))
	}
	if err := ctx.Err(); err != nil {
		return c.sum, fmt.Errorf("check %s: %w", dir, err)
	}
	return c.sum, nil
}

// checker is one run of Check.
type checker struct {
	dir    string
	st     object.Store
	report func(Fault)
	sum    Checked
	// highest is the highest LSN that anything outside the log mentions.
	highest LSN
	// stages are those that the log commits, by incarnation, in order.
	stages map[uint64][]stagedCommit
	// shared is set for data in the form of a store of objects.
	shared bool
	// brokenLog is set when the log cannot be read to its end.
	brokenLog bool
}

// stagedCommit is a stage-commit record.
type stagedCommit struct {
	lsn    LSN
	commit *stageCommit
}

// fault reports an error about a file. The object.CorruptErrors in it know better where.
func (c *checker) fault(file string, err error) {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return // Check ends with it
	}
	faults := corruptions(err)
	if len(faults) == 0 && errors.Is(err, ErrUnsupported) { // it is not known to be bad
		c.sum.Unread = append(c.sum.Unread, err.Error())
		return
	}
	for _, x := range faults {
		c.sum.Faults++
		c.report(Fault{File: c.relative(x.Name), Offset: x.Offset, Err: x.Err})
	}
	if len(faults) == 0 {
		c.sum.Faults++
		c.report(Fault{File: file, Offset: -1, Err: err})
	}
}

// corruptions returns all object.CorruptErrors that an error wraps or joins.
func corruptions(err error) (list []*object.CorruptError) {
	switch x := err.(type) {
	case *object.CorruptError:
		return []*object.CorruptError{x}
	case interface{ Unwrap() error }:
		return corruptions(x.Unwrap())
	case interface{ Unwrap() []error }:
		for _, part := range x.Unwrap() {
			list = append(list, corruptions(part)...)
		}
	}
	return list
}

// relative returns the path of a file below the data folder.
func (c *checker) relative(name string) string {
	if rel, err := filepath.Rel(c.dir, name); err == nil && strings.HasPrefix(name, c.dir) {
		return filepath.ToSlash(rel)
	}
	return name
}

// format refuses what is no data folder, or not one of this flightd's.
func (c *checker) format(ctx context.Context) error {
	b, err := c.st.Get(ctx, formatFile)
	if errors.Is(err, object.ErrNotExist) {
		return fmt.Errorf("%s is no data folder of flightd: it has no %s", c.dir, formatFile)
	}
	if err != nil {
		return err
	}
	c.shared = string(b) == objectMarker
	if !c.shared && string(b) != formatMarker {
		c.fault(formatFile, fmt.Errorf("it says %.60q, this flightd reads %q", b, formatMarker))
	}
	return nil
}

// catalog returns the catalog, an empty one when it cannot be read.
func (c *checker) catalog(ctx context.Context) (cat *catalog, whole bool) {
	var err error
	if c.shared {
		var old []oldVersion
		if cat, _, old, err = newestCatalog(ctx, c.st); err != nil {
			c.fault(catalogFolder, err)
			cat, whole = &catalog{}, false
		} else {
			whole = true
		}
		c.oldCatalogs(ctx, cat, old)
		return cat, whole
	}
	cat, err = loadCatalog(ctx, c.st)
	if err != nil {
		c.fault(catalogFile, err)
		return &catalog{}, false
	}
	return cat, true
}

// oldCatalogs verifies the versions of the catalog that another has followed. Nobody needs them but for the claims that they
// are, each by an owner with an epoch of its own, none of which may be above that of the newest.
func (c *checker) oldCatalogs(ctx context.Context, newest *catalog, old []oldVersion) {
	before := uint64(0)
	for _, v := range old {
		name := catalogVersion(v.number)
		b, err := c.st.Get(ctx, name)
		if errors.Is(err, object.ErrNotExist) {
			continue // it went since it was listed
		}
		var cat *catalog
		if err == nil {
			cat, _, err = decodeCatalog(name, b)
		}
		switch {
		case err != nil:
			c.fault(name, err)
		case cat.Claim == nil || cat.Claim.Epoch == 0:
			c.fault(name, errors.New("it does not say whose it is"))
		case cat.Claim.Epoch < before:
			c.fault(name, fmt.Errorf("its epoch is %d, and the version before has %d", cat.Claim.Epoch, before))
		case newest.Claim != nil && cat.Claim.Epoch > newest.Claim.Epoch:
			c.fault(name, fmt.Errorf("its epoch is %d, and the newest version has %d", cat.Claim.Epoch, newest.Claim.Epoch))
		default:
			before = cat.Claim.Epoch
		}
	}
}

// log verifies the log, applies its DDL to the catalog, which was read whole or not, and returns its last LSN.
func (c *checker) log(cat *catalog, whole bool) LSN {
	dir := filepath.Join(c.dir, walFolder)
	if err := wal.Verify(dir); err != nil {
		c.brokenLog = true
		for _, err := range parts(err) {
			c.fault(walFolder, err)
		}
	}
	end, err := wal.ReplayAll(dir, func(r *wal.Record) error {
		c.sum.LogRecords++
		c.sum.LogRows += int64(r.Rows)
		if err := c.record(cat, r); err != nil {
			c.fault(walFolder, fmt.Errorf("record %s: %w", r.LSN, err))
		}
		return nil
	})
	if err != nil && !c.brokenLog { // else Verify has reported it
		c.brokenLog = true
		c.fault(walFolder, err)
	}
	if whole && end.Begins > cat.Trimmed {
		c.fault(walFolder, fmt.Errorf("the log begins behind LSN %s, but what follows %s is needed: segments are missing", end.Begins, cat.Trimmed))
	}
	c.highest = cat.LSN
	return end.LSN
}

// record looks into a record that is more than rows.
func (c *checker) record(cat *catalog, r *wal.Record) error {
	body := slices.Concat(r.Body...)
	switch r.Kind {
	case wal.DDL:
		var d ddl
		if r.LSN <= cat.LSN {
			return nil
		}
		if err := json.Unmarshal(body, &d); err != nil {
			return err
		}
		cat.apply(r.LSN, d)
	case wal.StageCommit:
		x, err := decodeStageCommit(body)
		if err != nil {
			return err
		}
		c.stages[r.Incarnation] = append(c.stages[r.Incarnation], stagedCommit{r.LSN, x})
	case wal.Idempotency:
		_, err := decodeKeys(body, r.LSN, func(keyEntry) {})
		return err
	}
	return nil
}

// parts returns the errors that errors.Join put together.
func parts(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	return []error{err}
}

// table checks one table of the catalog. The newest one may not have all of its folders yet.
func (c *checker) table(ctx context.Context, e *tableEntry, newest bool) {
	c.sum.Tables++
	t, err := newTable(nil, *e)
	if err != nil {
		c.fault(catalogFile, err)
		return
	}
	if _, err := c.st.Stat(ctx, stageRoot(e.Incarnation)); err == nil { // the next Open moves it in
		c.sum.Unfinished++
		t.root = stageRoot(e.Incarnation)
	}
	shards := make([]*manifest.Shard, len(t.shards))
	for i, x := range t.shards {
		s, err := manifest.LoadShard(ctx, c.st, x.dir(), manifest.Options{})
		if newest && errors.Is(err, object.ErrNotExist) {
			c.sum.Unfinished++
			return
		}
		if err != nil {
			c.fault(path.Join(x.dir(), "manifest"), err)
			continue
		}
		shards[i] = s
	}
	v := c.dataset(ctx, t.root)
	if v != nil {
		c.schema(t, v)
	}
	for i, s := range shards {
		if s != nil {
			c.shard(ctx, t.shards[i], s, v)
		}
	}
	if v != nil && !c.shared {
		c.strangers(ctx, t.root, v, func(dir string) bool {
			return slices.ContainsFunc(t.shards, func(own *shard) bool { return own.dir() == dir })
		})
	}
	c.unnamed(ctx, t, shards)
}

// shard checks what a shard's manifest says, and names.
func (c *checker) shard(ctx context.Context, x *shard, s *manifest.Shard, v *manifest.Version) {
	if s.ID != x.id {
		c.fault(path.Join(x.dir(), "manifest"), fmt.Errorf("it is of shard %s, the catalog says %s", s.ID, x.id))
	}
	for _, stage := range c.stages[x.table.entry.Incarnation] {
		if stage.lsn <= LSN(s.ReplayAfter) {
			continue // the manifest has named them
		}
		for _, g := range stage.commit.generations(x.index) { // the next Open publishes them
			g.Number = s.CurrentGeneration
			s.CurrentGeneration++
			s.Generations = append(s.Generations, g)
		}
	}
	c.generations(ctx, x.dir(), s, v, x.table.now().codec != nil)
}

// schema compares the columns of the dataset with the catalog's.
func (c *checker) schema(t *Table, v *manifest.Version) {
	if t.checkSchema(v) == nil {
		return
	}
	if _, err := t.columnChange(v, t.now().lance); err != nil { // others the next Open takes up
		c.fault(t.root, err)
	}
}

// strays checks the folders of tables when the catalog cannot tell which there are.
func (c *checker) strays(ctx context.Context, cat *catalog) {
	roots, err := c.st.List(ctx, ".")
	if err != nil {
		c.fault(".", err)
		return
	}
	for _, r := range roots {
		known := slices.ContainsFunc(cat.Tables, func(e tableEntry) bool { return e.folder() == r.Name })
		if !r.Dir || !strings.HasSuffix(r.Name, ".lance") || known {
			continue
		}
		v := c.dataset(ctx, r.Name)
		shards, err := c.st.List(ctx, path.Join(r.Name, "_mem_wal"))
		if err != nil || v == nil {
			continue
		}
		keyed := slices.ContainsFunc(v.Schema.Fields, isKey)
		for _, x := range shards {
			dir := path.Join(r.Name, "_mem_wal", x.Name)
			s, err := manifest.LoadShard(ctx, c.st, dir, manifest.Options{})
			if err != nil {
				c.fault(path.Join(dir, "manifest"), err)
				continue
			}
			c.generations(ctx, dir, s, v, keyed)
		}
	}
}
