"""pylance and flightd write one table at the same time. Each changes keys of its own, so that a dictionary on each side says
what must be there: at once after each change, as flightd sees it, and at the end, as both do. FLIGHTD_TEST_SECONDS says how
long, FLIGHTD_TEST_SEED repeats the choices, though not their moments."""

import collections
import datetime
import os
import random
import threading
import time
import traceback

import lance
import pyarrow as pa
import pytest

from clients import adbc, execute, put, query, scalar
from server import eventually
from test_kill import SEED

SECONDS = float(os.environ.get("FLIGHTD_TEST_SECONDS", "20"))
KEYS = 4000  # of each side
OURS = pa.schema([("k", pa.int64()), ("n", pa.int64()), ("who", pa.string()), ("_tombstone", pa.bool_())])
THEIRS = pa.schema([pa.field("k", pa.int64(), nullable=False), ("n", pa.int64()), ("who", pa.string())])


class Writer(threading.Thread):
    """One side of the table: it changes rows at random and looks whether flightd has what it wrote."""

    def __init__(self, server, name, odd, stop):
        super().__init__(daemon=True, name=name)
        self.server, self.odd, self.stopped = server, odd, stop
        self.rng = random.Random(SEED * 2 + odd)
        self.model, self.done, self.lost, self.error = {}, collections.Counter(), collections.Counter(), None
        self.n = 0

    def run(self):
        try:
            while not self.stopped.is_set():
                kind = self.rng.choice(self.kinds)
                if getattr(self, kind)() is False:
                    self.lost[kind] += 1
                    continue
                self.done[kind] += 1
                self.look(kind)
        except BaseException:
            self.error = f"{self.name}: {traceback.format_exc()}"
            self.stopped.set()

    def look(self, after):
        """The side's rows are the model's in the next query."""
        got = rows_of(query(self.server, f"SELECT k, n FROM t WHERE k % 2 = {self.odd}"), f"after {after} of {self.name}")
        assert got == self.model, f"after {after}: {differences(got, self.model)}"

    def some(self, most):
        return sorted(self.rng.sample(range(KEYS), self.rng.randrange(1, most)))

    def rows(self, keys):
        self.n += 1
        return {2 * k + self.odd: self.n * 10000 + i for i, k in enumerate(keys)}


class Flightd(Writer):
    """Streams, SQL and maintenance by flightd."""

    kinds = ["stream"] * 12 + ["update", "delete", "insert", "optimize", "optimize", "optimize", "index"]

    def stream(self):
        for _ in range(self.rng.randrange(1, 5)):
            rows = self.rows(self.some(300))
            gone = [self.rng.random() < 0.2 for _ in rows]
            put(self.server, "t", [pa.record_batch([pa.array(rows), pa.array(rows.values()), pa.array(["us"] * len(rows)), pa.array(gone)], OURS)])
            for (k, n), g in zip(rows.items(), gone):
                self.model[k] = n
                if g:
                    del self.model[k]

    def update(self):
        m = self.rng.randrange(7)
        execute(self.server, f"UPDATE t SET n = n + 1 WHERE k % 2 = 0 AND k % 7 = {m}")
        self.model = {k: n + (k % 7 == m) for k, n in self.model.items()}

    def delete(self):
        low = self.rng.randrange(2 * KEYS)
        execute(self.server, f"DELETE FROM t WHERE who = 'us' AND k BETWEEN {low} AND {low + 200}")
        self.model = {k: n for k, n in self.model.items() if not low <= k <= low + 200}

    def insert(self):
        k = 2 * KEYS + 2 * self.n
        self.n += 1
        execute(self.server, f"INSERT INTO t (k, n, who) VALUES ({k}, {self.n}, 'us')")
        self.model[k] = self.n

    def optimize(self):
        execute(self.server, "OPTIMIZE t")

    def index(self):
        if self.rng.random() < 0.5:
            execute(self.server, "CREATE INDEX IF NOT EXISTS by_n ON t USING BTREE (n)")
        else:
            execute(self.server, "DROP INDEX IF EXISTS by_n ON t")


class Pylance(Writer):
    """Commits by pylance. Of those that lose a race to one of flightd's, which pylance says, nothing may be there."""

    kinds = ["append"] * 4 + ["delete"] * 3 + ["merge_insert"] * 4 + ["update"] * 2 + ["compact", "optimize_indices", "build", "tag", "alter", "clean"]
    tagged = None

    def open(self):
        return lance.dataset(str(self.server.dataset("t")))

    def attempt(self, change, after=None):
        """Makes a change, and applies it to the model if it was committed."""
        try:
            change()
        except (OSError, RuntimeError, ValueError) as e:
            if any(word in str(e).lower() for word in ("conflict", "contention", "concurrent", "retry")):
                return False
            raise
        if after is not None:
            self.model = after
        return True

    def append(self):
        rows = {k: n for k, n in self.rows(self.some(200)).items() if k not in self.model}
        if not rows:
            return False
        return self.attempt(lambda: lance.write_dataset(self.table(rows), self.open(), mode="append"), self.model | rows)

    def table(self, rows):
        return pa.table([pa.array(rows), pa.array(rows.values()), pa.array(["them"] * len(rows))], THEIRS)

    def delete(self):
        low = self.rng.randrange(2 * KEYS)
        return self.attempt(lambda: self.open().delete(f"who = 'them' AND k >= {low} AND k <= {low + 150}"),
                            {k: n for k, n in self.model.items() if not low <= k <= low + 150})

    def merge_insert(self):
        rows = self.rows(self.some(300))
        return self.attempt(lambda: self.open().merge_insert("k").when_matched_update_all().when_not_matched_insert_all().execute(self.table(rows)),
                            self.model | rows)

    def update(self):
        m = self.rng.randrange(9)
        return self.attempt(lambda: self.open().update({"n": "n + 1"}, where=f"who = 'them' AND k % 9 = {m}"),
                            {k: n + (k % 9 == m) for k, n in self.model.items()})

    def compact(self):
        return self.attempt(lambda: self.open().optimize.compact_files(target_rows_per_fragment=self.rng.choice([500, 5000, 1 << 20])))

    def optimize_indices(self):
        try:
            return self.attempt(lambda: self.open().optimize.optimize_indices())
        except OSError as e:
            # Lance lets two index builds commit over each other, and then refuses to go on with segments that overlap, until
            # flightd has made one of them.
            if "overlapping segment" not in str(e):
                raise
            return False

    def build(self):
        kind = self.rng.choice(["BTREE", "BITMAP"])
        return self.attempt(lambda: self.open().create_scalar_index("who" if kind == "BITMAP" else "n", kind, name=f"theirs_{kind.lower()}", replace=True))

    def tag(self):
        ds = self.open()
        if self.tagged is not None:
            ds.tags.delete("mark")
        ds.tags.create("mark", ds.version)
        self.tagged = {r["k"]: r["n"] for r in ds.to_table().to_pylist()}
        self.at_tag()

    def at_tag(self):
        """flightd reads the tagged version as pylance does."""
        got = rows_of(query(self.server, "SELECT k, n FROM t AT (TAG => 'mark')"), "at the tag")
        assert got == self.tagged, differences(got, self.tagged)

    def alter(self):
        """A column comes and goes, which takes as many tries as flightd's commits make of it. It has one name: Lance gives the
        id of a column that has gone, and of which no file has anything, to the next one."""
        if not self.attempt(lambda: self.open().add_columns(pa.schema([pa.field("extra", pa.int64())]))):
            return False
        self.look("the alteration's half")
        eventually(lambda: self.attempt(lambda: self.open().drop_columns(["extra"])))

    def clean(self):
        return self.attempt(lambda: self.open().cleanup_old_versions(older_than=datetime.timedelta(seconds=5), delete_unverified=False, error_if_tagged_old_versions=False))


def rows_of(table, when):
    """The rows by key, each of which comes once."""
    got = dict(zip(table["k"].to_pylist(), table["n"].to_pylist()))
    assert len(got) == table.num_rows, f"{when}: a key comes twice: {[k for k, c in collections.Counter(table['k'].to_pylist()).items() if c > 1][:10]}"
    return got


def differences(got, want):
    missing, extra = sorted(want.keys() - got.keys()), sorted(got.keys() - want.keys())
    other = [(k, got[k], want[k]) for k in sorted(got.keys() & want.keys()) if got[k] != want[k]]
    return f"{len(missing)} missing {missing[:8]}, {len(extra)} too many {extra[:8]}, {len(other)} others {other[:8]}"


def reads(server, stop, errors):
    """Statements that must not fail whatever happens, and what holds in each of them."""
    rng = random.Random(SEED)
    try:
        with adbc(server) as connection, connection.cursor() as cursor:
            while not stop.is_set():
                cursor.execute("SELECT count(*), count(DISTINCT k), count(*) FILTER (who = 'us') + count(*) FILTER (who = 'them') FROM t")
                n, keys, both = cursor.fetchone()
                assert n == keys == both, (n, keys, both)
                k = rng.randrange(2 * KEYS)
                cursor.execute(f"SELECT k, who FROM t WHERE k = {k}")
                assert cursor.fetchall() in ([], [(k, "them" if k % 2 else "us")])
                cursor.execute(f"SELECT count(*), count(*) FILTER (n BETWEEN {10000 * k} AND {10000 * k + 99999}) FROM t WHERE n BETWEEN {10000 * k} AND {10000 * k + 99999}")
                n, fit = cursor.fetchone()
                assert n == fit
    except BaseException:
        errors.append(traceback.format_exc())
        stop.set()


@pytest.mark.parametrize("version, stable", [("2.0", False), ("2.2", False), ("2.2", True)], ids=["2.0", "2.2", "stable row ids"])
def test_pylance_and_flightd_write_one_table(new_server, version, stable):
    print(f"FLIGHTD_TEST_SEED={SEED}")
    server = new_server("--retain", "20s")
    if version == "2.2":
        schema = pa.schema([THEIRS.field(0).with_metadata({"lance-schema:unenforced-primary-key": "true"}), THEIRS.field(1), THEIRS.field(2)])
        lance.write_dataset(schema.empty_table(), str(server.dataset("t")), data_storage_version=version, enable_stable_row_ids=stable)
    server.start()
    execute(server, "CREATE TABLE IF NOT EXISTS t (k BIGINT PRIMARY KEY, n BIGINT, who VARCHAR)")
    stop, errors = threading.Event(), []
    sides = [Flightd(server, "flightd", 0, stop), Pylance(server, "pylance", 1, stop)]
    reader = threading.Thread(target=reads, args=(server, stop, errors), daemon=True)
    if stable:  # flightd makes no indexes there
        sides[0].kinds = [k for k in sides[0].kinds if k != "index"]
    for thread in [*sides, reader]:
        thread.start()
    stop.wait(SECONDS)
    stop.set()
    for thread in [*sides, reader]:
        thread.join(timeout=120)
        assert not thread.is_alive()
    errors += [s.error for s in sides if s.error]
    assert not errors, "\n".join(errors)
    for s in sides:
        print(s.name, "did", dict(s.done), "lost", dict(s.lost))
        assert sum(s.done.values()) > SECONDS / 4
    model = sides[0].model | sides[1].model
    assert rows_of(query(server, "FROM t"), "at the end") == model
    execute(server, "OPTIMIZE t")
    assert rows_of(query(server, "FROM t"), "after OPTIMIZE") == model
    ds = lance.dataset(str(server.dataset("t")))
    ds.validate()
    ids = ds.to_table(columns=[], with_row_id=True)["_rowid"].to_pylist()
    assert len(set(ids)) == len(ids)
    assert rows_of(ds.to_table(), "by pylance") == model and ds.data_storage_version == version
    if sides[1].tagged is not None:
        assert rows_of(ds.checkout_version("mark").to_table(), "at the tag") == sides[1].tagged
        sides[1].at_tag()
    server.kill()
    server.start()
    assert rows_of(query(server, "FROM t"), "after a restart") == model
