"""What Lance's MemWAL writers left in front of a dataset becomes the table's, once; and their readers read flightd's."""

import pathlib
import subprocess
import sys

import lance
import pyarrow as pa
import pytest
from lance.mem_wal import LsmPointLookupPlanner

import memwal
from clients import execute, put, query, scalar

SCRIPT = pathlib.Path(memwal.__file__)


def shown(server):
    return memwal.sorted_rows(query(server, "FROM docs"))


@pytest.mark.parametrize("version", ["2.0", "2.2"])
@pytest.mark.parametrize("kind", list(memwal.KEYS))
def test_what_a_writer_of_lance_left_is_taken_in(new_server, tmp_path, kind, version):
    server = new_server()
    root = str(server.dataset("docs"))
    assert subprocess.run([sys.executable, str(SCRIPT), root, kind, version], timeout=100).returncode == -9
    want = memwal.as_lance_reads(root, tmp_path / "copy.lance", bool(memwal.KEYS[kind]))
    assert len(want) > 380 and {r["n"] for r in want} >= {7003, 8008, 9009}
    assert want != memwal.sorted_rows(lance.dataset(root).to_table())

    server.start()
    assert shown(server) == want
    assert scalar(server, "SELECT count(*) FROM docs WHERE n = 9009") == 1
    server.kill()
    server.start()
    assert shown(server) == want
    for shard in memwal.SHARDS:
        folder = server.dataset("docs") / "_mem_wal" / shard
        assert [p.name for p in folder.iterdir() if "_gen_" in p.name] == []
        with pytest.raises(OSError, match="sealed"):
            lance.dataset(root).mem_wal_writer(shard)

    key = memwal.KEYS[kind]
    put(server, "docs", memwal.rows(key, [7, 2000], 50).to_batches())
    if key:
        execute(server, "DELETE FROM docs WHERE id BETWEEN 30 AND 35")
    execute(server, "OPTIMIZE docs")
    fresh = shown(server)
    assert fresh != want
    assert memwal.sorted_rows(lance.dataset(root).to_table()) == fresh
    assert lance.dataset(root).data_storage_version == version
    server.restart()
    assert shown(server) == fresh


def test_a_writer_that_is_alive_is_fenced(new_server):
    server = new_server()
    writer = subprocess.Popen([sys.executable, str(SCRIPT), str(server.dataset("docs")), "int", "2.0", "stay"],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert writer.stdout.readline() == "written\n"
        server.start()
        rows = shown(server)
        assert {r["n"] for r in rows} >= {7003, 8008, 9009}
        writer.stdin.write("go\n")
        writer.stdin.flush()
        answer = writer.stdout.readline()
        assert answer.startswith("refused:") and "fenced" in answer.lower(), answer
        server.restart()
        assert shown(server) == rows
    finally:
        writer.kill()
        writer.wait()


def test_a_writer_in_front_of_a_table_of_flightd(server):
    execute(server, "CREATE TABLE docs (id BIGINT PRIMARY KEY, v VARCHAR)", "INSERT INTO docs SELECT i, 'ours' FROM range(10) t(i)", "OPTIMIZE docs",
            "UPDATE docs SET v = 'newer' WHERE id = 3")
    server.kill()
    ds = lance.dataset(str(server.dataset("docs")))
    theirs = pa.table({"id": [3, 4, 20], "v": ["theirs"] * 3}, schema=ds.schema)
    with ds.mem_wal_writer(memwal.SHARDS[0]) as w:
        w.put(theirs)
        w.delete(theirs.select(["id"]).slice(1, 1))
    writer = ds.mem_wal_writer(memwal.SHARDS[0])
    writer.put(theirs.slice(2, 1))  # has no generation
    checked = server.check()
    assert checked.returncode == 0 and "of other MemWAL writers: 1 shard, with 2 log entries" in checked.stdout, checked.stdout
    server.start()
    want = {i: "ours" for i in range(10) if i != 4} | {3: "theirs", 20: "theirs"}
    assert {r["id"]: r["v"] for r in query(server, "FROM docs").to_pylist()} == want
    execute(server, "OPTIMIZE docs")
    assert {r["id"]: r["v"] for r in lance.dataset(str(server.dataset("docs"))).to_table().to_pylist()} == want


KEY_SQL = {"int": "id BIGINT PRIMARY KEY, name VARCHAR", "text": "id BIGINT, name VARCHAR PRIMARY KEY", "both": "id BIGINT, name VARCHAR, PRIMARY KEY (name, id)"}


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("kind", list(KEY_SQL))
def test_readers_of_lance_answer_as_flightd_does(new_server, kind, shards):
    server = new_server("--compaction-rate", "1KiB").start()
    execute(server, f"CREATE TABLE docs ({KEY_SQL[kind]}, n INTEGER, pad VARCHAR) WITH (shards = {shards})")
    rows = "SELECT i, 'name ' || i, {n} + i, NULL FROM range({first}, {last}) t(i)"
    execute(server, "INSERT INTO docs " + rows.format(n=0, first=0, last=100), "OPTIMIZE docs")
    for step in range(3 if shards == 1 else 2):
        execute(server, f"INSERT INTO docs {rows.format(n=1000 * step, first=20 * step, last=20 * step + 60)} ON CONFLICT DO UPDATE SET n = excluded.n",
                f"DELETE FROM docs WHERE id % 7 = {step}", f"UPDATE docs SET n = -id WHERE id % 11 = {step}",
                # More than a stage holds in memory: it becomes a generation, and so does what came before it.
                f"INSERT INTO docs SELECT i, 'name ' || i, i, repeat('x', 2000000) FROM range({200 + 10 * step}, {218 + 10 * step}) t(i) ON CONFLICT DO UPDATE SET n = docs.n + 1")
    assert query(server, "SELECT sum(rows) AS n FROM flightd_catalog.generations").to_pylist()[0]["n"] > 0
    server.kill()  # or generations would be in the base before Lance has read them
    root = str(server.dataset("docs"))
    folders = [p.name for p in (server.dataset("docs") / "_mem_wal").iterdir()]
    generations = list((server.dataset("docs") / "_mem_wal").glob("*/*_gen_*"))
    assert len(folders) == shards and len(generations) >= shards
    snapshots = [memwal.snapshot(root, shard) for shard in folders]
    ds = lance.dataset(root)
    wheres = "true", "n > 500", "n < 0 AND id > 30", "id BETWEEN 35 AND 44", "name = 'name 41'", "id IN (1, 41, 205, 77777)", "n IS NULL"
    scan = lambda: lance.LsmScanner.from_snapshots(ds, snapshots)  # noqa: E731
    scanned = {where: memwal.sorted_rows(scan().project(["id", "name", "n"]).filter(where).to_table()) for where in wheres}
    count = scan().count_rows()
    planner = LsmPointLookupPlanner(ds, snapshots)
    found = {}
    for i in *range(0, 60, 3), 205, 219, 5000:
        values = {"id": pa.array([i], pa.int64()), "name": pa.array([f"name {i}"])}
        key = [values[c] for c in memwal.KEYS[kind]]
        key = key[0] if len(key) == 1 else pa.StructArray.from_arrays(key, memwal.KEYS[kind])
        found[f"id = {i}"] = planner.plan_lookup(key, ["id", "name", "n"]).to_table().to_pylist()

    server.start()
    for where, rows in (scanned | found).items():
        assert rows == memwal.sorted_rows(query(server, f"SELECT id, name, n FROM docs WHERE {where}")), where
    assert count == scalar(server, "SELECT count(*) FROM docs")
