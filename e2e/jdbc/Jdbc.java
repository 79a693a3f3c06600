import java.math.BigDecimal;
import java.sql.Connection;
import java.sql.DatabaseMetaData;
import java.sql.Date;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.ResultSetMetaData;
import java.sql.SQLException;
import java.sql.Statement;
import java.sql.Timestamp;
import java.sql.Types;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.TreeMap;

/** What a user of JDBC does, by the Flight SQL JDBC driver. Prints a line for each check: its name, then "ok" or what went wrong. */
public class Jdbc {
    interface Check { void run(Connection c) throws Exception; }

    static final Map<String, Check> CHECKS = new LinkedHashMap<>();
    static {
        CHECKS.put("create_insert_select", Jdbc::createInsertSelect);
        CHECKS.put("prepared", Jdbc::prepared);
        CHECKS.put("batch", Jdbc::batch);
        CHECKS.put("update_counts", Jdbc::updateCounts);
        CHECKS.put("types", Jdbc::types);
        CHECKS.put("nulls", Jdbc::nulls);
        CHECKS.put("result_metadata", Jdbc::resultMetadata);
        CHECKS.put("catalogs_and_schemas", Jdbc::catalogsAndSchemas);
        CHECKS.put("tables", Jdbc::tables);
        CHECKS.put("columns", Jdbc::columns);
        CHECKS.put("keys", Jdbc::keys);
        CHECKS.put("database_metadata", Jdbc::databaseMetadata);
        CHECKS.put("type_info", Jdbc::typeInfo);
        CHECKS.put("errors", Jdbc::errors);
        CHECKS.put("large_result", Jdbc::largeResult);
        CHECKS.put("many_endpoints", Jdbc::manyEndpoints);
        CHECKS.put("vector_search", Jdbc::vectorSearch);
    }

    public static void main(String[] args) throws Exception {
        for (var check : CHECKS.entrySet()) {
            String outcome = "ok";
            try (Connection c = DriverManager.getConnection(args[0])) {
                check.getValue().run(c);
            } catch (Throwable e) {
                outcome = (e + " at " + Arrays.asList(e.getStackTrace()).subList(0, Math.min(6, e.getStackTrace().length))).replace("\n", " ");
            }
            System.out.println(check.getKey() + "\t" + outcome);
        }
    }

    static void equal(Object want, Object got) {
        if (!Objects.equals(want, got)) {
            throw new AssertionError("want " + want + ", got " + got);
        }
    }

    /** The rows of a result, each column as the driver's own object, and closes it. */
    static List<List<Object>> rows(ResultSet r) throws SQLException {
        try (r) {
            List<List<Object>> out = new ArrayList<>();
            while (r.next()) {
                List<Object> row = new ArrayList<>();
                for (int i = 1; i <= r.getMetaData().getColumnCount(); i++) {
                    row.add(r.getObject(i));
                }
                out.add(row);
            }
            return out;
        }
    }

    static List<List<Object>> query(Connection c, String sql) throws SQLException {
        try (Statement s = c.createStatement()) {
            return rows(s.executeQuery(sql));
        }
    }

    static int update(Connection c, String sql) throws SQLException {
        try (Statement s = c.createStatement()) {
            return s.executeUpdate(sql);
        }
    }

    static void createInsertSelect(Connection c) throws SQLException {
        update(c, "CREATE TABLE j_first (id BIGINT PRIMARY KEY, name VARCHAR, score DOUBLE)");
        equal(2, update(c, "INSERT INTO j_first VALUES (1, 'Ada', 0.5), (2, 'Grace', NULL)"));
        equal(List.of(List.of(1L, "Ada", 0.5), Arrays.asList(2L, "Grace", null)), query(c, "SELECT * FROM j_first ORDER BY id"));
        try (Statement s = c.createStatement()) {
            equal(true, s.execute("SELECT 1"));
            try (ResultSet r = s.getResultSet()) {
                equal(true, r.next());
                equal(1, r.getInt(1));
                equal(false, r.next());
            }
            equal(false, s.execute("INSERT INTO j_first VALUES (3, 'Mary', 1)"));
            equal(1, s.getUpdateCount());
        }
    }

    /** Searches with the vector as a constant and as an array, by the function and by ORDER BY a distance. */
    static void vectorSearch(Connection c) throws SQLException {
        update(c, "CREATE TABLE j_vectors (id BIGINT PRIMARY KEY, name VARCHAR, v FLOAT[3])");
        equal(20, update(c, "INSERT INTO j_vectors SELECT i, 'n' || i, [i, 0, 0] FROM range(20) r(i)"));
        List<List<Object>> near = List.of(List.of(5L, 0.0), List.of(4L, 1.0));
        equal(near, query(c, "SELECT id, _distance FROM lance_vector_search('j_vectors', 'v', [5, 0, 0], k := 2)"));
        try (PreparedStatement p = c.prepareStatement("SELECT id, _distance FROM lance_vector_search('j_vectors', 'v', ?, k := 2)")) {
            equal(1, p.getParameterMetaData().getParameterCount());
            equal(2, p.getMetaData().getColumnCount());
            p.setArray(1, c.createArrayOf("FLOAT", new Float[] {5f, 0f, 0f}));
            equal(near, rows(p.executeQuery()));
            p.setArray(1, c.createArrayOf("FLOAT", new Float[] {7f, 0f, 0f}));
            equal(List.of(List.of(7L, 0.0), List.of(6L, 1.0)), rows(p.executeQuery()));
        }
        try (PreparedStatement p = c.prepareStatement("SELECT name FROM lance_vector_search('j_vectors', 'v', ?, k := ?, prefilter := true) WHERE id > ?::BIGINT")) {
            p.setArray(1, c.createArrayOf("FLOAT", new Float[] {5f, 0f, 0f}));
            p.setString(2, "2"); // what the statement leaves open is told as a string
            p.setString(3, "9");
            equal(List.of(List.of("n10"), List.of("n11")), rows(p.executeQuery()));
        }
        try (PreparedStatement p = c.prepareStatement("SELECT id FROM j_vectors WHERE id <> ? ORDER BY array_distance(v, ?::FLOAT[3]), id LIMIT 3")) {
            p.setLong(1, 4);
            p.setArray(2, c.createArrayOf("FLOAT", new Float[] {5f, 0f, 0f}));
            equal(List.of(List.of(5L), List.of(6L), List.of(3L)), rows(p.executeQuery()));
        }
    }

    static void prepared(Connection c) throws SQLException {
        update(c, "CREATE TABLE j_prepared (id BIGINT PRIMARY KEY, name VARCHAR, n INTEGER, day DATE, moment TIMESTAMP, price DECIMAL(10,2), ok BOOLEAN)");
        try (PreparedStatement p = c.prepareStatement("INSERT INTO j_prepared VALUES (?, ?, ?, ?, ?, ?, ?)")) {
            equal(7, p.getParameterMetaData().getParameterCount());
            p.setLong(1, 1);
            p.setString(2, "one");
            p.setInt(3, 11);
            p.setDate(4, Date.valueOf("2026-01-02"));
            p.setTimestamp(5, Timestamp.valueOf("2026-01-02 03:04:05.123456"));
            p.setBigDecimal(6, new BigDecimal("12.34"));
            p.setBoolean(7, true);
            equal(1, p.executeUpdate());
            p.setLong(1, 2);
            p.setNull(2, Types.VARCHAR);
            equal(1, p.executeUpdate());
        }
        try (PreparedStatement p = c.prepareStatement("SELECT id, name, n, price, ok FROM j_prepared WHERE id >= ? AND n = ? ORDER BY id")) {
            p.setLong(1, 1);
            p.setInt(2, 11);
            equal(List.of(List.of(1L, "one", 11, new BigDecimal("12.34"), true),
                Arrays.asList(2L, null, 11, new BigDecimal("12.34"), true)), rows(p.executeQuery()));
            p.setLong(1, 2);
            equal(1, rows(p.executeQuery()).size());
        }
        try (PreparedStatement p = c.prepareStatement("DELETE FROM j_prepared WHERE name = ?")) {
            p.setString(1, "one");
            equal(1, p.executeUpdate());
            equal(0, p.executeUpdate());
        }
    }

    static void batch(Connection c) throws SQLException {
        update(c, "CREATE TABLE j_batch (id BIGINT PRIMARY KEY, name VARCHAR)");
        try (PreparedStatement p = c.prepareStatement("INSERT INTO j_batch VALUES (?, ?)")) {
            for (int i = 0; i < 1000; i++) {
                p.setLong(1, i);
                p.setString(2, "n" + i);
                p.addBatch();
            }
            // The driver sends all rows as one update and returns one count for it.
            equal(1000, Arrays.stream(p.executeBatch()).sum());
        }
        equal(List.of(List.of(1000L, 999L)), query(c, "SELECT count(*), max(id) FROM j_batch"));
    }

    static void updateCounts(Connection c) throws SQLException {
        equal(0, update(c, "CREATE TABLE j_counts (id BIGINT PRIMARY KEY, n INTEGER)"));
        equal(100, update(c, "INSERT INTO j_counts SELECT range, 0 FROM range(100)"));
        equal(50, update(c, "UPDATE j_counts SET n = n + 1 WHERE id < 50"));
        equal(10, update(c, "DELETE FROM j_counts WHERE id >= 90"));
        equal(0, update(c, "UPDATE j_counts SET n = 5 WHERE id < 0"));
        equal(List.of(List.of(90L)), query(c, "SELECT count(*) FROM j_counts"));
        equal(0, update(c, "DROP TABLE j_counts"));
    }

    static void types(Connection c) throws SQLException {
        update(c, "CREATE TABLE j_types (k BIGINT PRIMARY KEY, b BOOLEAN, i8 TINYINT, i16 SMALLINT, i32 INTEGER, i64 BIGINT, u8 UTINYINT, "
            + "u32 UINTEGER, f FLOAT, d DOUBLE, p DECIMAL(9,2), s VARCHAR, bin BLOB, day DATE, t TIME, ts TIMESTAMP, l INTEGER[], v FLOAT[2])");
        update(c, "INSERT INTO j_types VALUES (1, true, 1, 2, 3, 4, 5, 6, 0.5, 0.25, 12.34, 'text', 'ab'::BLOB, DATE '2026-01-02', "
            + "TIME '03:04:05', TIMESTAMP '2026-01-02 03:04:05.123456', [1, 2], [0.5, 1.5])");
        try (Statement s = c.createStatement(); ResultSet r = s.executeQuery("SELECT * FROM j_types")) {
            equal(true, r.next());
            equal(true, r.getBoolean("b"));
            equal((byte) 1, r.getByte("i8"));
            equal((short) 2, r.getShort("i16"));
            equal(3, r.getInt("i32"));
            equal(4L, r.getLong("i64"));
            equal(5, r.getInt("u8"));
            equal(6L, r.getLong("u32"));
            equal(0.5f, r.getFloat("f"));
            equal(0.25, r.getDouble("d"));
            equal(new BigDecimal("12.34"), r.getBigDecimal("p"));
            equal("text", r.getString("s"));
            equal("ab", new String(r.getBytes("bin")));
            equal("2026-01-02", r.getString("day"));
            equal("2026-01-02", r.getDate("day").toString());
            equal(true, r.getString("t").startsWith("03:04:05"));
            equal(Timestamp.valueOf("2026-01-02 03:04:05.123456"), r.getTimestamp("ts"));
            equal(List.of(1, 2), Arrays.asList((Object[]) r.getArray("l").getArray()));
            equal(List.of(0.5f, 1.5f), Arrays.asList((Object[]) r.getArray("v").getArray()));
        }
        equal(List.of(List.of("2026-01-02 03:04:05+00")),
            query(c, "SELECT CAST(TIMESTAMPTZ '2026-01-02 03:04:05+00' AS VARCHAR)"));
    }

    static void nulls(Connection c) throws SQLException {
        update(c, "CREATE TABLE j_nulls (k BIGINT PRIMARY KEY, i INTEGER, s VARCHAR, d DOUBLE, ts TIMESTAMP, p DECIMAL(9,2))");
        update(c, "INSERT INTO j_nulls (k) VALUES (1)");
        try (Statement s = c.createStatement(); ResultSet r = s.executeQuery("SELECT i, s, d, ts, p FROM j_nulls")) {
            equal(true, r.next());
            equal(0, r.getInt(1));
            equal(true, r.wasNull());
            for (int i = 2; i <= 5; i++) {
                equal(null, r.getObject(i));
                equal(true, r.wasNull());
            }
        }
    }

    static void resultMetadata(Connection c) throws SQLException {
        update(c, "CREATE TABLE j_meta (id BIGINT PRIMARY KEY, price DECIMAL(10,3), name VARCHAR)");
        update(c, "INSERT INTO j_meta VALUES (1, 2.5, 'x')"); // of a result without rows the driver shows each column twice
        try (Statement s = c.createStatement(); ResultSet r = s.executeQuery("SELECT id, price, name AS label FROM j_meta")) {
            ResultSetMetaData m = r.getMetaData();
            equal(3, m.getColumnCount());
            equal("label", m.getColumnLabel(3));
            equal(List.of(Types.BIGINT, Types.DECIMAL, Types.VARCHAR), List.of(m.getColumnType(1), m.getColumnType(2), m.getColumnType(3)));
            equal("DECIMAL", m.getColumnTypeName(2));
            equal(10, m.getPrecision(2));
            equal(3, m.getScale(2));
            equal(19, m.getPrecision(1));
        }
    }

    /** The named columns of a metadata result. */
    static List<List<Object>> named(ResultSet r, String... columns) throws SQLException {
        try (r) {
            List<List<Object>> out = new ArrayList<>();
            while (r.next()) {
                List<Object> row = new ArrayList<>();
                for (String column : columns) {
                    row.add(r.getObject(column));
                }
                out.add(row);
            }
            return out;
        }
    }

    static void catalogsAndSchemas(Connection c) throws SQLException {
        equal(List.of(List.of("flightd")), named(c.getMetaData().getCatalogs(), "TABLE_CAT"));
        equal(List.of(List.of("flightd_catalog", "flightd"), List.of("main", "flightd")), named(c.getMetaData().getSchemas(), "TABLE_SCHEM", "TABLE_CATALOG"));
        equal(List.of(), named(c.getMetaData().getSchemas("flightd", "no%"), "TABLE_SCHEM"));
        equal(List.of(List.of("SYSTEM TABLE"), List.of("TABLE"), List.of("VIEW")), named(c.getMetaData().getTableTypes(), "TABLE_TYPE"));
    }

    static void tables(Connection c) throws SQLException {
        update(c, "CREATE TABLE \"j_Listed\" (id BIGINT PRIMARY KEY)");
        DatabaseMetaData m = c.getMetaData();
        String[] want = {"TABLE_CAT", "TABLE_SCHEM", "TABLE_NAME", "TABLE_TYPE"};
        List<List<Object>> listed = List.of(List.of("flightd", "main", "j_Listed", "TABLE"));
        equal(listed, named(m.getTables(null, null, "j\\_List%", null), want));
        equal(listed, named(m.getTables("flightd", "main", "j_Listed", new String[] {"TABLE", "VIEW"}), want));
        equal(List.of(), named(m.getTables(null, null, "j_Listed", new String[] {"VIEW"}), want));
        equal(List.of(), named(m.getTables("nowhere", null, "j_Listed", null), want));
    }

    static void columns(Connection c) throws SQLException {
        update(c, "CREATE TABLE j_columns (id BIGINT PRIMARY KEY, price DECIMAL(10,2), name VARCHAR NOT NULL)");
        DatabaseMetaData m = c.getMetaData();
        equal(List.of(
                List.of("id", Types.BIGINT, "BIGINT", 1, "NO"),
                List.of("price", Types.DECIMAL, "DECIMAL", 2, "YES"),
                List.of("name", Types.VARCHAR, "VARCHAR", 3, "NO")),
            named(m.getColumns(null, null, "j_columns", null), "COLUMN_NAME", "DATA_TYPE", "TYPE_NAME", "ORDINAL_POSITION", "IS_NULLABLE"));
        equal(List.of(Arrays.asList("price", 10, 2)),
            named(m.getColumns("flightd", "main", "j_columns", "pri%"), "COLUMN_NAME", "COLUMN_SIZE", "DECIMAL_DIGITS"));
    }

    static void keys(Connection c) throws SQLException {
        update(c, "CREATE TABLE j_keys (a VARCHAR, b BIGINT, x DOUBLE, PRIMARY KEY (b, a))");
        DatabaseMetaData m = c.getMetaData();
        Map<Object, Object> key = new TreeMap<>();
        for (List<Object> row : named(m.getPrimaryKeys(null, null, "j_keys"), "KEY_SEQ", "COLUMN_NAME")) {
            key.put(row.get(0), row.get(1));
        }
        equal("{1=b, 2=a}", key.toString());
        equal(List.of(), rows(m.getImportedKeys(null, null, "j_keys")));
        equal(List.of(), rows(m.getExportedKeys(null, null, "j_keys")));
        equal(List.of(), rows(m.getCrossReference(null, null, "j_keys", null, null, "j_keys")));
    }

    /** Asks for everything that takes no argument: the driver fails with a null pointer on what the server leaves open. */
    static void databaseMetadata(Connection c) throws Exception {
        DatabaseMetaData m = c.getMetaData();
        List<String> failed = new ArrayList<>();
        for (var method : DatabaseMetaData.class.getMethods()) {
            if (method.getParameterCount() > 0 || ResultSet.class.isAssignableFrom(method.getReturnType())) {
                continue;
            }
            try {
                method.invoke(m);
            } catch (java.lang.reflect.InvocationTargetException e) {
                if (!(e.getCause() instanceof java.sql.SQLFeatureNotSupportedException)) {
                    failed.add(method.getName() + ": " + e.getCause());
                }
            }
        }
        equal(List.of(), failed);
        equal("flightd", m.getDatabaseProductName());
        equal("\"", m.getIdentifierQuoteString());
        equal(false, m.isReadOnly());
        equal(true, m.supportsBatchUpdates());
        equal(false, m.supportsTransactions());
    }

    /** The driver answers getTypeInfo by itself, with nothing. */
    static void typeInfo(Connection c) throws SQLException {
        rows(c.getMetaData().getTypeInfo());
    }

    static void fails(Connection c, String sql, String words) throws SQLException {
        try {
            update(c, sql);
        } catch (SQLException e) {
            if (!String.valueOf(e.getMessage()).contains(words)) {
                throw new AssertionError("want " + words + " in: " + e.getMessage());
            }
            // The driver gives its errors no SQLState; the text has gRPC's code and our words.
            System.err.println(sql + " -> SQLState " + e.getSQLState() + ", " + e.getMessage());
            return;
        }
        throw new AssertionError(sql + " was accepted");
    }

    static void errors(Connection c) throws SQLException {
        update(c, "CREATE TABLE j_errors (id BIGINT PRIMARY KEY)");
        fails(c, "INSERT INTO j_errors VALUES ('x')", "x");
        fails(c, "SELEC 1", "SELEC");
        fails(c, "SELECT * FROM j_no_such_table", "j_no_such_table");
        fails(c, "CREATE TABLE j_errors (x INTEGER)", "j_errors");
        update(c, "INSERT INTO j_errors VALUES (1)");
        fails(c, "INSERT INTO j_errors VALUES (1)", "1");
        equal(List.of(List.of(1L)), query(c, "SELECT id FROM j_errors"));
    }

    static void largeResult(Connection c) throws SQLException {
        try (Statement s = c.createStatement(); ResultSet r = s.executeQuery("SELECT range AS i, 'row ' || range AS s FROM range(300000)")) {
            long n = 0, sum = 0;
            while (r.next()) {
                n++;
                sum += r.getLong(1);
            }
            equal(300000L, n);
            equal(300000L * 299999 / 2, sum);
        }
    }

    static void manyEndpoints(Connection c) throws SQLException {
        update(c, "CREATE TABLE j_many (id BIGINT PRIMARY KEY, s VARCHAR)");
        update(c, "INSERT INTO j_many SELECT range, 'x' FROM range(2000000)");
        try (Statement s = c.createStatement(); ResultSet r = s.executeQuery("SELECT id FROM j_many WHERE id % 2 = 0")) {
            long n = 0, sum = 0;
            while (r.next()) {
                n++;
                sum += r.getLong(1);
            }
            equal(1000000L, n);
            equal(999999L * 1000000, sum);
        }
    }
}
