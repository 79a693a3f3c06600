"""Datasets that pylance left in the data folder are tables: read, written, and read by pylance again."""

import os

import lance
import pyarrow as pa
import pytest
from lance.blob import blob_array, blob_field

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


@pytest.mark.parametrize("version", ["2.0", "2.1", "2.2"])
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
    want = pa.table({"id": range(9), "word": pa.array(["w"] * 9).cast(pa.dictionary(pa.int8(), pa.string()))})
    lance.write_dataset(want, str(server.dataset("narrow")))
    write(server, "good", "2.0", True)
    write(server, "broken", "2.2", True)
    for name in os.listdir(server.dataset("broken") / "_versions"):
        (server.dataset("broken") / "_versions" / name).write_bytes(b"no manifest")
    boxes = pa.table({"b": pa.array([[{"x": 1}, {"x": 2}]], pa.list_(pa.struct([("x", pa.int64())]), 2))})
    lance.write_dataset(boxes, str(server.dataset("boxes")), data_storage_version="2.2")
    ids = write(server, "stable", "2.2", True, enable_stable_row_ids=True)
    server.start()

    assert scalar(server, "SELECT count(*) FROM good") == 90
    for sql in "FROM boxes", "INSERT INTO boxes VALUES (2)", "DROP TABLE IF EXISTS boxes", "CREATE OR REPLACE TABLE boxes AS SELECT 1 AS x", "CREATE TABLE IF NOT EXISTS boxes (x INT)":
        with refused("FAILED_PRECONDITION", "not supported"):
            execute(server, sql)
    with refused("FAILED_PRECONDITION", "not supported"):
        put(server, "boxes", [pa.RecordBatch.from_pydict({"id": [2]})])
    with refused("DATA_LOSS", "broken.lance"):
        execute(server, "FROM broken")
    assert query(server, "FROM stable ORDER BY id").to_pylist() == ids
    with refused("FAILED_PRECONDITION", "feature flag 1 (stable row ids)"):
        execute(server, "CREATE INDEX i ON stable USING BTREE (twice)")
    execute(server, "INSERT INTO stable VALUES (2000, NULL, NULL, 1)", "DELETE FROM stable WHERE id = 1", "OPTIMIZE stable")
    rows = [r for r in ids if r["id"] != 1] + [{"id": 2000, "body": None, "vec": None, "twice": 1}]
    ds = lance.dataset(str(server.dataset("stable")))
    ds.validate()
    assert expected(ds) == rows

    assert query(server, "FROM narrow ORDER BY id").to_pylist() == want.to_pylist()
    for sql in "INSERT INTO narrow VALUES (200, NULL)", "DELETE FROM narrow WHERE id = 1", "OPTIMIZE narrow", "ALTER TABLE narrow ADD COLUMN n INT", "CREATE INDEX i ON narrow USING BTREE (id)":
        with refused("FAILED_PRECONDITION", "indices of int8", "copy the table with CREATE TABLE"):
            execute(server, sql)
    with refused("FAILED_PRECONDITION", "indices of int8"):
        put(server, "narrow", [pa.RecordBatch.from_pydict({"id": [1], "word": ["x"]})])
    execute(server, "CREATE TABLE copy AS FROM narrow")
    assert query(server, "FROM copy ORDER BY id").to_pylist() == want.to_pylist()


def test_indexes_of_pylance_that_we_do_not_write_are_used(new_server):
    """BITMAP and LABEL_LIST: the rows are the same with and without the index, and EXPLAIN names it."""
    server = new_server()
    n = 5000

    def rows(first, n):
        ids = range(first, first + n)
        return pa.table({
            "id": pa.array(ids, pa.int64()),
            "kind": [None if i % 97 == 0 else ["a", "b", "it's"][i * i % 3] if i % 500 else "rare" for i in ids],
            "tags": pa.array([None if i % 89 == 0 else [] if i % 71 == 0 else [f"t{i % 70}", None, f"t{i % 90}"] for i in ids], pa.list_(pa.string())),
            "marks": pa.array([[i % 120, i % 130] for i in ids], pa.large_list(pa.int16())),
            "copy": pa.array([None if i % 89 == 0 else [] if i % 71 == 0 else [f"t{i % 70}", None, f"t{i % 90}"] for i in ids], pa.list_(pa.string())),
        })

    path = str(server.dataset("docs"))
    ds = lance.write_dataset(rows(0, n), path, data_storage_version="2.0", max_rows_per_file=2000)
    ds.create_scalar_index("kind", "BITMAP", name="kinds")
    ds.create_scalar_index("tags", "LABEL_LIST", name="labels")
    ds.create_scalar_index("marks", "LABEL_LIST", name="marked")
    ds.delete("id % 100 = 17")
    server.start()
    shown = {(r["index_name"], r["index_type"]) for r in query(server, "SHOW INDEXES ON docs").to_pylist()}
    assert shown == {("kinds", "BITMAP"), ("labels", "LABEL_LIST"), ("marked", "LABEL_LIST")}

    def check():
        for where, twin, index in [
            ("kind = 'rare'", "kind || '' = 'rare'", "kinds"),
            ("kind IN ('rare', 'none')", "kind || '' = 'rare'", "kinds"),
            ("list_contains(tags, 't3')", "list_contains(copy, 't3')", "labels"),
            ("array_has(tags, 't69') AND array_has(tags, 't19')", "array_has(copy, 't69') AND array_has(copy, 't19')", "labels"),
            ("list_has_any(tags, ['t5', 't88'])", "list_has_any(copy, ['t5', 't88'])", "labels"),
            ("list_has_all(tags, ['t5', 't75'])", "list_has_all(copy, ['t5', 't75'])", "labels"),
            ("tags && ['t6', NULL]", "copy && ['t6', NULL]", None),
            ("list_has_any(tags, [])", "list_has_any(copy, [])", None),
            ("list_has_all(tags, [])", "list_has_all(copy, [])", None),
            ("list_contains(marks, 125)", "list_contains(marks || [], 125)", "marked"),
            ("NOT list_contains(tags, 't3')", "NOT list_contains(copy, 't3')", None),
            ("list_contains(tags, NULL)", "list_contains(copy, NULL)", None),
        ]:
            got = query(server, f"SELECT id FROM docs WHERE {where} ORDER BY id")
            assert got == query(server, f"SELECT id FROM docs WHERE {twin} ORDER BY id"), where
            if index:
                assert got.num_rows > 0, where
                plan = query(server, f"EXPLAIN SELECT id FROM docs WHERE {where}").to_pylist()
                assert index in str(plan), (where, plan)

    check()
    execute(server, "INSERT INTO docs VALUES (100000, 'rare', ['t3', 't88'], [125], ['t3', 't88'])")
    check()
    execute(server, "OPTIMIZE docs", "DELETE FROM docs WHERE id < 50", "UPDATE docs SET tags = ['t3'], copy = ['t3'] WHERE id BETWEEN 60 AND 70")
    check()
    lance.dataset(path).optimize.optimize_indices()
    check()
    ds = lance.dataset(path)
    for filter in "kind = 'rare'", "array_has_any(tags, ['t5', 't88'])":
        want = ds.scanner(filter=filter, use_scalar_index=False).to_table()
        assert ds.to_table(filter=filter).num_rows == want.num_rows == scalar(server, f"SELECT count(*) FROM docs WHERE {filter}")
    execute(server, "DROP INDEX kinds ON docs")
    assert {x.name for x in lance.dataset(path).describe_indices() if not x.name.startswith("__")} == {"labels", "marked"}


def test_columns_that_pylance_changes_are_there_for_the_next_statement(server):
    execute(server, "CREATE TABLE t (id BIGINT PRIMARY KEY, a INT, b VARCHAR)", "INSERT INTO t VALUES (1, 10, 'one'), (2, 20, 'two')", "OPTIMIZE t",
            "INSERT INTO t VALUES (3, 30, 'three')")
    ds = lance.dataset(str(server.dataset("t")))
    ds.add_columns(pa.schema([pa.field("score", pa.float32())]))
    assert query(server, "SELECT id, score FROM t ORDER BY id").to_pylist() == [{"id": i, "score": None} for i in (1, 2, 3)]
    execute(server, "UPDATE t SET score = id / 2 WHERE id > 1", "INSERT INTO t (id, score) VALUES (4, 2)")
    ds = lance.dataset(str(server.dataset("t")))
    ds.drop_columns(["b"])
    ds.alter_columns({"path": "a", "name": "n"})
    want = [{"id": 1, "n": 10, "score": None}, {"id": 2, "n": 20, "score": 1}, {"id": 3, "n": 30, "score": 1.5}, {"id": 4, "n": None, "score": 2}]
    assert query(server, "FROM t ORDER BY id").to_pylist() == want
    put(server, "t", [pa.RecordBatch.from_pydict({"id": [5], "n": pa.array([50], pa.int32()), "score": pa.array([2.5], pa.float32())})])
    want.append({"id": 5, "n": 50, "score": 2.5})
    execute(server, "ALTER TABLE t ADD COLUMN lang VARCHAR DEFAULT 'en'", "OPTIMIZE t")
    want = [r | {"lang": "en"} for r in want]
    assert query(server, "FROM t ORDER BY id").to_pylist() == want == expected(lance.dataset(str(server.dataset("t"))))
    server.restart()
    assert query(server, "FROM t ORDER BY id").to_pylist() == want
    lance.dataset(str(server.dataset("t"))).drop_columns(["id"])
    assert query(server, "FROM t ORDER BY id").to_pylist() == want
    with refused("FAILED_PRECONDITION", 'no column "id" any more', "restore"):
        execute(server, "INSERT INTO t (id) VALUES (6)")
    ds = lance.dataset(str(server.dataset("t")))
    lance.dataset(ds.uri, version=ds.version - 1).restore()
    execute(server, "INSERT INTO t (id) VALUES (6)")
    assert scalar(server, "SELECT count(*) FROM t") == 6


@pytest.mark.parametrize("version", ["2.0", "2.1", "2.2"])
def test_forms_of_columns_are_read_and_written_on(new_server, version):
    """JSON of Lance, blobs, packed structs, dictionaries of numbers and compressed buffers are read, and all but blobs written
    on, for pylance to read. A blob that lies elsewhere is no damage."""
    server = new_server()
    n = 1000
    ids = pa.array(range(n), pa.int64())

    def write_column(name, column, field):
        lance.write_dataset(pa.table([ids, column], schema=pa.schema([pa.field("id", pa.int64()), field])), str(server.dataset(name)), data_storage_version=version)

    marks = {"packed": "true", "lance-encoding:packed": "true"}
    points = pa.array([{"x": i, "y": i / 2} for i in range(n)], pa.struct([("x", pa.int64()), ("y", pa.float64())]))
    write_column("packed", points, pa.field("c", points.type, metadata=marks))
    values = [None if i % 7 == 3 else bytes([i % 256]) * i for i in range(n)]
    if version < "2.2":
        write_column("blobs", pa.array(values, pa.large_binary()), pa.field("c", pa.large_binary(), metadata={"lance-encoding:blob": "true"}))
    else:
        values[5], values[6] = b"x" * 100_000, b"y" * (5 << 20)
        write_column("blobs", blob_array(values), blob_field("c"))
    texts = [None if i % 5 == 1 else f'{{"a":{i},"b":[1,"x",null]}}' for i in range(n)]
    write_column("json", pa.ExtensionArray.from_storage(pa.json_(), pa.array(texts)), pa.field("c", pa.json_()))
    numbers = pa.array([None if i % 9 == 4 else i % 3 for i in range(n)], pa.int64())
    write_column("numbers", numbers.dictionary_encode(), pa.field("c", pa.dictionary(pa.int32(), pa.int64())))
    words = [f"word {i * i}" for i in range(n)]
    write_column("words", pa.array(words), pa.field("c", pa.string(), metadata={"lance-encoding:compression": "zstd"}))
    server.start()

    got = {t: query(server, f"SELECT c FROM {t} ORDER BY id").column("c") for t in ("packed", "blobs", "json", "numbers", "words")}
    assert got["packed"].to_pylist() == points.to_pylist()
    assert got["blobs"].type == pa.large_binary() and got["blobs"].to_pylist() == values
    assert got["json"].type == pa.json_() and got["json"].to_pylist() == texts
    assert got["numbers"].type == pa.dictionary(pa.int32(), pa.int64()) and got["numbers"].to_pylist() == numbers.to_pylist()
    assert got["words"].to_pylist() == words
    assert query(server, "SELECT c FROM blobs WHERE id IN (6, 900, 10, 5)").num_rows == 4
    assert scalar(server, "SELECT sum(octet_length(c)) FROM blobs") == sum(len(v) for v in values if v)
    assert scalar(server, "SELECT sum(c.x) FROM packed") == n * (n - 1) // 2
    assert scalar(server, "SELECT count(*) FROM numbers WHERE c = 2") == numbers.to_pylist().count(2)
    with refused("FAILED_PRECONDITION", 'column "c": blobs', "copy the table with CREATE TABLE"):
        execute(server, "DELETE FROM blobs WHERE id = 1")
    for table in "packed", "blobs", "json", "numbers":
        execute(server, f"CREATE TABLE {table}_copy AS FROM {table}", f"OPTIMIZE {table}_copy")
        assert query(server, f"SELECT c FROM {table}_copy ORDER BY id").column("c").to_pylist() == got[table].to_pylist()
        copied = lance.dataset(str(server.dataset(f"{table}_copy"))).to_table().sort_by("id").column("c")
        assert copied.to_pylist() == got[table].to_pylist()
    with refused("INVALID_ARGUMENT", '"c"', '"x" of row 0 is null', "packed structs"):
        execute(server, "INSERT INTO packed VALUES (1000, {x: NULL, y: 1})")
    with refused("INVALID_ARGUMENT", '"c"', "row 1 is no JSON"):
        put(server, "json", [pa.RecordBatch.from_arrays([pa.array([1000, 1001]), pa.ExtensionArray.from_storage(pa.json_(), pa.array(["1", "{x}"]))], ["id", "c"])])
    new = {"packed": ("{x: -7, y: 0.25}", {"x": -7, "y": 0.25}), "json": ("""'{"b": [1.5, "x"], "a": null}'""", '{"a":null,"b":[1.5,"x"]}'), "numbers": ("77", 77)}
    for table, (sql, value) in new.items():
        execute(server, f"INSERT INTO {table} VALUES (1000, {sql}), (1001, {'NULL' if table != 'packed' else sql})", f"UPDATE {table} SET c = {sql} WHERE id IN (3, 500)",
                f"DELETE FROM {table} WHERE id = 8", f"ALTER TABLE {table} ADD COLUMN more INT DEFAULT 5", f"OPTIMIZE {table}", f"INSERT INTO {table} VALUES (1002, {sql}, 6)", f"OPTIMIZE {table}")
        want = dict(enumerate(got[table].to_pylist())) | {3: value, 500: value, 1000: value, 1001: value if table == "packed" else None, 1002: value}
        del want[8]
        ds = lance.dataset(str(server.dataset(table)))
        assert ds.data_storage_version == version
        for rows in (query(server, f"FROM {table}"), ds.to_table()):
            assert rows.schema.field("c").type == got[table].type
            assert dict(zip(rows.column("id").to_pylist(), rows.column("c").to_pylist())) == want
            assert dict(zip(rows.column("id").to_pylist(), rows.column("more").to_pylist())) == {i: 6 if i == 1002 else 5 for i in want}
        ds.delete("id = 9")
        lance.write_dataset(ds.to_table().slice(0, 10), ds.uri, mode="append")
        assert scalar(server, f"SELECT count(*) FROM {table}") == len(want) + 9
    execute(server, "INSERT INTO words VALUES (1000, 'more')", "OPTIMIZE words")
    assert lance.dataset(str(server.dataset("words"))).count_rows() == n + 1


def test_keys_are_declared_by_sql_and_by_pylance(new_server):
    """A table without a key only appends until one is declared; two rows with one key are in its way, and are named."""
    server = new_server()
    rows = pa.table({"id": [1, 2, 2], "body": ["one", "two", "again"]}, schema=pa.schema([pa.field("id", pa.int64(), nullable=False), ("body", pa.string())]))
    for name in "ours", "theirs":
        lance.write_dataset(rows, str(server.dataset(name)))
    server.start()
    with refused("FAILED_PRECONDITION", "two rows have the key id = 2"):
        execute(server, "ALTER TABLE ours ADD PRIMARY KEY (id)")
    execute(server, "DELETE FROM ours WHERE body = 'two'", "ALTER TABLE ours ADD PRIMARY KEY (id)")
    with refused("FAILED_PRECONDITION", "primary key"):
        execute(server, "ALTER TABLE ours ADD CONSTRAINT pk PRIMARY KEY (id)")
    lance.dataset(str(server.dataset("theirs"))).update_field_metadata({"id": KEY})
    with refused("FAILED_PRECONDITION", "two rows have the key id = 2"):
        execute(server, "INSERT INTO theirs VALUES (3, 'three')")
    assert scalar(server, "SELECT count(*) FROM theirs") == 3
    lance.dataset(str(server.dataset("theirs"))).delete("body = 'two'")
    for name in "ours", "theirs":
        put(server, name, [pa.RecordBatch.from_pydict({"id": [1, 4], "body": ["uno", "four"]})])
        want = [{"id": 1, "body": "uno"}, {"id": 2, "body": "again"}, {"id": 4, "body": "four"}]
        assert query(server, f"FROM {name} ORDER BY id").to_pylist() == want
        with refused("ALREADY_EXISTS", "key"):
            execute(server, f"INSERT INTO {name} VALUES (1, 'eins')")
        execute(server, f"OPTIMIZE {name}")
        ds = lance.dataset(str(server.dataset(name)))
        assert expected(ds) == want and ds.schema.field("id").metadata[b"lance-schema:unenforced-primary-key"] == b"true"


def test_unmerged_rows_are_discarded(new_server):
    """An overwrite below rows that are not merged leaves two ways out, which the error names; one drops the rows."""
    server = new_server()
    server.start()
    execute(server, "CREATE TABLE docs (id BIGINT PRIMARY KEY, body VARCHAR)", "INSERT INTO docs VALUES (1, 'one')", "OPTIMIZE docs",
            "INSERT INTO docs VALUES (2, 'two'), (3, 'three')")
    ds = lance.dataset(str(server.dataset("docs")))
    lance.write_dataset(pa.table({"id": [9], "body": ["new"]}, schema=ds.schema), ds.uri, mode="overwrite")
    with refused("FAILED_PRECONDITION", "CALL flightd_discard"):
        execute(server, "INSERT INTO docs VALUES (4, 'four')")
    assert query(server, "CALL flightd_discard('docs')").to_pylist() == [{"table_schema": "main", "table_name": "docs", "dropped_rows": 2}]
    assert query(server, "CALL flightd_discard('docs')")["dropped_rows"].to_pylist() == [0]
    execute(server, "INSERT INTO docs VALUES (4, 'four')")
    server.kill()
    server.start()
    assert query(server, "SELECT id FROM docs ORDER BY id")["id"].to_pylist() == [4, 9]


def test_tags_hold_versions(new_server):
    server = new_server("--retain", "0s")
    server.start()
    execute(server, "CREATE TABLE docs (id BIGINT PRIMARY KEY, body VARCHAR)", "INSERT INTO docs VALUES (1, 'one')")
    tagged = query(server, "CALL flightd_tag('docs', 'first')").to_pylist()[0]["version"]
    with refused("ALREADY_EXISTS", "first"):
        execute(server, "CALL flightd_tag('docs', 'first')")
    with refused("INVALID_ARGUMENT", "letters"):
        execute(server, "CALL flightd_tag('docs', 'a/b')")
    with refused("NOT_FOUND", "999"):
        execute(server, "CALL flightd_tag('docs', 'later', 999)")
    execute(server, "UPDATE docs SET body = 'two'", "OPTIMIZE docs", "VACUUM docs")
    assert query(server, "SELECT name, kind, version FROM flightd_catalog.tags").to_pylist() == [{"name": "first", "kind": "tag", "version": tagged}]
    assert scalar(server, "SELECT body FROM docs AT (TAG => 'first')") == "one"
    ds = lance.dataset(str(server.dataset("docs")))
    assert ds.tags.list()["first"]["version"] == tagged and ds.checkout_version("first").to_table()["body"].to_pylist() == ["one"]
    execute(server, f"CALL flightd_tag('docs', 'same', {tagged})")
    for name in "first", "same":
        assert query(server, f"CALL flightd_untag('docs', '{name}')")["version"].to_pylist() == [tagged]
    with refused("NOT_FOUND", "first"):
        execute(server, "CALL flightd_untag('docs', 'first')")
    execute(server, "VACUUM docs")
    with refused("NOT_FOUND", str(tagged)):
        query(server, f"FROM docs AT (VERSION => {tagged})")


def test_defaults_outlive_columns_that_pylance_changes(server):
    """A DEFAULT stays with its column, whatever name pylance gives to it and whatever comes and goes beside it."""
    execute(server, "CREATE TABLE docs (id BIGINT PRIMARY KEY, lang VARCHAR DEFAULT 'e(n' NOT NULL, n INTEGER DEFAULT 1 + 2, gone INTEGER DEFAULT 7)", "INSERT INTO docs (id) VALUES (1)", "OPTIMIZE docs")
    ds = lance.dataset(str(server.dataset("docs")))
    ds.alter_columns({"path": "lang", "name": "language"})
    ds.drop_columns(["gone"])
    ds.add_columns(pa.schema([pa.field("new", pa.int32())]))
    execute(server, "INSERT INTO docs (id) VALUES (2)")
    want = [{"id": i, "language": "e(n", "n": 3, "new": None} for i in (1, 2)]
    assert query(server, "FROM docs ORDER BY id").to_pylist() == want
    server.kill()
    server.start()
    ds = lance.dataset(str(server.dataset("docs")))
    ds.alter_columns({"path": "n", "name": "number"})
    execute(server, "INSERT INTO docs (id) VALUES (3)", "ALTER TABLE docs ALTER number SET DEFAULT 9", "INSERT INTO docs (id) VALUES (4)")
    assert query(server, "SELECT language, number, new FROM docs WHERE id > 2 ORDER BY id").to_pylist() == [
        {"language": "e(n", "number": 3, "new": None}, {"language": "e(n", "number": 9, "new": None}]
