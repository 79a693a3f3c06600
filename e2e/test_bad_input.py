"""Input that the server will not like: the right code, a message that names the thing, and the server lives on."""

import json

import pyarrow as pa
import pyarrow.flight
import pytest

from clients import Stream, execute, field, flight_data, ipc_parts, put, query, query_flight, raw_put, refused, scalar
from server import NotReady

SCHEMA = pa.schema([("id", pa.int64()), ("s", pa.string())])


def batch(*ids, schema=SCHEMA):
    return pa.record_batch([pa.array(ids, pa.int64()), pa.array([f"s{i}" for i in ids])], schema)


@pytest.fixture
def table(shared_server, request):
    """A table of one row, which must still be there and still take rows when the test is over."""
    name = request.node.name.split("[")[0]
    execute(shared_server, f"CREATE TABLE IF NOT EXISTS {name} (id BIGINT PRIMARY KEY, s VARCHAR)")
    put(shared_server, name, [batch(1)])
    yield name
    assert query(shared_server, f"SELECT * FROM {name} WHERE id = 1").to_pylist() == [{"id": 1, "s": "s1"}]
    put(shared_server, name, [batch(100)])
    assert scalar(shared_server, f"SELECT s FROM {name} WHERE id = 100") == "s100"


def test_no_descriptor(shared_server, table):
    (schema, _), (header, body) = ipc_parts(SCHEMA, batch(2))
    with refused("INVALID_ARGUMENT", "descriptor"):
        raw_put(shared_server, [flight_data(header=schema), flight_data(header=header, body=body)])
    with refused("INVALID_ARGUMENT", "descriptor"):
        raw_put(shared_server, [b""])


def test_no_message_at_all(shared_server, table):
    with refused("INVALID_ARGUMENT"):
        raw_put(shared_server, [])


@pytest.mark.parametrize("path", [[], [""], ["a", "b", "c"], ["no_such_schema", "t"]])
def test_paths_that_name_no_table(shared_server, path):
    (schema, _), = ipc_parts(SCHEMA)
    try:
        raw_put(shared_server, [flight_data(path=path, header=schema)])
    except Exception as e:
        assert e.code().name in ("INVALID_ARGUMENT", "NOT_FOUND"), e
    else:
        raise AssertionError("it was accepted")


def test_unknown_table(shared_server):
    with refused("NOT_FOUND", "nowhere", "create"):
        put(shared_server, "nowhere", [batch(1)])
    with refused("NOT_FOUND", "nowhere"):
        query(shared_server, "SELECT * FROM nowhere")


def test_a_command_that_is_not_known(shared_server):
    with pa.flight.connect(shared_server.url) as client:
        with refused("INVALID_ARGUMENT"):
            client.get_flight_info(pa.flight.FlightDescriptor.for_command(b"\xff\xfe not protobuf"))
        with refused("INVALID_ARGUMENT"):
            client.do_get(pa.flight.Ticket(b"no ticket of ours")).read_all()
        with refused("UNIMPLEMENTED"):
            client.get_flight_info(pa.flight.FlightDescriptor.for_command(
                field(1, "type.googleapis.com/arrow.flight.protocol.sql.CommandStatementSubstraitPlan")))


def test_a_column_that_the_table_has_not(shared_server, table):
    schema = SCHEMA.append(pa.field("extra", pa.int64()))
    bad = pa.record_batch([pa.array([2], pa.int64()), pa.array(["x"]), pa.array([1], pa.int64())], schema)
    with refused("INVALID_ARGUMENT", "extra", table):
        put(shared_server, table, [bad])


@pytest.mark.parametrize("value", [pa.array([1.5]), pa.array([True]), pa.array([b"\xff\xfe"]), pa.array([[1]])])
def test_a_column_of_another_type(shared_server, table, value):
    bad = pa.record_batch([value, pa.array(["x"])], ["id", "s"])
    with refused("INVALID_ARGUMENT", "id", table):
        put(shared_server, table, [bad])


def test_a_column_that_comes_twice(shared_server, table):
    bad = pa.record_batch([pa.array([2], pa.int64()), pa.array(["x"]), pa.array(["y"])], ["id", "s", "S"])
    with refused("INVALID_ARGUMENT", "s", table):
        put(shared_server, table, [bad])


def test_a_stream_without_the_key(shared_server, table):
    with refused("INVALID_ARGUMENT", "id", table):
        put(shared_server, table, [pa.record_batch([pa.array(["x"])], ["s"])])


def test_a_null_key_names_batch_and_row_and_keeps_what_came_before(shared_server, table):
    stream = Stream(shared_server, table, SCHEMA)
    stream.send(batch(10, 11))
    stream.send(pa.record_batch([pa.array([12, None], pa.int64()), pa.array(["a", "b"])], SCHEMA))
    stream.send(batch(13))
    with refused("INVALID_ARGUMENT", "id", "null"):
        stream.finish()
    got = query(shared_server, f"SELECT id FROM {table} WHERE id BETWEEN 10 AND 19 ORDER BY id").column("id").to_pylist()
    assert got == [10, 11]
    assert "batch" in str(stream.error)


def test_a_tombstone_that_is_no_boolean(shared_server, table):
    bad = pa.record_batch([pa.array([2], pa.int64()), pa.array(["x"]), pa.array(["true"])], ["id", "s", "_tombstone"])
    with refused("INVALID_ARGUMENT", "_tombstone"):
        put(shared_server, table, [bad])


def test_garbage_instead_of_a_body(shared_server, table):
    (schema, _), (header, body) = ipc_parts(SCHEMA, batch(*range(2, 50)))
    first = flight_data(path=[table], header=schema)
    for bad in (b"", body[: len(body) // 2], body[:-1]):
        with refused("INVALID_ARGUMENT"):
            raw_put(shared_server, [first, flight_data(header=header, body=bad)])
    for at in range(0, len(body), 8):
        # Offsets of strings that point anywhere. Values of integers may be anything: then it is a batch.
        bad = body[:at] + b"\xff" * 8 + body[at + 8:]
        try:
            raw_put(shared_server, [first, flight_data(header=header, body=bad)])
        except Exception as e:
            assert e.code().name == "INVALID_ARGUMENT", e
    execute(shared_server, f"DROP TABLE {table}", f"CREATE TABLE {table} (id BIGINT PRIMARY KEY, s VARCHAR)")
    put(shared_server, table, [batch(1)])


def test_garbage_instead_of_a_header(shared_server, table):
    (schema, _), (header, body) = ipc_parts(SCHEMA, batch(2, 3))
    with refused("INVALID_ARGUMENT"):
        raw_put(shared_server, [flight_data(path=[table], header=b"\xff" * 64)])
    with refused("INVALID_ARGUMENT"):
        raw_put(shared_server, [flight_data(path=[table], header=header, body=body)])
    for message in (schema, header):
        for at in range(0, len(message), 3):
            bad = message[:at] + b"\xff" + message[at + 1:]
            messages = [flight_data(path=[table], header=bad if message is schema else schema),
                        flight_data(header=bad if message is header else header, body=body)]
            try:
                raw_put(shared_server, messages)
            except Exception as e:
                assert e.code().name in ("INVALID_ARGUMENT", "UNIMPLEMENTED", "RESOURCE_EXHAUSTED"), (at, e)
    put(shared_server, table, [batch(1)])


def test_garbage_instead_of_protobuf(shared_server, table):
    with pytest.raises(Exception) as e:
        raw_put(shared_server, [b"\xff\xff\xff\xff\xff"])
    assert e.value.code().name in ("INVALID_ARGUMENT", "INTERNAL"), e.value


def test_a_batch_over_the_message_limit(shared_server, table):
    big = pa.record_batch([pa.array([2], pa.int64()), pa.array(["x" * (65 << 20)])], SCHEMA)
    with refused("RESOURCE_EXHAUSTED"):
        put(shared_server, table, [big])


@pytest.mark.parametrize("sql, code, words", [
    ("SELEC 1", "INVALID_ARGUMENT", ["SELEC"]),
    ("SELECT no_such_column FROM {t}", "INVALID_ARGUMENT", ["no_such_column"]),
    ("SELECT 'x'::INTEGER", "INVALID_ARGUMENT", ["x"]),
    ("", "INVALID_ARGUMENT", []),
    ("-- nothing but a comment", "INVALID_ARGUMENT", []),
    ("SELECT 1; SELECT 2", "INVALID_ARGUMENT", []),
    ("SELECT 'unterminated", "INVALID_ARGUMENT", []),
    ("OPTIMIZE no_such_table", "NOT_FOUND", ["no_such_table"]),
    ("DROP TABLE no_such_table", "NOT_FOUND", ["no_such_table"]),
    ("CREATE TABLE {t} (id BIGINT)", "ALREADY_EXISTS", ["{t}"]),
    ("INSERT INTO {t} VALUES (NULL, 'x')", "INVALID_ARGUMENT", ["id"]),
    ("INSERT INTO {t} VALUES ('no number', 'x')", "INVALID_ARGUMENT", ["no number"]),
])
def test_sql_with_an_error(shared_server, table, sql, code, words):
    for run in (query, query_flight) if sql else (query_flight,):  # ADBC sends no empty statement
        with refused(code, *(w.format(t=table) for w in words)):
            run(shared_server, sql.format(t=table))


@pytest.mark.parametrize("sql", [
    "SELECT * FROM read_csv('{file}')", "SELECT * FROM '{file}'", "SELECT * FROM read_text('{file}')", "SELECT * FROM glob('*')",
    "COPY (SELECT 1) TO '{file}'", "ATTACH '{file}' AS x", "INSTALL httpfs", "LOAD httpfs", "SET threads = 1",
    "PRAGMA enable_profiling", "EXPORT DATABASE '{file}'", "SET enable_external_access = true", "SELECT getenv('HOME')",
])
def test_files_network_extensions_and_settings_are_off(shared_server, table, tmp_path, sql):
    file = tmp_path / "file.csv"
    file.write_text("secret\n1\n")
    with pytest.raises(Exception) as e:
        query(shared_server, sql.format(file=file))
    assert "secret" not in str(e.value)
    assert file.read_text() == "secret\n1\n"


@pytest.mark.parametrize("name", ["../up", "a/b", "..", "con", "x.lance", "_flightd", "ä ö", "a'b", 'q"q'])
def test_table_names_stay_in_the_data_folder(shared_server, name):
    quoted = '"' + name.replace('"', '""') + '"'
    before = {p.name for p in shared_server.folder.iterdir()}
    try:
        execute(shared_server, f"CREATE TABLE {quoted} (id BIGINT PRIMARY KEY, s VARCHAR)")
    except Exception as e:
        assert "INVALID_ARGUMENT" in str(e) or "InvalidArgument" in str(e), e
        return
    put(shared_server, name, [batch(1)])
    execute(shared_server, f"OPTIMIZE {quoted}")
    assert query(shared_server, f"SELECT s FROM {quoted}").to_pylist() == [{"s": "s1"}]
    assert {p.name for p in shared_server.folder.iterdir()} == before
    execute(shared_server, f"DROP TABLE {quoted}")


def test_acks_are_json_of_three_integers(shared_server, table):
    (schema, _), (header, body) = ipc_parts(SCHEMA, batch(2))
    answers = raw_put(shared_server, [flight_data(path=[table], header=schema), flight_data(header=header, body=body)])
    # PutResult{app_metadata 1}: one tag byte, one length byte.
    ack = json.loads(answers[-1][2:])
    assert ack["batches"] == 1 and ack["rows"] == 1 and isinstance(ack["seq"], int)


def flip(path, at):
    """Changes one bit of a file."""
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.write_bytes(data)


def test_a_second_server_on_the_folder_names_the_owner(new_server):
    first, second = new_server().start(), new_server()
    second.data = first.data
    with pytest.raises(NotReady) as e:
        second.start()
    assert e.value.code == 1
    assert str(first.process.pid) in e.value.log
    execute(first, "CREATE TABLE t (id BIGINT PRIMARY KEY, s VARCHAR)")
    put(first, "t", [batch(1)])
    first.kill()
    second.start()
    assert scalar(second, "SELECT count(*) FROM t") == 1


def test_a_flipped_byte_in_a_data_file_is_data_loss(server):
    execute(server, "CREATE TABLE t (id BIGINT PRIMARY KEY, s VARCHAR)", "CREATE TABLE other (id BIGINT PRIMARY KEY, s VARCHAR)")
    put(server, "t", [batch(*range(5000))])
    put(server, "other", [batch(1)])
    execute(server, "OPTIMIZE t")
    server.stop()
    (file,) = server.dataset("t").glob("data/*.lance")
    at = file.read_bytes().find(b"s4000s4001")
    assert at > 0
    flip(file, at)
    found = server.check()
    assert found.returncode == 1 and file.name in found.stdout and "offset" in found.stdout, found
    server.start()
    for run in (query, query_flight):
        with refused("DATA_LOSS", file.name):
            run(server, "SELECT max(s) FROM t")
    assert scalar(server, "SELECT count(*) FROM other") == 1
    put(server, "other", [batch(2)])
    assert server.running()
    flip(file, at)
    server.restart()
    assert scalar(server, "SELECT s FROM t WHERE id = 4000") == "s4000"


def test_a_truncated_data_file_sets_its_table_aside(new_server):
    """The server starts and says what is wrong with the table, and serves the others; with the file put right all is there again."""
    server = new_server().start()
    execute(server, "CREATE TABLE t (id BIGINT PRIMARY KEY, s VARCHAR)", "CREATE TABLE u (id BIGINT PRIMARY KEY, s VARCHAR)")
    put(server, "t", [batch(*range(5000))])
    put(server, "u", [batch(*range(100))])
    execute(server, "OPTIMIZE t")
    server.stop()
    (file,) = server.dataset("t").glob("data/*.lance")
    whole = file.read_bytes()
    file.write_bytes(whole[:-100])
    server.start()
    with refused("DATA_LOSS", '"t"', file.name, "offset"):
        query(server, "SELECT count(*) FROM t")
    with refused("DATA_LOSS", file.name):
        execute(server, "INSERT INTO t VALUES (1, 'x')")
    assert file.name in server.log_text()
    assert scalar(server, "SELECT count(*) FROM u") == 100
    server.stop()
    file.write_bytes(whole)
    server.start()
    assert scalar(server, "SELECT count(*) FROM t") == 5000


def test_a_flipped_byte_in_the_synced_part_of_the_log_refuses_to_start(new_server):
    server = new_server().start()
    execute(server, "CREATE TABLE t (id BIGINT PRIMARY KEY, s VARCHAR)")
    for n in range(20):
        # Each of these is a burst of its own, and the groups after it prove that it was synced.
        put(server, "t", [pa.record_batch([pa.array([n], pa.int64()), pa.array([f"needle-{n:04}"])], SCHEMA)])
    server.kill()
    (file, at), = [(f, i) for f in (server.data / "_flightd").rglob("*") if f.is_file() and (i := f.read_bytes().find(b"needle-0005")) >= 0]
    flip(file, at)
    with pytest.raises(NotReady) as e:
        server.start()
    assert e.value.code == 1
    assert file.name in e.value.log and "offset" in e.value.log
    found = server.check()
    assert found.returncode == 1 and file.name in found.stdout and "offset" in found.stdout, found
    flip(file, at)
    server.start()
    assert scalar(server, "SELECT count(*) FROM t") == 20
