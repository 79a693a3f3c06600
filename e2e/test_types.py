"""The type matrix: every type, with and without nulls, in batches of many sizes, from memory, log, generations and base."""

import decimal
import uuid

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute
import pytest

import rows
from clients import adbc, execute, put, query, query_flight, refused

ROWS = 300
POINT = pa.struct([("x", pa.int64()), ("half", pa.float16()), ("name", pa.large_string())])
TYPES = [
    pa.bool_(), pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64(),
    pa.float16(), pa.float32(), pa.float64(), pa.string(), pa.large_string(), pa.binary(), pa.large_binary(), pa.binary(5),
    pa.date32(), pa.date64(), pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns"),
    *(pa.timestamp(u) for u in ("s", "ms", "us", "ns")), *(pa.timestamp(u, "Europe/Berlin") for u in ("s", "ms", "us", "ns")),
    *(pa.duration(u) for u in ("s", "ms", "us", "ns")), pa.decimal128(5, 2), pa.decimal128(38, 10),
    pa.list_(pa.float32(), 4), pa.list_(pa.float16(), 3), pa.list_(pa.bool_(), 2), pa.list_(pa.binary(3), 2),
    pa.list_(pa.int32()), pa.large_list(pa.string()), pa.list_(pa.date64()), pa.list_(pa.timestamp("ns", "UTC")),
    pa.list_(pa.list_(pa.float16(), 2)), pa.list_(pa.large_list(pa.large_binary())), pa.list_(pa.field("element", pa.bool_())),
    POINT, pa.list_(POINT), pa.large_list(POINT), pa.struct([("in", POINT), ("more", pa.list_(pa.struct([("p", POINT)])))]),
    pa.decimal256(76, 10), pa.decimal256(9, 2), pa.decimal128(5, -2), pa.list_(pa.decimal256(50, 2)), pa.struct([("wide", pa.decimal256(60, 3)), ("n", pa.int32())]),
    pa.null(), pa.list_(pa.null()), pa.struct([("nothing", pa.null())]), pa.timestamp("us", "+02:00"), pa.timestamp("ns", "-03:30"),
    pa.uuid(), pa.json_(), pa.bool8(), pa.list_(pa.uuid()), pa.struct([("u", pa.uuid()), ("j", pa.json_())]), pa.list_(pa.uint16(), 1000),
    *(pa.dictionary(i, pa.string()) for i in (pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64())),
    *(pa.dictionary(pa.int32(), v) for v in (pa.large_string(), pa.binary(), pa.large_binary(), pa.binary(3), pa.int64(), pa.float64(), pa.date32(), pa.decimal128(9, 2), pa.timestamp("us", "UTC"))),
    pa.list_(pa.dictionary(pa.int8(), pa.string())), pa.struct([("d", pa.dictionary(pa.int32(), pa.large_string())), ("i", pa.int32())]),
    pa.list_(pa.struct([("d", pa.dictionary(pa.int16(), pa.string())), ("n", pa.dictionary(pa.int16(), pa.float32()))])), pa.large_list(pa.list_(pa.dictionary(pa.uint8(), pa.binary()))),
    pa.struct([pa.field("always", pa.int32(), nullable=False), pa.field("list", pa.list_(pa.field("item", pa.int8(), nullable=False)))]),
    pa.map_(pa.string(), pa.int32()), pa.map_(pa.int64(), POINT), pa.list_(pa.map_(pa.large_string(), pa.list_(pa.uuid()))), pa.map_(pa.date32(), pa.map_(pa.int16(), pa.float16())),
    pa.map_(pa.binary(3), pa.dictionary(pa.int8(), pa.string())), pa.struct([("m", pa.map_(pa.int32(), pa.decimal256(50, 2))), ("p", POINT)]),
]
NULLS = {"none": lambda i: False, "some": lambda i: i % 5 in (1, 2), "all": lambda i: True}


def make(t, n, null, seed):
    """Makes n values of a type, null where null(i) says so."""
    if isinstance(t, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(t, make(t.storage_type, n, null, seed))
    if pa.types.is_null(t):
        return pa.nulls(n)
    if pa.types.is_dictionary(t):
        return dictionary(t, make(t.value_type, n, null, seed))
    if pa.types.is_struct(t):
        fields = [t.field(k) for k in range(t.num_fields)]
        mask = pa.array([null(i + 1) for i in range(n)], pa.bool_())
        return pa.StructArray.from_arrays([make(f.type, n, allowed(f, null), seed + k) for k, f in enumerate(fields)], fields=fields, mask=mask)
    if pa.types.is_map(t):
        lists = make(pa.list_(t.item_field), n, null, seed)
        keys = leaf(t.key_type, list(range(seed, seed + len(lists.values))))  # neighbours differ
        return pa.MapArray.from_arrays(lists.offsets, keys, lists.values, type=t, mask=lists.is_null())
    if pa.types.is_fixed_size_list(t):
        items = make(t.value_type, n * t.list_size, allowed(t.value_field, null), seed)
        return pa.FixedSizeListArray.from_arrays(items, type=t, mask=pa.array([null(i) for i in range(n)], pa.bool_()))
    if pa.types.is_list(t) or pa.types.is_large_list(t):
        sizes = [0 if null(i) else (i + seed) % 4 for i in range(n)]
        ends = [0, *np.cumsum(sizes).tolist()]
        offsets = pa.array([None if i < n and null(i) else end for i, end in enumerate(ends)], pa.int32() if pa.types.is_list(t) else pa.int64())
        kind = pa.ListArray if pa.types.is_list(t) else pa.LargeListArray
        return kind.from_arrays(offsets, make(t.value_type, ends[-1], allowed(t.value_field, null), seed), type=t)
    return leaf(t, [None if null(i) else i + seed for i in range(n)])


def allowed(field, null):
    return null if field.nullable else NULLS["none"]


def leaf(t, numbers):
    """Turns numbers into values of a type without others in it."""
    def of(fn):
        return [None if i is None else fn(i) for i in numbers]

    if pa.types.is_boolean(t):
        return pa.array(of(lambda i: i % 3 == 0), t)
    if pa.types.is_integer(t):
        low, top = (0, 2**t.bit_width - 1) if pa.types.is_unsigned_integer(t) else (-(2 ** (t.bit_width - 1)), 2 ** (t.bit_width - 1) - 1)
        return pa.array(of(lambda i: (low, top, i % 100)[i % 3]), t)
    if pa.types.is_floating(t):
        return pa.array(of(lambda i: np.float16(i * 0.25 - 7)), pa.float16()).cast(t)
    if pa.types.is_decimal(t):
        return pa.array(of(lambda i: decimal.Decimal(i * 7 - 999).scaleb(-min(t.scale, 2))), t)
    if pa.types.is_string(t) or pa.types.is_large_string(t):
        return pa.array(of(lambda i: "grüße" * (i % 4) + str(i % 9)), t)
    if pa.types.is_fixed_size_binary(t):
        return pa.array(of(lambda i: bytes([i % 256] * t.byte_width)), t)
    if pa.types.is_binary(t) or pa.types.is_large_binary(t):
        return pa.array(of(lambda i: b"\0\xff" * (i % 5)), t)
    # Times of all kinds are numbers underneath; 86,399 is the last second of a day, and a date64 is a whole day.
    if pa.types.is_date64(t):
        return pa.array(of(lambda i: i * 86_400_000), pa.int64()).view(t)
    return pa.array(of(lambda i: i * 977 % 86_399), pa.int64() if t.bit_width == 64 else pa.int32()).view(t)


def dictionary(t, values, null=False):
    """Turns values into a dictionary, which may have, as Arrow may, a null among its values."""
    d = values.dictionary_encode(null_encoding="encode" if null else "mask")
    return pa.DictionaryArray.from_arrays(d.indices.cast(t.index_type), d.dictionary)


def plain(array):
    """Writes dictionaries out as their values: two may have the same values in another order."""
    t = array.type
    if isinstance(t, pa.BaseExtensionType):
        return array.storage
    if pa.types.is_dictionary(t):
        return array.dictionary_decode() if len(array.dictionary) else pa.nulls(len(array), t.value_type)
    if pa.types.is_struct(t):
        parts = [plain(f) for f in array.flatten()]
        return pa.StructArray.from_arrays(parts, [f.name for f in t], mask=array.is_null())
    if pa.types.is_map(t):
        entries = plain(array.values)
        return pa.Array.from_buffers(pa.map_(entries.type[0].type, entries.type[1].type), len(array), array.buffers()[:2], offset=array.offset, children=[entries])
    if pa.types.is_list(t) or pa.types.is_large_list(t):
        items = plain(array.values)
        kind = pa.list_ if pa.types.is_list(t) else pa.large_list
        whole = pa.Array.from_buffers(kind(items.type), len(array), array.buffers()[:2], offset=array.offset, children=[items])
        return whole
    return array


def by_pylance(t):
    """The type by which pylance knows a stored type."""
    if t == pa.json_():  # its own is in another form
        return pa.string()
    if pa.types.is_dictionary(t):  # the order of values, and dictionaries of all types, are not Lance's
        texts = (pa.string(), pa.large_string(), pa.binary(), pa.large_binary())
        index = pa.int32() if t.index_type.bit_width < 32 else t.index_type
        return pa.dictionary(index, t.value_type) if t.value_type in texts else t.value_type
    if pa.types.is_struct(t):
        return pa.struct([f.with_type(by_pylance(f.type)) for f in t])
    if pa.types.is_list(t):
        return pa.list_(t.value_field.with_type(by_pylance(t.value_type)))
    if pa.types.is_large_list(t):
        return pa.large_list(t.value_field.with_type(by_pylance(t.value_type)))
    if pa.types.is_map(t):
        return pa.map_(by_pylance(t.key_type), t.item_field.with_type(by_pylance(t.item_type)))
    return t


def assert_equal_by_pylance(server, want):
    got = lance.dataset(str(server.dataset("t"))).to_table()
    assert [str(t) for t in got.schema.types] == [str(by_pylance(t)) for t in want.schema.types]
    # pyarrow cannot join dictionaries with nulls in them, as Lance has them.
    order = pa.compute.sort_indices(got.column("id"))
    for field in want.schema:
        chunks = [plain(c) for c in got.column(field.name).chunks]
        a, b = pa.concat_arrays(chunks).take(order), plain(rows.one_array(want.column(field.name)))
        assert a.equals(b), f"by pylance: {field}"


def solid(f):
    """The field as files of Lance 2.0 can hold it, in which structs are never null and there are no maps; None if there is no such field."""
    t = f.type
    if pa.types.is_map(t):
        return None
    below = [solid(t.field(k)) for k in range(t.num_fields)]
    if any(b is None for b in below):
        return None
    if pa.types.is_struct(t):
        return pa.field(f.name, pa.struct(below), nullable=False)
    if pa.types.is_list(t):
        return f.with_type(pa.list_(below[0]))
    return f.with_type(pa.large_list(below[0])) if pa.types.is_large_list(t) else f


def table_of(null, seed=0, files="2.2"):
    """A table with a key and a column of each type that files of a version can hold; those of 2.2 are needed for some."""
    columns = [pa.field(f"c{i}", t) for i, t in enumerate(TYPES)]
    if files == "2.0":
        columns = [f for f in map(solid, columns) if f is not None]
    key = pa.field("id", pa.int64(), nullable=False, metadata={"lance-schema:unenforced-primary-key": "true"})
    return pa.table([pa.array(range(ROWS), pa.int64()), *(make(f.type, ROWS, allowed(f, null), seed + i) for i, f in enumerate(columns))], schema=pa.schema([key, *columns]))


def assert_equal(got, want, note):
    """Compares types, with what is nested in them, and all values."""
    assert got.column_names == want.column_names
    for field in want.schema:
        column = got.column(field.name)
        assert column.type.equals(field.type) and str(column.type) == str(field.type), f"{note}: {field} came back as {column.type}"
        column.validate(full=True)
        a, b = plain(rows.one_array(column)), plain(rows.one_array(want.column(field.name)))
        if not a.equals(b):
            at = next((i for i in range(len(b)) if i >= len(a) or a[i] != b[i]), "?")
            raise AssertionError(f"{note}: {field}, row {at}: {a[at] if at != '?' else a}, want {b[at] if at != '?' else b}")


@pytest.mark.parametrize("files, batch_rows", [("2.0", 1), ("2.0", 1000), ("2.2", 37), ("2.2", 1000)])
@pytest.mark.parametrize("nulls", NULLS)
def test_every_type_comes_back_as_it_went(server, nulls, files, batch_rows):
    want = table_of(NULLS[nulls], files=files)
    with adbc(server) as connection, connection.cursor() as cursor:
        cursor.adbc_ingest("t", want.slice(0, 100), mode="create")
    put(server, "t", rows.batches(want.slice(100), batch_rows))

    def check(note):
        assert_equal(query(server, "SELECT * FROM t ORDER BY id"), want, note)
        assert_equal(query_flight(server, "FROM t ORDER BY id"), want, note)

    check("fresh")
    server.restart()
    check("from the log")
    execute(server, "CALL flightd_flush('t')")
    check("flushed")
    execute(server, "OPTIMIZE t")
    check("optimized")
    server.restart()
    check("restarted")
    assert lance.dataset(str(server.dataset("t"))).data_storage_version == files
    assert_equal_by_pylance(server, want)


def test_new_rows_and_deletes_in_front_of_every_layer(server):
    """Generations and the base are read around the rows that newer layers replaced or deleted."""
    old, new = table_of(NULLS["some"]), table_of(NULLS["some"], seed=11)
    replaced, deleted = set(range(0, ROWS, 3)), set(range(1, ROWS, 7))
    with adbc(server) as connection, connection.cursor() as cursor:
        cursor.adbc_ingest("t", old, mode="create")
    pick = [(new if i in replaced else old).slice(i, 1) for i in range(ROWS) if i not in deleted]
    want = pa.concat_tables(pick).combine_chunks()

    def change():
        put(server, "t", rows.batches(new.take(sorted(replaced)), 50))
        keys = pa.table({"id": sorted(deleted), "_tombstone": [True] * len(deleted)})
        put(server, "t", rows.batches(keys, 50))
        assert_equal(query(server, "SELECT * FROM t ORDER BY id"), want, "changed")

    execute(server, "CALL flightd_flush('t')")
    change()
    execute(server, "CALL flightd_flush('t')")
    assert_equal(query(server, "SELECT * FROM t ORDER BY id"), want, "flushed")
    execute(server, "OPTIMIZE t")
    assert_equal(query(server, "SELECT * FROM t ORDER BY id"), want, "optimized")
    change()
    server.restart()
    execute(server, "OPTIMIZE t")
    assert_equal(query(server, "SELECT * FROM t ORDER BY id"), want, "optimized again")
    assert_equal_by_pylance(server, want)


def test_dictionaries_have_more_values_than_their_index_counts(server):
    """Each batch of a stream has a dictionary of its own; together they have more values than one index of 8 bits counts."""
    types = {"d": pa.dictionary(pa.int8(), pa.string()), "u": pa.dictionary(pa.uint8(), pa.int64()), "l": pa.list_(pa.dictionary(pa.int8(), pa.binary()))}
    parts = []
    for i in range(20):
        of = range(i * 100, i * 100 + 100)
        columns = [dictionary(types["d"], pa.array([f"value {x}" if x % 9 else None for x in of]), null=i % 2 > 0), dictionary(types["u"], pa.array(of, pa.int64())),
                   pa.ListArray.from_arrays(list(range(101)), dictionary(types["l"].value_type, pa.array([b"%d" % x for x in of])))]
        parts.append(pa.RecordBatch.from_arrays([pa.array(of, pa.int64()), *columns], schema=pa.schema({"id": pa.int64(), **types})))
    with adbc(server) as connection, connection.cursor() as cursor:
        cursor.adbc_ingest("t", pa.Table.from_batches(parts[:1]), mode="create")
    put(server, "t", parts[1:])
    want = [p for part in parts for p in part.to_pylist()]
    for act in ["SELECT 1", "CALL flightd_flush('t')", "OPTIMIZE t"]:
        execute(server, act)
        for got in (query(server, "FROM t ORDER BY id"), query_flight(server, "FROM t ORDER BY id")):
            assert got.schema.types == [pa.int64(), *types.values()] and got.to_pylist() == want, act
    texts = {row["d"] for row in want if row["d"] and row["d"].startswith("value 1")}
    assert query(server, "SELECT count(DISTINCT d) AS n, max(d) AS m FROM t WHERE d LIKE 'value 1%'").to_pylist() == [{"n": len(texts), "m": max(texts)}]
    assert sorted(lance.dataset(str(server.dataset("t"))).to_table().to_pylist(), key=lambda row: row["id"]) == want
    execute(server, "CREATE TABLE copy AS FROM t", "INSERT INTO copy FROM t", "OPTIMIZE copy")
    assert query(server, "SELECT DISTINCT id, d, u FROM copy ORDER BY id").schema.types == [pa.int64(), types["d"], types["u"]]
    with adbc(server) as connection:
        assert connection.adbc_get_table_schema("t").types == [pa.int64(), *types.values()]


def test_views_come_back_as_texts_and_bytes(server):
    long = ["x" * i for i in (0, 5, 12, 13, 300)]
    views = {"s": pa.array([*long, None], pa.string_view()), "b": pa.array([*(v.encode() for v in long), None], pa.binary_view()),
             "l": pa.ListArray.from_arrays([0, 1, 1, 3, 4, 5, 6], pa.array([*long, None], pa.string_view()))}
    want = pa.table({"s": views["s"].cast(pa.string()), "b": views["b"].cast(pa.binary()), "l": pa.ListArray.from_arrays([0, 1, 1, 3, 4, 5, 6], views["s"].cast(pa.string()))})
    with adbc(server) as connection, connection.cursor() as cursor:
        cursor.adbc_ingest("t", pa.table(views), mode="create")
    put(server, "t", pa.table(views).to_batches())
    assert query(server, "FROM t").equals(pa.concat_tables([want, want]).combine_chunks())


def test_null_structs_are_refused_where_files_have_none(server):
    execute(server, "CREATE TABLE t (id INT PRIMARY KEY)", "ALTER TABLE t ADD COLUMN s STRUCT(a INT)", "ALTER TABLE t ADD COLUMN l STRUCT(a INT)[]")
    schema = pa.schema([("id", pa.int32()), ("s", pa.struct([("a", pa.int32())])), ("l", pa.list_(pa.struct([("a", pa.int32())])))])
    for row, column in [({"id": 1, "s": None, "l": []}, '"s"'), ({"id": 1, "s": {"a": 1}, "l": [None]}, '"l.item"')]:
        with refused("INVALID_ARGUMENT", column, "null structs cannot be stored", "Lance 2.0", "send a struct whose fields are null", "CREATE TABLE"):
            put(server, "t", [pa.RecordBatch.from_pylist([row], schema)])
    with refused("INVALID_ARGUMENT", '"s"', "null structs cannot be stored"):
        execute(server, "INSERT INTO t VALUES (1, NULL, NULL)")
    execute(server, "INSERT INTO t VALUES (1, {a: NULL}, [{a: NULL}])")
    assert query(server, "FROM t").to_pylist() == [{"id": 1, "s": {"a": None}, "l": [{"a": None}]}]
    with refused("INVALID_ARGUMENT", '"m"', "Lance 2.0 has no maps"):
        execute(server, "ALTER TABLE t ADD COLUMN m MAP(INT, INT)")
    execute(server, "CREATE TABLE later AS FROM t", "INSERT INTO later VALUES (2, NULL, [NULL])", "ALTER TABLE later ADD COLUMN m MAP(INT, STRUCT(x INT))",
            "INSERT INTO later VALUES (3, NULL, NULL, MAP {1: {x: 2}, 3: NULL})", "ALTER TABLE later ADD COLUMN d MAP(VARCHAR, INT) DEFAULT MAP {'a': 1}",
            "INSERT INTO later (id) VALUES (4)", "UPDATE later SET m = MAP {7: NULL} WHERE id = 4")
    rows = [{"id": 1, "s": {"a": None}, "l": [{"a": None}], "m": None}, {"id": 2, "s": None, "l": [None], "m": None},
            {"id": 3, "s": None, "l": None, "m": [(1, {"x": 2}), (3, None)]}, {"id": 4, "s": None, "l": None, "m": [(7, None)]}]
    for act in ["SELECT 1", "CALL flightd_flush('later')", "OPTIMIZE later"]:
        execute(server, act)
        assert query(server, "FROM later ORDER BY id").to_pylist() == [r | {"d": [("a", 1)]} for r in rows], act
    assert query(server, "SELECT id FROM later WHERE m[1].x = 2 OR s IS NOT NULL ORDER BY id").to_pylist() == [{"id": 1}, {"id": 3}]
    assert query(server, "SELECT map_keys(m) AS k, s FROM later WHERE id = ?", (3,)).to_pylist() == [{"k": [1, 3], "s": None}]


def test_a_type_that_sql_has_not_is_carried_but_not_computed_with(server):
    want = pa.table({"id": pa.array([1, 2, 3], pa.int64()), "big": leaf(pa.decimal256(60, 3), [1, None, 3]), "n": pa.array([1, 2, 3])})
    with adbc(server) as connection, connection.cursor() as cursor:
        cursor.adbc_ingest("t", want, mode="create")
    for sql in ["SELECT * FROM t ORDER BY id", "WITH x AS (FROM t WHERE n > 0) SELECT a.* FROM x a JOIN t b USING (id) ORDER BY id",
                "FROM t WHERE id < 3 UNION ALL FROM t WHERE id >= 3 ORDER BY id LIMIT 3"]:
        assert_equal(query(server, sql), want, sql)
    assert_equal(query(server, "FROM t WHERE id > ? ORDER BY id", (0,)), want, "with a parameter")
    for sql in ["SELECT big + 1 FROM t", "SELECT big::VARCHAR FROM t", "SELECT max(big) FROM t", "FROM t ORDER BY big", "FROM t WHERE big > 1", "FROM t WHERE big IS NULL"]:
        with refused("INVALID_ARGUMENT", '"big"', "decimal256(60, 3)"):
            query(server, sql)
    execute(server, "CREATE TABLE copy AS FROM t", "INSERT INTO copy FROM t", "INSERT INTO copy (id, n) VALUES (4, 4)")
    assert_equal(query(server, "SELECT DISTINCT * FROM copy WHERE id < 4 ORDER BY id"), want, "copied")
    with refused("INVALID_ARGUMENT", '"big"', "decimal256(60, 3)"):
        execute(server, "INSERT INTO copy VALUES (5, 'x'::BLOB, 5)")


STORED = {
    "UUID": pa.uuid(), "JSON": pa.json_(), "TIME": pa.time64("us"), "TIME_NS": pa.time64("ns"), "TIMESTAMP_S": pa.timestamp("s"),
    "TIMESTAMP_MS": pa.timestamp("ms"), "TIMESTAMP": pa.timestamp("us"), "TIMESTAMP_NS": pa.timestamp("ns"), "TIMESTAMPTZ": pa.timestamp("us", "UTC"),
    "DECIMAL(5,2)": pa.decimal128(5, 2), "DECIMAL": pa.decimal128(18, 3), "FLOAT[3]": pa.list_(pa.float32(), 3), "INTEGER[]": pa.list_(pa.int32()),
    "UUID[]": pa.list_(pa.uuid()), "STRUCT(a UUID, b JSON[])": pa.struct([("a", pa.uuid()), ("b", pa.list_(pa.json_()))]), "UUID[2]": pa.list_(pa.uuid(), 2),
    "BLOB": pa.binary(), "TEXT": pa.string(), "DATE": pa.date32(), "UTINYINT": pa.uint8(), "STRUCT(a INTEGER[])[]": pa.list_(pa.struct([("a", pa.list_(pa.int32()))])),
    "MAP(VARCHAR, FLOAT[2])": pa.map_(pa.string(), pa.list_(pa.float32(), 2)), "MAP(UUID, STRUCT(a JSON)[])": pa.map_(pa.uuid(), pa.list_(pa.struct([("a", pa.json_())]))),
}
REFUSED = {
    "HUGEINT": "DECIMAL(38,0)", "UHUGEINT": "DECIMAL(38,0)", "BIGNUM": "VARCHAR", "BIT": "VARCHAR", "ENUM('a')": "VARCHAR", "TIMETZ": "TIMESTAMPTZ", "INTERVAL": "BIGINT",
    "UNION(a INT, b INT)": "STRUCT", "VARIANT": "JSON", "GEOMETRY": "BLOB", "INT[2][2]": "a list", "VARCHAR[2]": "VARCHAR[]",
}


def test_sql_types_are_stored_or_refused_with_what_to_use_instead(server):
    columns = ", ".join(f"c{i} {t}" for i, t in enumerate(STORED))
    execute(server, f"CREATE TABLE t (id INT, {columns})", "INSERT INTO t (id, c14) VALUES (1, {a: NULL, b: NULL})", "OPTIMIZE t")
    got = query(server, "SELECT * EXCLUDE (id) FROM t")
    assert dict(zip(STORED, got.schema.types)) == STORED
    lance.dataset(str(server.dataset("t"))).to_table()
    for sql, use in REFUSED.items():
        with refused("UNIMPLEMENTED", '"c"', use):
            execute(server, f"CREATE TABLE x (c {sql})")


def test_uuids_are_keys(server):
    """A UUID that came as Arrow bytes is the one that SQL writes as text, in every layer."""
    ids = [uuid.UUID(int=i << 100 | i) for i in range(40)]
    key = pa.field("id", pa.uuid(), nullable=False, metadata={"lance-schema:unenforced-primary-key": "true"})
    column = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([i.bytes for i in ids], pa.binary(16)))
    with adbc(server) as connection, connection.cursor() as cursor:
        cursor.adbc_ingest("t", pa.table([column, range(40)], schema=pa.schema([key, ("n", pa.int64())])), mode="create")
    for act in ["SELECT 1", "CALL flightd_flush('t')", "OPTIMIZE t"]:
        execute(server, act, f"UPDATE t SET n = n + 100 WHERE id = '{ids[7]}'", f"DELETE FROM t WHERE id IN ('{ids[1]}', '{ids[2]}')")
        with refused("ALREADY_EXISTS"):
            execute(server, f"INSERT INTO t VALUES ('{str(ids[3]).upper()}', 1)")
        execute(server, f"INSERT INTO t VALUES ('{ids[1]}', 1), ('{ids[2]}', 2)")
    got = query(server, "SELECT id, n FROM t ORDER BY id")
    assert got.column("id").to_pylist() == ids
    assert got.column("n").to_pylist() == [307 if i == 7 else i for i in range(40)]


def test_changed_rows_come_back_in_the_tables_types(server):
    """RETURNING keeps rows for its client: many enough that they wait on disk."""
    key = pa.field("id", pa.int64(), nullable=False, metadata={"lance-schema:unenforced-primary-key": "true"})
    types = {"u": pa.uuid(), "d": pa.dictionary(pa.int32(), pa.string()), "s": pa.struct([("u", pa.uuid()), ("d", pa.dictionary(pa.int8(), pa.string()))]), "big": pa.decimal256(50, 1)}
    schema = pa.schema([key, *(pa.field(n, t) for n, t in types.items())])
    want = pa.table([pa.array(range(9000)), *(make(t, 9000, NULLS["some"], 1) for t in types.values())], schema=schema)
    with adbc(server) as connection, connection.cursor() as cursor:
        cursor.adbc_ingest("t", want, mode="create")
    execute(server, "OPTIMIZE t")
    got = query(server, "UPDATE t SET id = id + 10000 RETURNING id - 10000 AS id, u, d, s, big").sort_by("id")
    assert_equal(got, want, "returned")
    assert_equal(query(server, "SELECT id - 10000 AS id, u, d, s, big FROM t ORDER BY id"), want, "kept")


def test_types_that_lance_has_not_are_refused_by_name(server):
    union = pa.UnionArray.from_dense(pa.array([0], pa.int8()), pa.array([0], pa.int32()), [pa.array([1])])
    for column, reason in [
        (pa.array([[(1, 2), (1, 3)]], pa.map_(pa.int32(), pa.int32())), "has the key 1 twice"), (union, "union"),
        (pa.array([[(1, 2)]], pa.map_(pa.int32(), pa.int32(), keys_sorted=True)), "without that flag"), (pa.array([{}], pa.struct([])), "structs without fields"),
        (pa.RunEndEncodedArray.from_arrays([1], ["a"]), "run-end"), (pa.array([[1]], pa.list_view(pa.int32())), "views of lists"),
        (pa.array([(1, 2, 3)], pa.month_day_nano_interval()), "interval"), (pa.array([decimal.Decimal(1)], pa.decimal32(5, 2)), "decimal128(5, 2)"),
        (pa.array([["a", "b"]], pa.list_(pa.string(), 2)), "fixed-size lists"),
    ]:
        with adbc(server) as connection, connection.cursor() as cursor:
            with refused("INVALID_ARGUMENT", '"odd"', reason):
                cursor.adbc_ingest("t", pa.table({"odd": column}), mode="create")
