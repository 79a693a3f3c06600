"""Datasets that pylance left in the data folder are tables: read, written, and read by pylance again."""

import os

import lance
import pyarrow as pa
import pytest

from clients import adbc, execute, put, query, refused, scalar

KEY = {"lance-schema:unenforced-primary-key": "true"}


def write(server, name, version, keyed, **options):
    """Writes rows 0 to 99 in three fragments, drops a column, adds one and deletes the rows 3, 13, ..."""
    schema = pa.schema([
        pa.field("id", pa.int64(), nullable=False, metadata=KEY if keyed else None), pa.field("junk", pa.string()),
        pa.field("body", pa.string()), pa.field("vec", pa.list_(pa.float32(), 4))])
    rows = pa.table({"id": range(100), "junk": ["x"] * 100, "body": [None if i % 7 == 0 else f"text {i}" for i in range(100)],
                     "vec": [[float(i)] * 4 for i in range(100)]}, schema=schema)
    ds = lance.write_dataset(rows, str(server.dataset(name)), data_storage_version=version, max_rows_per_file=40, **options)
    ds.drop_columns(["junk"])
    ds.add_columns({"twice": "id * 2"})
    ds.delete("id % 10 = 3")
    return expected(ds)


def expected(ds):
    return sorted(ds.to_table().to_pylist(), key=lambda r: r["id"])


@pytest.mark.parametrize("version", ["2.0", "2.2"])
@pytest.mark.parametrize("keyed", [True, False])
def test_a_dataset_of_pylance_is_a_table(new_server, version, keyed):
    server = new_server()
    rows = {r["id"]: r for r in write(server, "docs", version, keyed)}
    assert len(rows) == 90
    server.start()

    def check():
        want = [rows[i] for i in sorted(rows)]
        assert query(server, "FROM docs ORDER BY id").to_pylist() == want
        return want

    check()
    assert scalar(server, "SELECT count(*) FROM docs WHERE body IS NULL AND twice > 20") == sum(r["body"] is None and r["twice"] > 20 for r in rows.values())
    with adbc(server) as connection:
        field = connection.adbc_get_table_schema("docs").field("vec")
        assert field.type == pa.list_(pa.float32(), 4)
    execute(server, "INSERT INTO docs VALUES (1000, 'new', [1, 2, 3, 4], 5)")
    rows[1000] = {"id": 1000, "body": "new", "vec": [1.0, 2.0, 3.0, 4.0], "twice": 5}
    check()
    if keyed:
        with refused("ALREADY_EXISTS", "key"):
            execute(server, "INSERT INTO docs VALUES (1, 'again', NULL, 0)")
        put(server, "docs", [pa.RecordBatch.from_pydict({"id": [1, 3, 99], "body": ["one", "three", None], "twice": pa.array([0, 0, 0], pa.int64())})])
        for i, body in (1, "one"), (3, "three"), (99, None):
            rows[i] = {"id": i, "body": body, "vec": None, "twice": 0}
    execute(server, "UPDATE docs SET body = 'seven' WHERE id = 7", "DELETE FROM docs WHERE id BETWEEN 20 AND 29")
    rows[7]["body"] = "seven"
    rows = {i: r for i, r in rows.items() if not 20 <= i <= 29}
    check()

    server.kill()
    server.start()
    check()
    execute(server, "OPTIMIZE docs")
    want = check()
    ds = lance.dataset(str(server.dataset("docs")))
    assert expected(ds) == want and ds.data_storage_version == version
    execute(server, "ALTER TABLE docs ADD COLUMN lang VARCHAR DEFAULT 'en'", "CREATE INDEX t ON docs USING BTREE (twice)", "OPTIMIZE docs")
    ds = lance.dataset(str(server.dataset("docs")))
    assert expected(ds) == query(server, "FROM docs ORDER BY id").to_pylist() == [r | {"lang": "en"} for r in want]


def test_what_cannot_be_served_does_not_keep_others_from_it(new_server):
    server = new_server()
    want = write(server, "later", "2.1", True)
    write(server, "good", "2.0", True)
    write(server, "broken", "2.2", True)
    for name in os.listdir(server.dataset("broken") / "_versions"):
        (server.dataset("broken") / "_versions" / name).write_bytes(b"no manifest")
    lance.write_dataset(pa.table({"id": [1]}), str(server.dataset("stable")), enable_stable_row_ids=True)
    server.start()

    assert scalar(server, "SELECT count(*) FROM good") == 90
    for sql in "FROM stable", "INSERT INTO stable VALUES (2)", "DROP TABLE IF EXISTS stable", "CREATE OR REPLACE TABLE stable AS SELECT 1 AS x", "CREATE TABLE IF NOT EXISTS stable (x INT)":
        with refused("FAILED_PRECONDITION", "feature flag 1 (stable row ids)"):
            execute(server, sql)
    with refused("FAILED_PRECONDITION", "feature flag 1 (stable row ids)"):
        put(server, "stable", [pa.RecordBatch.from_pydict({"id": [2]})])
    with refused("DATA_LOSS", "broken.lance"):
        execute(server, "FROM broken")
    assert lance.dataset(str(server.dataset("stable"))).to_table().to_pylist() == [{"id": 1}]

    assert query(server, "FROM later ORDER BY id").to_pylist() == want
    for sql in "INSERT INTO later VALUES (200, NULL, NULL, 0)", "DELETE FROM later WHERE id = 1", "OPTIMIZE later", "ALTER TABLE later ADD COLUMN n INT", "CREATE INDEX i ON later USING BTREE (twice)":
        with refused("FAILED_PRECONDITION", "2.1", "copy the table with CREATE TABLE"):
            execute(server, sql)
    with refused("FAILED_PRECONDITION", "2.1"):
        put(server, "later", [pa.RecordBatch.from_pydict({"id": [1], "twice": [2]})])
    execute(server, "CREATE TABLE copy AS FROM later")
    assert query(server, "FROM copy ORDER BY id").to_pylist() == want
