"""What an ADBC user does to rows: RETURNING, changes of tables without a key, what Lance makes of them."""

import threading

import lance
import pytest

from clients import adbc, refused
from server import eventually


@pytest.fixture
def cursor(shared_server):
    with adbc(shared_server) as connection, connection.cursor() as cursor:
        yield cursor


def test_returning_is_a_result(cursor):
    cursor.execute("CREATE TABLE ret (id BIGINT PRIMARY KEY, s VARCHAR DEFAULT 'none', n INTEGER)")
    cursor.execute("INSERT INTO ret (id, n) VALUES (1, 10), (2, 20) RETURNING *, n * 2 AS twice")
    assert [d[0] for d in cursor.description] == ["id", "s", "n", "twice"]
    assert sorted(cursor.fetchall()) == [(1, "none", 10, 20), (2, "none", 20, 40)]
    cursor.execute("UPDATE ret SET n = n + ? WHERE id = ? RETURNING id, n", (5, 2))
    assert cursor.fetchall() == [(2, 25)]
    cursor.execute("INSERT INTO ret (id, n) VALUES (2, 1), (3, 3) ON CONFLICT DO UPDATE SET n = ret.n + excluded.n RETURNING id, n")
    assert sorted(cursor.fetchall()) == [(2, 26), (3, 3)]
    cursor.execute("DELETE FROM ret WHERE id > 1 RETURNING s || id AS gone")
    assert sorted(cursor.fetchall()) == [("none2",), ("none3",)]
    cursor.execute("SELECT * FROM ret")
    assert cursor.fetchall() == [(1, "none", 10)]


def test_executemany_update(cursor):
    cursor.execute("CREATE TABLE many (id BIGINT PRIMARY KEY, n INTEGER)")
    cursor.executemany("INSERT INTO many VALUES (?, ?)", [(i, 0) for i in range(20)])
    cursor.executemany("UPDATE many SET n = n + ? WHERE id = ?", [(i, i) for i in range(20)])
    cursor.executemany("UPDATE many SET n = n + 1 WHERE id = ? RETURNING n", [(i,) for i in range(10)])
    cursor.execute("SELECT sum(n) FROM many")
    assert cursor.fetchone() == (200,)


def test_a_large_returning_result_streams(cursor):
    cursor.execute("CREATE TABLE big (id BIGINT, s VARCHAR)")
    cursor.execute("INSERT INTO big SELECT i, repeat('x', 100) FROM range(200000) r(i) RETURNING id, s")
    table = cursor.fetch_arrow_table()
    assert table.num_rows == 200000
    assert table.column("s").unique().to_pylist() == ["x" * 100]


def test_tables_without_a_key_change_and_lance_reads_them(server):
    with adbc(server) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE loose (a INTEGER, s VARCHAR)")
        cursor.execute("INSERT INTO loose SELECT i, 's' || i FROM range(1000) r(i)")
        cursor.execute("INSERT INTO loose SELECT * FROM loose WHERE a < 10")
        cursor.execute("UPDATE loose SET s = 'new', a = -a WHERE a % 2 = 1")
        assert cursor.rowcount == 505
        cursor.execute("DELETE FROM loose WHERE a >= 500 RETURNING a")
        assert cursor.fetch_arrow_table().num_rows == 250
        want = sorted([(-i, "new") for i in range(1000) if i % 2] + [(-i, "new") for i in range(10) if i % 2]
                      + [(i, f"s{i}") for i in range(500) if i % 2 == 0] + [(i, f"s{i}") for i in range(10) if i % 2 == 0])
        cursor.execute("SELECT * FROM loose")
        assert sorted(cursor.fetchall()) == want
        dataset = lance.dataset(server.dataset("loose"))
        assert sorted(tuple(r.values()) for r in dataset.to_table().to_pylist()) == want
        dataset.delete("a = 0")
        cursor.execute("UPDATE loose SET s = 'mine' WHERE a = 2")
        assert cursor.rowcount == 2
        dataset = lance.dataset(server.dataset("loose"))
        assert dataset.count_rows() == len(want) - 2
        assert dataset.count_rows("s = 'mine'") == 2
    server.kill()
    server.start()
    with adbc(server) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*), count(*) FILTER (s = 'mine') FROM loose")
        assert cursor.fetchone() == (len(want) - 2, 2)
        with refused("INVALID_ARGUMENT", "nosuch"):
            cursor.execute("DELETE FROM loose RETURNING nosuch")


def test_merge_and_views(server):
    with adbc(server) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE stock (item VARCHAR PRIMARY KEY, n INTEGER)")
        cursor.execute("CREATE TABLE news (item VARCHAR, n INTEGER)")
        cursor.execute("INSERT INTO stock VALUES ('bolt', 5), ('nut', 7), ('cog', 1)")
        cursor.execute("INSERT INTO news VALUES ('bolt', 2), ('cog', -1), ('cam', 3)")
        cursor.execute("CREATE VIEW news_of_all AS SELECT item, sum(n)::INTEGER AS n FROM news GROUP BY item")
        cursor.execute("""MERGE INTO stock USING news_of_all AS new ON stock.item = new.item
            WHEN MATCHED AND stock.n + new.n = 0 THEN DELETE
            WHEN MATCHED THEN UPDATE SET n = stock.n + new.n
            WHEN NOT MATCHED THEN INSERT BY NAME
            RETURNING merge_action, item, n""")
        assert sorted(cursor.fetchall()) == [("DELETE", "cog", 1), ("INSERT", "cam", 3), ("UPDATE", "bolt", 7)]
        cursor.executemany("MERGE INTO stock USING (SELECT ?::VARCHAR AS item, ?::INTEGER AS n) s USING (item) "
                           "WHEN MATCHED THEN UPDATE SET n = s.n WHEN NOT MATCHED THEN INSERT BY NAME", [("nut", 1), ("pin", 2)])
        tables = connection.adbc_get_objects(depth="tables", db_schema_filter="main").read_all().to_pylist()
        names = {(t["table_name"], t["table_type"]) for c in tables for s in c["catalog_db_schemas"] for t in s["db_schema_tables"]}
        assert names == {("stock", "TABLE"), ("news", "TABLE"), ("news_of_all", "VIEW")}
    server.restart()
    with adbc(server) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT * FROM stock ORDER BY item")
        assert cursor.fetchall() == [("bolt", 7), ("cam", 3), ("nut", 1), ("pin", 2)]
        cursor.execute("SELECT count(*) FROM news_of_all")
        assert cursor.fetchone() == (3,)


def test_comments_are_remarks_and_last(server):
    def remarks(connection, table):
        schema = connection.adbc_get_table_schema(table)
        of = {field.name: (field.metadata or {}).get(b"ARROW:FLIGHT:SQL:REMARKS", b"").decode() for field in schema}
        return (schema.metadata or {}).get(b"comment", b"").decode(), of

    with adbc(server) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE parts (id BIGINT PRIMARY KEY, name VARCHAR)")
        cursor.execute("CREATE VIEW names AS SELECT name FROM parts")
        cursor.execute("COMMENT ON TABLE parts IS 'all parts'")
        cursor.execute("COMMENT ON COLUMN parts.name IS 'as printed'")
        cursor.execute("COMMENT ON COLUMN names.name IS 'of a part'")
        cursor.execute("ALTER TABLE parts RENAME COLUMN id TO number")
        cursor.execute("COMMENT ON COLUMN parts.number IS 'it''s the key'")
        assert remarks(connection, "parts") == ("all parts", {"number": "it's the key", "name": "as printed"})
    server.restart()
    with adbc(server) as connection, connection.cursor() as cursor:
        assert remarks(connection, "parts") == ("all parts", {"number": "it's the key", "name": "as printed"})
        assert remarks(connection, "names") == ("", {"name": "of a part"})
        cursor.execute("SELECT column_name, comment FROM duckdb_columns() WHERE table_name = 'parts' ORDER BY column_index")
        assert cursor.fetchall() == [("number", "it's the key"), ("name", "as printed")]
        cursor.execute("COMMENT ON TABLE parts IS NULL")
        assert remarks(connection, "parts")[0] == ""
        with refused("NOT_FOUND", "nosuch"):
            cursor.execute("COMMENT ON TABLE nosuch IS 'x'")
        cursor.execute("DROP TABLE parts")
        with refused("NOT_FOUND", 'view "names"', "parts"):
            cursor.execute("SELECT * FROM names")


def test_a_change_without_keys_is_whole_after_kill(server):
    """Each UPDATE touches all rows: whenever the server dies, they have all seen the same number of them."""
    with adbc(server) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE loose (id INTEGER, n INTEGER)")
        cursor.execute("INSERT INTO loose SELECT i, 0 FROM range(5000) r(i)")
    least = 0
    for round in range(3):
        acknowledged = []

        def update():
            try:
                with adbc(server) as connection, connection.cursor() as cursor:
                    while True:
                        cursor.execute("UPDATE loose SET n = n + 1")
                        acknowledged.append(cursor.rowcount)
            except Exception:  # the server is gone, and closing what was open there fails, too
                return

        thread = threading.Thread(target=update)
        thread.start()
        assert eventually(lambda: len(acknowledged) > 2 + round)
        server.kill()
        thread.join()
        server.start()
        assert set(acknowledged) == {5000}
        with adbc(server) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT count(*), count(DISTINCT id), min(n), max(n) FROM loose")
            rows, ids, low, high = cursor.fetchone()
        assert (rows, ids) == (5000, 5000)
        assert low == high
        assert least + len(acknowledged) <= low <= least + len(acknowledged) + 1
        least = low
