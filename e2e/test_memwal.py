"""What Lance's MemWAL writers left in front of a dataset becomes the table's, once; and their readers read flightd's."""

import pathlib
import subprocess
import sys

import lance
import pyarrow as pa
import pytest

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
    server.start()
    want = {i: "ours" for i in range(10) if i != 4} | {3: "theirs", 20: "theirs"}
    assert {r["id"]: r["v"] for r in query(server, "FROM docs").to_pylist()} == want
    execute(server, "OPTIMIZE docs")
    assert {r["id"]: r["v"] for r in lance.dataset(str(server.dataset("docs"))).to_table().to_pylist()} == want
