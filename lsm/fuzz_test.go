package lsm

import (
	"encoding/json"
	"errors"
	"hash/crc32"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/lsm/wal"
	"github.com/flightd/flightd/object"
)

// FuzzDecodeCatalog reads any bytes as the catalog's checkpoint, as they are and with a checksum that fits.
func FuzzDecodeCatalog(f *testing.F) {
	text := []byte(`{"lsn":7,"last_incarnation":2,"tables":[{"schema":"main","name":"t","incarnation":2,"key":["id"],"schemas":[{"id":1}]}]}`)
	f.Add(text)
	f.Add([]byte(`{}`))
	f.Add(text[:20])
	f.Fuzz(func(t *testing.T, text []byte) {
		_, _, err := decodeCatalog("catalog", text)
		var damage *object.CorruptError
		require.True(t, err == nil || errors.As(err, &damage), "%v", err)
		if !json.Valid(text) {
			return
		}
		b, err := json.Marshal(checkpoint{Catalog: text, CRC32C: crc32.Checksum(text, castagnoli)})
		require.NoError(t, err)
		c, _, err := decodeCatalog("catalog", b)
		if err != nil {
			require.ErrorAs(t, err, &damage)
			return
		}
		for _, e := range c.Tables {
			_, _ = newTable(nil, e) // whatever it says, no panic
		}
	})
}

// FuzzDecodeStageCommit reads any bytes as the record that commits a stage: what it names stays below the shard.
func FuzzDecodeStageCommit(f *testing.F) {
	f.Add([]byte(`{"generations":[{"path":"0a_gen_0","rows":7,"bytes":9,"key_bytes":3}]}`))
	f.Add([]byte(`{"generations":[{"path":"../x","rows":-1}]}`))
	f.Add([]byte(`{"gen`))
	f.Fuzz(func(t *testing.T, body []byte) {
		_ = Describe(&wal.Record{Kind: wal.StageCommit, Body: [][]byte{body}})
		c, err := decodeStageCommit(body)
		if err != nil {
			return
		}
		for _, g := range c.Generations {
			require.GreaterOrEqual(t, g.Rows, int64(0))
			require.NotContains(t, "/"+g.Path+"/", "/../")
			require.Less(t, uint(g.Shard), uint(MaxShards))
		}
	})
}

// FuzzDDL applies any bytes as a DDL record to a catalog.
func FuzzDDL(f *testing.F) {
	f.Add([]byte(`{"create":{"schema":"main","name":"t","incarnation":2}}`))
	f.Add([]byte(`{"drop":2}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		_ = Describe(&wal.Record{Kind: wal.DDL, Body: [][]byte{body}})
		var d ddl
		if json.Unmarshal(body, &d) == nil {
			c := &catalog{Tables: []tableEntry{{Name: "t", Incarnation: 2}}}
			c.apply(9, d)
			require.EqualValues(t, 9, c.LSN)
		}
	})
}
