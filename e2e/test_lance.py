"""Lance's own programs on tables that flightd writes."""

import lance
import pytest

from clients import duckdb_with_lance, execute


@pytest.mark.parametrize("shards", [1, 3])
def test_other_programs_list_the_indexes(server, shards):
    execute(server, f"CREATE TABLE docs (id BIGINT PRIMARY KEY, lang VARCHAR, n INTEGER) WITH (shards = {shards})",
            "CREATE INDEX by_lang ON docs USING BTREE (lang)")

    def listed():
        root = str(server.dataset("docs"))
        names = {i.name for i in lance.dataset(root).describe_indices()}
        with duckdb_with_lance() as db:
            assert names == {row[0] for row in db.execute(f"SHOW INDEXES ON '{root}'").fetchall()}
        return names

    assert listed() == {"__lance_mem_wal"}
    execute(server, "INSERT INTO docs SELECT i, 'l' || i % 7, i FROM range(1000) t(i)", "OPTIMIZE docs")
    want = {"__lance_mem_wal", "id_idx", "by_lang"}
    assert listed() == want
    # Lance's own commits leave out what DuckDB's extension asks for; the next one of flightd's has it again.
    ds = lance.dataset(str(server.dataset("docs")))
    ds.delete("n = 5")
    ds.optimize.optimize_indices()
    assert {i.name for i in ds.describe_indices()} == want
    execute(server, "UPDATE docs SET n = n + 1 WHERE id < 10", "OPTIMIZE docs")
    assert listed() == want
