"""What old versions, failed work and a full disk do to a data folder: it stays bounded, readable by Lance, and serves."""

import os
import subprocess
import threading
import time

import lance
import pyarrow as pa
import pytest

from clients import Stream, code_of, execute, put, query, refused, scalar
from server import eventually

ROWS = pa.schema([("id", pa.int64()), ("pad", pa.string())])


def rows(first, n, text="x"):
    return pa.record_batch([pa.array(range(first, first + n), pa.int64()), pa.array([text * 100] * n)], ROWS)


def files(folder):
    """All files below a folder, as paths in it."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def vacuum(server, table=""):
    """Returns the number of files that VACUUM says it removed."""
    freed = query(server, f"VACUUM {table}")
    assert freed.column_names == ["table_schema", "table_name", "versions", "files", "bytes"] and freed.num_rows == 1
    assert freed["table_name"].to_pylist() == ["t"] and freed["versions"][0].as_py() <= freed["files"][0].as_py()
    return freed["files"][0].as_py()


def test_vacuum_leaves_what_lance_has_named(new_server):
    """Tagged versions and branches can be checked out afterwards; the newest one is all that else is left."""
    server = new_server("--retain", "3s").start()
    execute(server, "CREATE TABLE t (id BIGINT PRIMARY KEY, pad VARCHAR)")
    folder, want = server.dataset("t"), {}
    for i in range(5):
        put(server, "t", [rows(0, 100 + i, "abcde"[i])])
        execute(server, "OPTIMIZE t")
        dataset = lance.dataset(str(folder))
        if i in (1, 2):  # named while they are the newest, as nothing else keeps them for longer than --retain
            want[dataset.version] = dataset.to_table().sort_by("id")
            if i == 1:
                dataset.tags.create("keep", dataset.version)
            else:
                dataset.create_branch("side", ("main", dataset.version))
    tagged, branched = sorted(want)
    time.sleep(3.1)
    eventually(lambda: vacuum(server, "t") >= 0 and len(lance.dataset(str(folder)).versions()) == 3)
    dataset = lance.dataset(str(folder))
    assert dataset.to_table().num_rows == 104
    assert dataset.checkout_version("keep").to_table().sort_by("id") == want[tagged]
    assert dataset.checkout_version(branched).to_table().sort_by("id") == want[branched]
    assert dataset.checkout_version(("side", None)).to_table().num_rows == want[branched].num_rows
    assert dataset.checkout_version(tagged).to_table(filter="id = 5").num_rows == 1, "by its index"
    dataset.tags.delete("keep")
    dataset.branches.delete("side")
    assert vacuum(server) > 0
    assert [v["version"] for v in lance.dataset(str(folder)).versions()] == [dataset.version]
    assert len([f for f in files(folder) if f.startswith("data/")]) == 1
    assert scalar(server, "SELECT count(*) FROM t") == 104


def test_lance_goes_on_while_everything_is_collected(new_server):
    """With --retain 0s and a VACUUM all the time, Lance's commits stand and their rows are there."""
    server = new_server("--retain", "0s").start()
    execute(server, "CREATE TABLE t (id BIGINT PRIMARY KEY, pad VARCHAR)")
    put(server, "t", [rows(0, 100)])
    execute(server, "OPTIMIZE t")
    path, done, problems = str(server.dataset("t")), threading.Event(), []

    def collect():
        while not done.is_set():
            try:
                vacuum(server, "t")
            except Exception as e:  # reported by the test
                problems.append(e)
                return

    collector = threading.Thread(target=collect)
    collector.start()
    try:
        for i in range(15):
            lance.write_dataset(pa.table(rows(1000 + i * 10, 10, "y"), schema=lance.dataset(path).schema), path, mode="append")
            put(server, "t", [rows(i, 5, "z")])
            execute(server, "OPTIMIZE t")
    finally:
        done.set()
        collector.join()
    assert not problems
    assert lance.dataset(path).to_table().num_rows == 250
    assert scalar(server, "SELECT count(*) FROM t") == 250
    server.restart()
    assert scalar(server, "SELECT count(*) FROM t") == 250


def test_a_file_of_nobody_goes_by_its_age(new_server):
    """What a program that died left behind is removed by the collector itself, what may be committed yet is not."""
    server = new_server("--retain", "20s").start()
    execute(server, "CREATE TABLE t (id BIGINT PRIMARY KEY, pad VARCHAR)")
    put(server, "t", [rows(0, 10)])
    execute(server, "OPTIMIZE t")
    old, new = server.dataset("t") / "data" / "old.lance", server.dataset("t") / "data" / "new.lance"
    for name in (old, new):
        name.write_bytes(b"x" * 1000)
    os.utime(old, (time.time() - 60, time.time() - 60))
    assert vacuum(server, "t") == 1
    assert new.exists() and not old.exists()
    eventually(lambda: not new.exists())
    assert scalar(server, "SELECT count(*) FROM t") == 10


def test_vacuum_of_nothing(server):
    execute(server, "CREATE TABLE t (id BIGINT)", "VACUUM", "VACUUM t", "VACUUM TABLE t")
    assert query(server, "SELECT * FROM t").num_rows == 0


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 64 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no small disk to fill: mount says {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def free(folder):
    stat = os.statvfs(folder)
    return stat.f_bavail * stat.f_frsize


def fill(server, first):
    """Streams rows until the disk is full, and returns how many were acknowledged."""
    stream, n = Stream(server, "t", ROWS), 0
    while n < 2000 and stream.send(rows(first + n * 500, 500, "x" * 10)):
        n += 1
    acked = stream.abandon()
    assert n < 2000, "the disk does not fill up"
    assert code_of(stream.error) == "RESOURCE_EXHAUSTED", stream.error
    for word in (str(server.data), "bytes free", "VACUUM"):
        assert word in str(stream.error), stream.error
    return acked


def held(server):
    return scalar(server, "SELECT count(*) FROM t"), scalar(server, "SELECT count(DISTINCT id) FROM t WHERE length(pad) = 1000")


def test_full_disk(small_disk, new_server):
    """Reads, deletes, merges and restarts work on a full disk, and writes when there is room again."""
    server = new_server("--memory", "256MiB", "--retain", "0s")
    server.data = small_disk / "data"
    server.start()
    execute(server, "CREATE TABLE t (id BIGINT PRIMARY KEY, pad VARCHAR)")
    acked = fill(server, 0)
    count, distinct = held(server)
    print(f"{acked} rows acknowledged, {count} stored, {free(small_disk)} bytes free")
    assert count == distinct >= acked > 20_000
    with (small_disk / "filler").open("wb") as filler:  # somebody else takes the rest
        while True:
            try:
                filler.write(b"x" * 65536)
                filler.flush()
            except OSError:
                break
    assert held(server) == (count, distinct)
    for statement in ("INSERT INTO t VALUES (-1, 'x')", "CREATE TABLE u (id BIGINT)", "UPDATE t SET pad = 'y' WHERE id < 10000"):
        with refused("RESOURCE_EXHAUSTED", "bytes free"):
            execute(server, statement)
    assert held(server) == (count, distinct)
    server.restart()
    assert held(server) == (count, distinct)
    execute(server, f"DELETE FROM t WHERE id < {count // 2}", "OPTIMIZE t", "VACUUM t")
    kept = held(server)[0]
    assert kept == count - count // 2
    server.restart()
    assert held(server) == (kept, kept)
    (small_disk / "filler").unlink()
    eventually(lambda: room(server))
    put(server, "t", [rows(-500, 500, "x" * 10)])
    assert held(server) == (kept + 500, kept + 500)
    execute(server, "TRUNCATE t", "VACUUM t")
    assert fill(server, 0) > 20_000, "all the room came back"
    execute(server, "DROP TABLE t")


def room(server):
    try:
        execute(server, "INSERT INTO t VALUES (-1, 'x'), (-2, 'x')", "DELETE FROM t WHERE id < 0")
        return True
    except Exception as e:
        assert code_of(e) == "RESOURCE_EXHAUSTED", e
        return False


def test_churn_stays_bounded(new_server):
    """Upserts of few of many keys for a while: the folder holds a multiple of the live data, not of what was written."""
    server = new_server("--memory", "256MiB", "--retain", "0s").start()
    execute(server, "CREATE TABLE t (id BIGINT PRIMARY KEY, pad VARCHAR)")
    put(server, "t", [rows(0, 10_000, "0123456789")])  # 10 MB, of which the upper half is never written again
    execute(server, "OPTIMIZE t")
    folder, peak = server.dataset("t"), 0
    for i in range(30):
        put(server, "t", [rows(j, 250, "abcdefghij") for j in range(i % 7 * 250, 5000, 7 * 250)] * 2)
        execute(server, "OPTIMIZE t", "VACUUM t")
        peak = max(peak, sum((folder / "data" / f).stat().st_size for f in files(folder / "data")))
    live = 10_000 * 1_020
    print(f"{peak / live:.2f} times the live data at the peak")
    assert peak <= 2.7 * live
    dataset = lance.dataset(str(folder))
    assert dataset.count_rows() == 10_000 == len(set(dataset.to_table(columns=["id"])["id"].to_pylist()))
    assert dataset.to_table(filter="id = 4999").num_rows == 1, "by its index"
    assert scalar(server, "SELECT count(*) FROM t") == 10_000
    assert scalar(server, "SELECT count(*) FROM t WHERE pad LIKE 'abc%'") == 5000
