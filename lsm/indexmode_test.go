package lsm

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/internal/rows"
)

func TestTheIndexModeOfATable(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	s, err := rows.Schema(writesSchema)
	require.NoError(t, err)
	db := openUnhurried(t, dir)
	for name, mode := range map[string]IndexMode{"s": Sync, "a": Async, "n": ""} {
		require.NoError(t, db.CreateTable(ctx, TableDef{Name: TableName{Name: name}, Schema: s, IndexMode: mode}))
	}
	modes := func() map[string][2]IndexMode { // what WITH said, and what holds
		got := map[string][2]IndexMode{}
		for _, table := range db.Tables() {
			d, _ := table.Definition()
			got[table.Name().Name] = [2]IndexMode{d.IndexMode, table.IndexMode()}
		}
		return got
	}
	want := map[string][2]IndexMode{"s": {Sync, Sync}, "a": {Async, Async}, "n": {"", Sync}}
	require.Equal(t, want, modes())
	require.NoError(t, db.Close())

	db = openUnhurried(t, dir)
	require.Equal(t, want, modes())
	err = db.CreateTable(ctx, TableDef{Name: TableName{Name: "x"}, Schema: s, IndexMode: "eager"})
	require.ErrorIs(t, err, ErrInvalid)
	require.ErrorContains(t, err, `index mode "eager"`)
	require.NoError(t, db.Close())
}
