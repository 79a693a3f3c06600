package manifest

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/internal/lancepb"
	"github.com/flightd/flightd/object"
)

var rewrite = flag.Bool("rewrite", false, "write the goldens anew; read the diff")

// golden compares text with a file in testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *rewrite {
		require.NoError(t, os.WriteFile(file, []byte(got), 0o644))
	}
	want, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, string(want), got)
}

// pylanceGoldens opens the folder that testdata/manifest/make.py fills.
func pylanceGoldens(t *testing.T) object.Store {
	t.Helper()
	return object.NewLocal(filepath.Join("..", "testdata", "manifest"))
}

func TestVersionsOfPylanceMeanWhatPylanceSays(t *testing.T) {
	ctx, st, root := context.Background(), pylanceGoldens(t), "golden.lance"
	b, err := st.Get(ctx, "expected.json")
	require.NoError(t, err)
	var want struct {
		Versions []struct {
			Version   uint64
			Count     int64
			Fragments []struct {
				ID      uint64
				Rows    int64
				Deleted [][2]uint64
			}
			Indexes []struct {
				Name      string
				Fragments []uint32
			}
		}
	}
	require.NoError(t, json.Unmarshal(b, &want))
	kinds := make(map[DeletionKind]bool)
	for _, w := range want.Versions {
		v, err := Load(ctx, st, root, w.Version)
		require.NoError(t, err)
		require.Equal(t, w.Count, v.Rows())
		require.Len(t, v.Fragments, len(w.Fragments))
		for i, f := range w.Fragments {
			require.Equal(t, f.ID, v.Fragments[i].ID)
			require.Equal(t, f.Rows, v.Fragments[i].Rows)
			got, err := v.Deletions(ctx, st, root, &v.Fragments[i])
			require.NoError(t, err)
			if len(f.Deleted) == 0 {
				require.Nil(t, got)
				continue
			}
			kinds[v.Fragments[i].Deletion.Kind] = true
			deleted := roaring.New()
			for _, run := range f.Deleted {
				deleted.AddRange(run[0], run[0]+run[1])
			}
			require.True(t, deleted.Equals(got))
		}
		require.Len(t, v.Indexes, len(w.Indexes))
		for i, x := range w.Indexes {
			require.Equal(t, x.Name, v.Indexes[i].Name)
			require.Equal(t, x.Fragments, v.Indexes[i].Fragments.ToArray())
			require.True(t, v.Indexes[i].BTree())
		}
	}
	require.Len(t, kinds, 2, "the goldens have deletion files of both kinds")
	last, err := Latest(ctx, st, root, Options{})
	require.NoError(t, err)
	require.EqualValues(t, len(want.Versions), last.Number)
	require.EqualValues(t, 1, last.memWAL.GetNumShards())
	require.EqualValues(t, 2, last.NextFieldID())
}

func TestShardOfPylanceIsRead(t *testing.T) {
	id := uuid.MustParse("00000000-0000-0000-0000-000000000007")
	s, err := LoadShard(context.Background(), pylanceGoldens(t), "golden.lance/_mem_wal/"+id.String(), Options{})
	require.NoError(t, err)
	require.Len(t, s.Generations, 1)
	g := s.Generations[0]
	require.True(t, strings.HasSuffix(g.Path, "_gen_1"))
	require.EqualValues(t, 6, g.Rows)
	require.Equal(t, Shard{
		ID: id, Version: 2, SpecID: 1, Epoch: 1, ReplayAfter: s.ReplayAfter, LastSeen: s.LastSeen, CurrentGeneration: 2,
		Generations: []Generation{{Number: 1, Path: g.Path, Rows: 6, Bytes: g.Bytes, KeyBytes: g.KeyBytes}}, raw: s.raw,
	}, *s)
}

func TestDescribe(t *testing.T) {
	ctx, st := context.Background(), pylanceGoldens(t)
	v, err := Latest(ctx, st, "golden.lance", Options{})
	require.NoError(t, err)
	var b bytes.Buffer
	require.NoError(t, v.Describe(&b))
	s, err := LoadShard(ctx, st, "golden.lance/_mem_wal/00000000-0000-0000-0000-000000000007", Options{})
	require.NoError(t, err)
	require.NoError(t, s.Describe(&b))
	golden(t, "describe.txt", b.String())
}

// annotated prints bytes with what they are, part by part.
func annotated(b []byte, parts ...any) string {
	var out strings.Builder
	at := 0
	for i := 0; i < len(parts); i += 2 {
		n, what := parts[i].(int), parts[i+1].(string)
		for line := b[at : at+n]; len(line) > 0; {
			k := min(len(line), 16)
			fmt.Fprintf(&out, "%04x  %-32s  %s\n", at, hex.EncodeToString(line[:k]), what)
			line, at, what = line[k:], at+k, ""
		}
	}
	if at != len(b) {
		fmt.Fprintf(&out, "%04x  %x  not annotated\n", at, b[at:])
	}
	return out.String()
}

func TestBytesOfAVersion(t *testing.T) {
	last := uint32(4)
	m := &lancepb.Manifest{
		Version: 3, Fields: testSchema(t).Proto(), MaxFragmentId: &last,
		WriterVersion: &lancepb.WriterVersion{Library: library, Version: formatVersion},
		DataFormat:    &lancepb.DataFormat{FileFormat: "lance", Version: "2.0"},
		Fragments: []*lancepb.DataFragment{{Id: 4, PhysicalRows: 10, Files: []*lancepb.DataFile{{
			Path: "a.lance", Fields: []int32{0, 1}, ColumnIndices: []int32{0, 1}, FileMajorVersion: 2, FileSizeBytes: 700,
		}}}},
	}
	d := newMemWAL(1, 0)
	d.CompactedSstables = compactedProto(map[uuid.UUID]uint64{{1}: 2})
	entry, err := memWALProto(d, 3)
	require.NoError(t, err)
	created := uint64(1)
	entry.Uuid, entry.CreatedAt = uuidProto(uuid.UUID{2}), &created
	tx := &lancepb.Transaction{ReadVersion: 2, Uuid: "tx", Operation: &lancepb.Transaction_UpdateMemWalState{
		UpdateMemWalState: &lancepb.UpdateMemWalStateOperation{CompactedSstables: d.CompactedSstables},
	}}
	b, err := encodeVersion(m, &lancepb.IndexSection{Indices: []*lancepb.IndexMetadata{entry}}, tx)
	require.NoError(t, err)
	index, txAt := int(m.GetIndexSection()), int(m.GetTransactionSection())
	at := txAt + wordBytes + int(b[txAt])
	foot := len(b) - footerBytes
	golden(t, "version.txt", annotated(b,
		len(headMagic), "magic", 4, "crc32c of what follows the head", 4, "not used",
		wordBytes, "length", txAt-index-wordBytes, "index section",
		wordBytes, "length", at-txAt-wordBytes, "transaction",
		wordBytes, "length", foot-at-wordBytes, "manifest",
		8, "where the manifest's length is", 4, "0, 2", 4, "magic of Lance",
	))
}

func TestBytesOfAShard(t *testing.T) {
	s := &Shard{
		ID: uuid.UUID{1}, Version: 3, SpecID: 1, Epoch: 2, ReplayAfter: 300, LastSeen: 301, CurrentGeneration: 7, Sealed: true,
		Generations: []Generation{{Number: 6, Path: "0000000a_gen_6", Rows: 5, Bytes: 600, KeyBytes: 40}},
		nonce:       uuid.UUID{9},
	}
	b, err := s.encode()
	require.NoError(t, err)
	const nonceBytes = 3 + 16
	golden(t, "shard.txt", annotated(b, len(b)-checksumBytes-nonceBytes, "ShardManifest", 3, "tag and length of field 2045", 16, "nonce",
		2, "tag of field 2047", 4, "crc32c of what is above"))
	s.Entry = 12
	b, err = s.encode()
	require.NoError(t, err)
	golden(t, "shard_entries.txt", annotated(b, len(b)-checksumBytes-nonceBytes-10, "ShardManifest", 3, "tag and length of field 2045", 16, "nonce",
		2, "tag of field 2046", 8, "LSN", 2, "tag of field 2047", 4, "crc32c of what is above"))
}
