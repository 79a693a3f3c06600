package flight

import (
	"strings"
	"testing"
	"time"

	pb "github.com/apache/arrow-go/v18/arrow/flight/gen/flight"
	"github.com/stretchr/testify/require"
)

func TestLike(t *testing.T) {
	f := func(pattern, name string, want bool) {
		t.Helper()
		require.Equal(t, want, like(&pattern, name), "%q like %q", name, pattern)
	}
	f("%", "docs", true)
	f("%", "", true)
	f("", "", true)
	f("", "docs", false)
	f("docs", "DOCS", true)
	f("d%s", "docs", true)
	f("d%c", "docs", false)
	f("_ocs", "docs", true)
	f("_", "docs", false)
	f("a_b", "a_b", true)
	f("a_b", "axb", true)
	f(`a\_b`, "a_b", true)
	f(`a\_b`, "axb", false)
	f(`%\%`, "100%", true)
	f("%a%b%", "xxaxxbxx", true)
	f("%a%b%", "xxbxxaxx", false)
	f("ä%", "Ähre", true)
	f(strings.Repeat("%a", 30)+"b", strings.Repeat("a", 3000), false)
	require.True(t, like(nil, "anything"))
}

func TestEverySQLInfoIsAnswered(t *testing.T) {
	info := sqlInfoOf("1.2.3", 30*time.Minute)
	require.EqualValues(t, 1_800_000, info[100])
	for id, name := range pb.SqlInfo_name {
		require.Contains(t, info, uint32(id), name)
	}
	require.Len(t, info, len(pb.SqlInfo_name))
	rows, err := sqlInfoRows(info, nil)
	require.NoError(t, err)
	defer rows.Release()
	require.EqualValues(t, len(info), rows.NumRows())
	_, err = sqlInfoRows(info, []uint32{4711})
	require.ErrorContains(t, err, "4711")
}

func TestXdbcTypesCanBeFiltered(t *testing.T) {
	all := xdbcRows(nil)
	defer all.Release()
	require.EqualValues(t, len(xdbcTypes), all.NumRows())
	code := int32(pb.XdbcDataType_XDBC_BIGINT)
	some := xdbcRows(&code)
	defer some.Release()
	require.EqualValues(t, 2, some.NumRows())
}

func TestTicketsAreReadBack(t *testing.T) {
	for _, want := range []queryTicket{{schema: "main", sql: "SELECT 1"}, {sql: "x"}, {schema: "main", sql: "SELECT 1", prepared: "HANDLE"}, {update: true, rows: 42}, {update: true, rows: -1}} {
		packed, err := packTicket(want)
		require.NoError(t, err)
		command, err := parseCommand(packed)
		require.NoError(t, err)
		got, err := parseTicket(command.(*pb.TicketStatementQuery).GetStatementHandle())
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	for _, bad := range []string{"", "q", "q12345678", "q12345678\xFFshort", "u12345678123", "z1234567812345678"} {
		_, err := parseTicket([]byte(bad))
		require.ErrorContains(t, err, "not one of this server's", "%q", bad)
	}
}
