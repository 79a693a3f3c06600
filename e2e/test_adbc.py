"""What an ADBC user does: dbapi statements, parameters, metadata."""

import datetime
import decimal

import pyarrow as pa
import pytest

from clients import adbc, execute, query, refused


@pytest.fixture
def cursor(shared_server):
    with adbc(shared_server) as connection, connection.cursor() as cursor:
        yield cursor


def test_create_insert_select(cursor):
    cursor.execute("CREATE TABLE people (id BIGINT PRIMARY KEY, name VARCHAR, born DATE, height DOUBLE)")
    cursor.execute("INSERT INTO people VALUES (1, 'Ada', DATE '1815-12-10', 1.65), (2, 'Grace', DATE '1906-12-09', NULL)")
    assert cursor.rowcount == 2
    cursor.execute("SELECT * FROM people ORDER BY id")
    assert [d[0] for d in cursor.description] == ["id", "name", "born", "height"]
    assert cursor.fetchall() == [
        (1, "Ada", datetime.date(1815, 12, 10), 1.65), (2, "Grace", datetime.date(1906, 12, 9), None)]


def test_insert_refuses_a_key_that_exists(shared_server, cursor):
    cursor.execute("CREATE TABLE once (id BIGINT PRIMARY KEY)")
    cursor.execute("INSERT INTO once VALUES (7)")
    with refused("ALREADY_EXISTS", "7"):
        execute(shared_server, "INSERT INTO once VALUES (8), (7)")
    cursor.execute("SELECT count(*) FROM once")
    assert cursor.fetchone() == (1,)


def test_insert_applies_defaults_and_not_null(shared_server, cursor):
    cursor.execute("CREATE TABLE defaults (id BIGINT PRIMARY KEY, s VARCHAR DEFAULT 'none', n INTEGER NOT NULL)")
    cursor.execute("INSERT INTO defaults (n, id) VALUES (5, 1)")
    cursor.execute("SELECT * FROM defaults")
    assert cursor.fetchall() == [(1, "none", 5)]
    with refused("INVALID_ARGUMENT", "n"):
        execute(shared_server, "INSERT INTO defaults (id) VALUES (2)")


def test_select_with_parameters(cursor):
    cursor.execute("CREATE TABLE numbers (id BIGINT PRIMARY KEY, s VARCHAR)")
    cursor.execute("INSERT INTO numbers VALUES " + ", ".join(f"({i}, 'n{i}')" for i in range(1000)))
    assert cursor.rowcount == 1000
    cursor.execute("SELECT s FROM numbers WHERE id = ?", (77,))
    assert cursor.fetchall() == [("n77",)]
    cursor.execute("SELECT count(*) FROM numbers WHERE id BETWEEN ? AND ? AND s LIKE ?", (10, 99, "n1%"))
    assert cursor.fetchone() == (10,)
    cursor.execute("SELECT $1::BIGINT + 1, $2::VARCHAR", (41, "x"))
    assert cursor.fetchall() == [(42, "x")]
    cursor.execute("SELECT count(*) FROM numbers WHERE s = ?", (None,))
    assert cursor.fetchone() == (0,)


def test_values_of_all_types_come_back_exact(cursor):
    cursor.execute("""SELECT true AS b, 1::TINYINT AS i8, 2::SMALLINT AS i16, 3::INTEGER AS i32, 4::BIGINT AS i64, 5::UTINYINT AS u8,
        6::USMALLINT AS u16, 7::UINTEGER AS u32, 8::UBIGINT AS u64, 0.5::FLOAT AS f, 0.25::DOUBLE AS d, 12.34::DECIMAL(9, 2) AS dec,
        'text' AS s, 'ab'::BLOB AS bin, DATE '2026-01-02' AS day, TIMESTAMP '2026-01-02 03:04:05.123456' AS ts,
        [1, 2]::INTEGER[] AS l, NULL::BIGINT AS n""")
    row = cursor.fetch_arrow_table().to_pylist()[0]
    assert row == {
        "b": True, "i8": 1, "i16": 2, "i32": 3, "i64": 4, "u8": 5, "u16": 6, "u32": 7, "u64": 8, "f": 0.5, "d": 0.25,
        "dec": decimal.Decimal("12.34"), "s": "text", "bin": b"ab", "day": datetime.date(2026, 1, 2),
        "ts": datetime.datetime(2026, 1, 2, 3, 4, 5, 123456), "l": [1, 2], "n": None}


def test_table_schema_is_the_tables_own(shared_server):
    execute(shared_server, "CREATE TABLE typed (id INTEGER PRIMARY KEY, s VARCHAR, v FLOAT[4], b UTINYINT[2], t TIMESTAMP, d DECIMAL(10, 3))")
    with adbc(shared_server) as connection:
        schema = connection.adbc_get_table_schema("typed")
        assert schema.names == ["id", "s", "v", "b", "t", "d"]
        assert schema.field("id").type == pa.int32() and not schema.field("id").nullable
        assert schema.field("s").type == pa.string()
        assert pa.types.is_fixed_size_list(schema.field("v").type)
        assert schema.field("v").type.value_type == pa.float32() and schema.field("v").type.list_size == 4
        assert schema.field("b").type.value_type == pa.uint8()
        assert schema.field("t").type == pa.timestamp("us")
        assert schema.field("d").type == pa.decimal128(10, 3)
        assert connection.adbc_get_table_schema("typed", db_schema_filter="main").names == schema.names
        with pytest.raises(Exception, match="(?i)not.?found"):
            connection.adbc_get_table_schema("no_such_table")


def test_objects_list_catalog_schema_tables_columns(shared_server):
    execute(shared_server, "CREATE TABLE Listed (id BIGINT PRIMARY KEY, Amount DOUBLE)")
    with adbc(shared_server) as connection:
        objects = connection.adbc_get_objects(depth="all", table_name_filter="List%").read_all().to_pylist()
        (catalog,) = [c for c in objects if c["catalog_name"] == "flightd"]
        (schema,) = [s for s in catalog["catalog_db_schemas"] if s["db_schema_name"] == "main"]
        (table,) = schema["db_schema_tables"]
        assert table["table_name"] == "Listed" and table["table_type"] == "TABLE"
        assert [c["column_name"] for c in table["table_columns"]] == ["id", "Amount"]
        assert [c["ordinal_position"] for c in table["table_columns"]] == [1, 2]
        names = connection.adbc_get_objects(depth="catalogs").read_all().column("catalog_name").to_pylist()
        assert names == ["flightd"]
        tables = connection.adbc_get_objects(depth="tables", table_name_filter="no_such%").read_all().to_pylist()
        assert not [t for c in tables for s in c["catalog_db_schemas"] or [] for t in s["db_schema_tables"] or []]
        assert "TABLE" in connection.adbc_get_table_types()
        info = connection.adbc_get_info()
        assert info["vendor_name"].lower() == "flightd"


def test_execute_schema_without_running(shared_server):
    execute(shared_server, "CREATE TABLE shape (id BIGINT PRIMARY KEY, s VARCHAR)")
    with adbc(shared_server) as connection, connection.cursor() as cursor:
        schema = cursor.adbc_execute_schema("SELECT s, id + 1 AS next FROM shape")
        assert schema.names == ["s", "next"] and schema.field("s").type == pa.string()


def test_names_match_without_case(shared_server):
    execute(shared_server, 'CREATE TABLE "MixedCase" ("Id" BIGINT PRIMARY KEY)', "INSERT INTO mixedcase VALUES (1)")
    assert query(shared_server, "SELECT id FROM MIXEDCASE").to_pylist() == [{"Id": 1}]
    with refused("ALREADY_EXISTS", "mixedcase"):
        execute(shared_server, "CREATE TABLE MIXEDCASE (x INTEGER)")
    execute(shared_server, "CREATE TABLE IF NOT EXISTS mixedcase (x INTEGER)", "DROP TABLE mixedCASE", "DROP TABLE IF EXISTS mixedcase")


def test_a_large_result_streams(cursor):
    cursor.execute("SELECT range AS i, 'row number ' || range AS s FROM range(1000000)")
    total = rows = 0
    for batch in cursor.fetch_record_batch():
        rows += batch.num_rows
        total += batch.column(0).to_numpy().sum()
        assert batch.nbytes < 16 << 20
    assert (rows, total) == (1_000_000, 999_999 * 500_000)


def test_a_result_left_half_read_does_not_hold_the_server(shared_server):
    for _ in range(10):
        with adbc(shared_server) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT range FROM range(100000000)")
            cursor.fetchone()
    assert query(shared_server, "SELECT 1 AS one").to_pylist() == [{"one": 1}]


def test_duckdb_scans_a_result_without_a_copy(cursor):
    import duckdb

    cursor.execute("SELECT range AS i FROM range(1000)")
    reader = cursor.fetch_record_batch()
    assert duckdb.sql("SELECT sum(i) FROM reader").fetchone() == (499500,)
