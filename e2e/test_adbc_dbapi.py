"""The rest of ADBC's dbapi surface: fetching, preparing, parameters, partitions, cancelling, errors, autocommit."""

import subprocess
import sys
import threading
import warnings

import adbc_driver_flightsql.dbapi as dbapi
import adbc_driver_manager
import pyarrow as pa
import pytest

from clients import adbc, execute, query, refused, scalar
from server import PATIENCE, eventually

ENDLESS = "SELECT count(*) FROM range(1000000000) a, range(1000000000) b WHERE hash(a.range + b.range) = 1"


@pytest.fixture
def connection(shared_server):
    with adbc(shared_server) as connection:
        yield connection


@pytest.fixture
def cursor(connection):
    with connection.cursor() as cursor:
        yield cursor


def test_every_way_to_fetch(cursor):
    sql = "SELECT range AS i FROM range(10) ORDER BY i"
    whole = [(i,) for i in range(10)]
    cursor.execute(sql)
    assert cursor.fetchone() == (0,)
    assert cursor.fetchmany(2) == [(1,), (2,)]
    assert cursor.fetchall() == whole[3:]
    assert cursor.fetchone() is None
    cursor.execute(sql)
    assert list(cursor) == whole
    assert cursor.rownumber == 10
    cursor.execute(sql)
    assert cursor.fetch_arrow_table().column("i").to_pylist() == list(range(10))
    cursor.execute(sql)
    assert cursor.fetchallarrow().num_rows == 10
    cursor.execute(sql)
    assert pa.table(cursor.fetch_record_batch().read_all()).num_rows == 10
    cursor.execute(sql)
    assert pa.table(cursor.fetch_arrow()).num_rows == 10


def test_fetch_df(cursor):
    cursor.execute("SELECT range AS i FROM range(3)")
    assert cursor.fetch_df()["i"].tolist() == [0, 1, 2]


def test_executemany(shared_server, cursor):
    execute(shared_server, "CREATE TABLE many (id BIGINT PRIMARY KEY, s VARCHAR)")
    cursor.executemany("INSERT INTO many VALUES (?, ?)", [(i, f"s{i}") for i in range(1000)])
    assert cursor.rowcount == 1000
    cursor.executemany("INSERT INTO many VALUES (?, ?)", pa.table({"a": [1000, 1001], "b": ["x", None]}))
    assert cursor.rowcount == 2
    with pytest.raises(dbapi.Error):  # one update: all or nothing
        cursor.executemany("INSERT INTO many VALUES (?, ?)", [(5000, "new"), (0, "taken")])
    assert scalar(shared_server, "SELECT count(*) FROM many") == 1002
    cursor.executemany("DELETE FROM many WHERE id = ?", [(1000,), (1001,), (7777,)])
    assert scalar(shared_server, "SELECT count(*) FROM many") == 1000


def test_parameters_by_position_and_name(cursor):
    cursor.execute("SELECT ?::INTEGER - ?::INTEGER", (5, 3))
    assert cursor.fetchone() == (2,)
    cursor.execute("SELECT $2::INTEGER - $1::INTEGER", (3, 5))
    assert cursor.fetchone() == (2,)
    cursor.execute("SELECT $1::INTEGER * $1::INTEGER", [4])
    assert cursor.fetchone() == (16,)
    with refused("INVALID_ARGUMENT"):
        cursor.execute("SELECT ?::INTEGER", (1, 2))
        cursor.fetchall()


def test_prepare_tells_the_parameters(shared_server, cursor):
    execute(shared_server, "CREATE TABLE prepared (id BIGINT PRIMARY KEY, s VARCHAR, d DOUBLE)")
    schema = cursor.adbc_prepare("INSERT INTO prepared VALUES (?, ?, ?)")
    assert schema.types == [pa.int64(), pa.string(), pa.float64()]
    cursor.execute("INSERT INTO prepared VALUES (?, ?, ?)", (1, "a", 0.5))
    schema = cursor.adbc_prepare("SELECT s FROM prepared WHERE id = ?")
    assert schema.types == [pa.int64()]
    cursor.execute("SELECT s FROM prepared WHERE id = ?", (1,))
    assert cursor.fetchall() == [("a",)]


def test_get_objects_at_every_depth(shared_server, connection):
    execute(shared_server, 'CREATE TABLE "Deep_One" (id BIGINT PRIMARY KEY, price DECIMAL(10, 2) NOT NULL, note VARCHAR)')

    def objects(depth, **filters):
        return connection.adbc_get_objects(depth=depth, **filters).read_all().to_pylist()

    (catalog,) = objects("catalogs")
    assert catalog["catalog_name"] == "flightd" and not catalog["catalog_db_schemas"]
    (catalog,) = objects("db_schemas")
    assert [s["db_schema_name"] for s in catalog["catalog_db_schemas"]] == ["flightd_catalog", "main"]
    assert not any(s["db_schema_tables"] for s in catalog["catalog_db_schemas"])
    ((schema,),) = [c["catalog_db_schemas"] for c in objects("tables", db_schema_filter="main", table_name_filter="Deep%")]
    (table,) = schema["db_schema_tables"]
    assert (table["table_name"], table["table_type"]) == ("Deep_One", "TABLE") and not table["table_columns"]
    for depth in ("columns", "all"):
        ((schema,),) = [c["catalog_db_schemas"] for c in objects(depth, db_schema_filter="main", table_name_filter="Deep_One")]
        (table,) = schema["db_schema_tables"]
        assert [c["column_name"] for c in table["table_columns"]] == ["id", "price", "note"]
        assert [c["xdbc_type_name"] for c in table["table_columns"]] == ["BIGINT", "DECIMAL", "VARCHAR"]

    def tables(**filters):
        return [t["table_name"] for c in objects("tables", **filters) for s in c["catalog_db_schemas"] or [] for t in s["db_schema_tables"] or []]

    assert tables(catalog_filter="flightd", db_schema_filter="main", table_name_filter="deep\\_one") == ["Deep_One"]
    assert tables(table_name_filter="Deep_One", table_types_filter=["TABLE"]) == ["Deep_One"]
    assert tables(table_name_filter="Deep_One", table_types_filter=["VIEW"]) == []
    assert tables(db_schema_filter="nowhere") == []
    assert tables(catalog_filter="nowhere") == []
    ((schema,),) = [c["catalog_db_schemas"] for c in objects("columns", db_schema_filter="main", table_name_filter="Deep_One", column_name_filter="pri%")]
    assert [c["column_name"] for c in schema["db_schema_tables"][0]["table_columns"]] == ["price"]


def test_get_info_and_table_types(connection):
    info = connection.adbc_get_info()
    assert info["vendor_name"] == "flightd" and info["vendor_version"]
    assert connection.adbc_get_table_types() == ["SYSTEM TABLE", "TABLE", "VIEW"]


def test_current_catalog_and_schema(connection):
    assert connection.adbc_current_catalog == "flightd"
    assert connection.adbc_current_db_schema == "main"
    connection.adbc_current_db_schema = "main"
    with pytest.raises(dbapi.Error):
        connection.adbc_current_db_schema = "nowhere"
    assert connection.adbc_current_db_schema == "main"


def test_statistics_are_refused_by_the_driver(connection):
    with pytest.raises(dbapi.NotSupportedError):
        connection.adbc_get_statistics().read_all()


READER = """
import sys
import adbc_driver_flightsql.dbapi as flightsql
with flightsql.connect(sys.argv[1], autocommit=True) as connection, connection.cursor() as cursor:
    cursor.adbc_read_partition(bytes.fromhex(sys.argv[2]))
    column = cursor.fetch_arrow_table().column("id")
    print(len(column), sum(column.to_numpy()))
"""


def test_partitions_are_read_by_other_processes_as_one_snapshot(shared_server):
    rows = 3 << 20
    with adbc(shared_server) as planner, planner.cursor() as cursor:
        cursor.execute("CREATE TABLE big (id BIGINT PRIMARY KEY, s VARCHAR)")
        cursor.execute(f"INSERT INTO big SELECT range, 'x' FROM range({rows})")
        partitions, schema = cursor.adbc_execute_partitions("SELECT id, s FROM big")
        assert len(partitions) >= 2 and schema.names == ["id", "s"]
    # The planner is gone, and the table has changed since.
    execute(shared_server, "DELETE FROM big WHERE id < 1000", "INSERT INTO big VALUES (-5, 'late')", "OPTIMIZE big")
    readers = [subprocess.Popen([sys.executable, "-c", READER, shared_server.url, p.hex()], stdout=subprocess.PIPE, text=True)
               for p in partitions]
    outputs = [r.communicate(timeout=120)[0].split() for r in readers]
    assert [r.returncode for r in readers] == [0] * len(readers)
    assert sum(int(n) for n, _ in outputs) == rows
    assert sum(int(total) for _, total in outputs) == rows * (rows - 1) // 2
    # An execute reads all endpoints, too.
    assert query(shared_server, "SELECT id FROM big").num_rows == rows - 999


def test_any_query_has_a_partition(shared_server, cursor):
    partitions, schema = cursor.adbc_execute_partitions("SELECT range AS i FROM range(10) ORDER BY i DESC")
    assert len(partitions) == 1 and schema.names == ["i"]
    with adbc(shared_server) as other, other.cursor() as reader:
        for _ in range(2):
            reader.adbc_read_partition(partitions[0])
            assert reader.fetch_arrow_table().column("i").to_pylist() == list(range(9, -1, -1))


def ended_by(cancel, run, begun):
    """Runs what does not end by itself, cancels it from another thread when it has begun, and returns the error."""
    failed = []

    def work():
        try:
            run()
        except Exception as e:
            failed.append(e)

    thread = threading.Thread(target=work)
    thread.start()
    eventually(lambda: failed or begun())
    assert thread.is_alive(), failed
    cancel()
    thread.join(timeout=PATIENCE)
    assert not thread.is_alive(), "it went on after it was cancelled"
    return failed[0]


def runs(server, sql):
    """Whether the server says that it runs a statement."""
    return scalar(server, "SELECT count(*) FROM flightd_catalog.queries WHERE sql = '" + sql.replace("'", "''") + "'") > 0


def busy_memory(server):
    """What the server's process has of anonymous memory, in MiB."""
    for line in open(f"/proc/{server.process.pid}/status"):
        if line.startswith("RssAnon"):
            return int(line.split()[1]) >> 10


def test_cancel_from_another_thread(shared_server, connection, cursor):
    def run():
        cursor.execute(ENDLESS)
        cursor.fetchall()

    error = ended_by(cursor.adbc_cancel, run, lambda: runs(shared_server, ENDLESS))
    assert isinstance(error, dbapi.OperationalError) and "cancel" in str(error).lower()
    cursor.execute("SELECT 1")
    assert cursor.fetchone() == (1,), "the cursor can be used again"


def test_cancel_of_an_update_leaves_nothing(shared_server, cursor):
    execute(shared_server, "CREATE TABLE cancelled (id BIGINT PRIMARY KEY)")
    sql = "INSERT INTO cancelled SELECT a.range * 1000000 + b.range FROM range(1000000) a, range(1000000) b"
    error = ended_by(cursor.adbc_cancel, lambda: cursor.execute(sql), lambda: runs(shared_server, sql))
    assert "cancel" in str(error).lower()
    eventually(lambda: scalar(shared_server, "SELECT count(*) FROM cancelled") == 0)
    execute(shared_server, "INSERT INTO cancelled VALUES (1)")  # nobody holds the table any more
    assert scalar(shared_server, "SELECT count(*) FROM cancelled") == 1


def test_a_deadline_ends_a_query(shared_server):
    options = {"adbc.flight.sql.rpc.timeout_seconds.fetch": "1"}
    with dbapi.connect(shared_server.url, db_kwargs={}, conn_kwargs=options, autocommit=True) as connection, connection.cursor() as cursor:
        with pytest.raises(dbapi.Error, match="(?i)deadline|timeout"):
            cursor.execute(ENDLESS)
            cursor.fetchall()


def test_a_cancelled_sort_gives_its_memory_back(server):
    query(server, "SELECT 1")
    before = busy_memory(server)
    sql = "SELECT a.range AS i, repeat('x', 100) AS s FROM range(100000000) a ORDER BY hash(a.range)"
    with adbc(server) as connection, connection.cursor() as cursor:
        def run():
            cursor.execute(sql)
            cursor.fetchall()

        ended_by(cursor.adbc_cancel, run, lambda: busy_memory(server) > before + 512)
    eventually(lambda: busy_memory(server) < before + 256)


@pytest.mark.parametrize(("sql", "kind", "code"), [
    ("SELEC 1", dbapi.ProgrammingError, "INVALID_ARGUMENT"),
    ("SELECT * FROM no_such_table", dbapi.ProgrammingError, "NOT_FOUND"),
    ("SELECT no_such_column FROM codes", dbapi.ProgrammingError, "INVALID_ARGUMENT"),
    ("CREATE TABLE codes (x INTEGER)", dbapi.ProgrammingError, "ALREADY_EXISTS"),
    ("INSERT INTO codes VALUES (1)", dbapi.ProgrammingError, "ALREADY_EXISTS"),
    ("INSERT INTO codes VALUES (NULL)", dbapi.ProgrammingError, "INVALID_ARGUMENT"),
    ("INSERT INTO codes VALUES ('x')", dbapi.ProgrammingError, "INVALID_ARGUMENT"),
    ("BEGIN TRANSACTION", dbapi.NotSupportedError, "UNIMPLEMENTED"),
    ("SELECT * FROM read_csv('/etc/passwd')", dbapi.ProgrammingError, "PERMISSION_DENIED"),
])
def test_errors_have_their_exceptions(shared_server, cursor, sql, kind, code):
    execute(shared_server, "CREATE TABLE IF NOT EXISTS codes (id BIGINT PRIMARY KEY)", "DELETE FROM codes", "INSERT INTO codes VALUES (1)")
    with refused(code):
        try:
            cursor.execute(sql)
            cursor.fetchall()
        except dbapi.Error as e:
            assert isinstance(e, kind), type(e)
            raise


def test_without_autocommit_every_statement_commits_anyway(shared_server):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        connection = dbapi.connect(shared_server.url)
    assert any("autocommit" in str(w.message) for w in said), "the user is told that there are no transactions"
    with connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE at_once (id BIGINT PRIMARY KEY)")
        cursor.execute("INSERT INTO at_once VALUES (1)")
        assert scalar(shared_server, "SELECT count(*) FROM at_once") == 1


def test_transactions_are_refused_clearly(connection):
    with pytest.raises(adbc_driver_manager.NotSupportedError, match="(?i)transaction|autocommit"):
        connection.adbc_connection.set_autocommit(False)


def test_context_managers_close(shared_server):
    with adbc(shared_server) as connection:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        with pytest.raises(dbapi.Error):
            cursor.fetchone()
        with connection.cursor() as cursor:
            cursor.execute("SELECT 2")
            assert cursor.fetchone() == (2,)
    with pytest.raises(dbapi.Error):
        connection.cursor().execute("SELECT 1")


def test_a_clone_is_another_connection(connection):
    with connection.adbc_clone() as other, other.cursor() as cursor:
        cursor.execute("SELECT 3")
        assert cursor.fetchone() == (3,)
