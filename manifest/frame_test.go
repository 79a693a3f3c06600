package manifest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/flightd/flightd/internal/lancepb"
	"github.com/flightd/flightd/lance"
	"github.com/flightd/flightd/object"
)

// sampleVersion is a version of each kind of thing that a manifest holds.
func sampleVersion(t testing.TB) []byte {
	t.Helper()
	ctx, st, root := context.Background(), object.NewMem(), "t.lance"
	v := appendRows(t, st, root, createTable(t, st, root), "a.lance", 10)
	v, err := Commit(ctx, st, root, v, Change{
		Append:    []Fragment{dataFile(t, st, root, "b.lance", 10)},
		Delete:    map[uint64]*roaring.Bitmap{0: roaring.BitmapOf(3)},
		Compacted: map[uuid.UUID]uint64{{1}: 2},
		Indexes: func(_ *Version, ids []uint64) ([]Index, error) {
			return []Index{testIndex(st, root, ids...)}, nil
		},
	}, Options{})
	require.NoError(t, err)
	b, err := st.Get(ctx, v.name)
	require.NoError(t, err)
	return b
}

func TestEveryFlippedBitOfAVersionIsFound(t *testing.T) {
	b := sampleVersion(t)
	for i := range b {
		bad := bytes.Clone(b)
		bad[i] ^= 1 << (i % 8)
		_, err := decodeVersion("v", bad)
		// The four bytes between the checksum and the first section are not used.
		if i >= len(headMagic)+4 && i < headBytes {
			continue
		}
		var corrupt *object.CorruptError
		require.ErrorAs(t, err, &corrupt, "byte %d", i)
		require.Equal(t, "v", corrupt.Name)
	}
}

func TestEveryCutOfAVersionIsFound(t *testing.T) {
	b := sampleVersion(t)
	for n := range b {
		_, err := decodeVersion("v", b[:n])
		var corrupt *object.CorruptError
		require.ErrorAs(t, err, &corrupt, "%d bytes", n)
	}
}

// foreign lays out a manifest as other writers do: no head, no checksum.
func foreign(t testing.TB, m *lancepb.Manifest, index *lancepb.IndexSection) []byte {
	t.Helper()
	var b []byte
	var err error
	if index != nil {
		at := uint64(0)
		m.IndexSection = &at
		b, err = appendSection(b, index)
		require.NoError(t, err)
	}
	at := len(b)
	b, err = appendSection(b, m)
	require.NoError(t, err)
	b = binary.LittleEndian.AppendUint64(b, uint64(at))
	return append(b, 0, 0, 2, 0, 'L', 'A', 'N', 'C')
}

func TestUnknownFlagsAreRefusedByNumber(t *testing.T) {
	for _, c := range []struct {
		reader, writer uint64
		read, write    int
	}{
		{read: -1, write: -1},
		{reader: 1, writer: 1 | 1<<3 | 1<<5, read: -1, write: -1},
		{reader: 1 << 1, writer: 1 << 1, read: -1, write: -1},
		{reader: 1 << 8, writer: 1 << 8, read: -1, write: 8},
		{writer: 1 << 15, read: -1, write: 15},
		{reader: 1 << 12, writer: 1 << 12, read: 12},
		{reader: 1 << 40, read: 40},
	} {
		m := &lancepb.Manifest{Version: 1, ReaderFeatureFlags: c.reader, WriterFeatureFlags: c.writer}
		v, err := decodeVersion("v", foreign(t, m, nil))
		var unsupported *UnsupportedError
		if c.read >= 0 {
			require.ErrorAs(t, err, &unsupported)
			require.Equal(t, UnsupportedError{Name: "v", Bit: c.read}, *unsupported)
			continue
		}
		require.NoError(t, err)
		err = checkWritable("v", v.raw)
		if c.write < 0 {
			require.NoError(t, err)
			continue
		}
		require.ErrorAs(t, err, &unsupported)
		require.Equal(t, UnsupportedError{Name: "v", Bit: c.write, Write: true}, *unsupported)
	}
}

func TestManifestsThatPointOutsideTheTableAreRefused(t *testing.T) {
	base := uint32(1)
	fragment := func(f func(*lancepb.DataFragment)) *lancepb.Manifest {
		p := &lancepb.DataFragment{PhysicalRows: 5, Files: []*lancepb.DataFile{{Path: "a.lance", Fields: []int32{0}, ColumnIndices: []int32{0}}}}
		f(p)
		return &lancepb.Manifest{Version: 1, Fragments: []*lancepb.DataFragment{p}}
	}
	for name, m := range map[string]*lancepb.Manifest{
		"parent":           fragment(func(p *lancepb.DataFragment) { p.Files[0].Path = "../../etc/passwd" }),
		"absolute":         fragment(func(p *lancepb.DataFragment) { p.Files[0].Path = "/etc/passwd" }),
		"other base":       fragment(func(p *lancepb.DataFragment) { p.Files[0].BaseId = &base }),
		"columns":          fragment(func(p *lancepb.DataFragment) { p.Files[0].Fields = nil }),
		"id":               fragment(func(p *lancepb.DataFragment) { p.Id = 1 << 32 }),
		"rows":             fragment(func(p *lancepb.DataFragment) { p.PhysicalRows = 1 << 63 }),
		"deletions":        fragment(func(p *lancepb.DataFragment) { p.DeletionFile = &lancepb.DeletionFile{NumDeletedRows: 6} }),
		"kind of deletion": fragment(func(p *lancepb.DataFragment) { p.DeletionFile = &lancepb.DeletionFile{FileType: 7} }),
	} {
		_, err := decodeVersion("v", foreign(t, m, nil))
		var corrupt *object.CorruptError
		require.ErrorAs(t, err, &corrupt, name)
	}
	section := &lancepb.IndexSection{Indices: []*lancepb.IndexMetadata{{
		Uuid: uuidProto(uuid.New()), Name: "i", Files: []*lancepb.IndexFile{{Path: "../x"}},
	}}}
	_, err := decodeVersion("v", foreign(t, &lancepb.Manifest{Version: 1}, section))
	require.ErrorContains(t, err, `"../x"`)
}

func TestWhatAVersionSaysBeyondUsSurvivesACommit(t *testing.T) {
	ctx, st, root := context.Background(), object.NewMem(), "t.lance"
	extra := protowire.AppendString(protowire.AppendTag(nil, 900, protowire.BytesType), "from the future")
	m := &lancepb.Manifest{
		Version: 1, Fields: testSchema(t).Proto(), DataFormat: &lancepb.DataFormat{FileFormat: "lance", Version: "2.0"},
		Config: map[string]string{"lance.auto_cleanup.interval": "20"}, TableMetadata: map[string]string{"k": "v"},
		Fragments: []*lancepb.DataFragment{{PhysicalRows: 9, Files: []*lancepb.DataFile{{Path: "a.lance", FileMajorVersion: 2}}}},
	}
	m.ProtoReflect().SetUnknown(extra)
	m.Fragments[0].ProtoReflect().SetUnknown(extra)
	index := &lancepb.IndexMetadata{Uuid: uuidProto(uuid.New()), Name: "theirs"}
	index.ProtoReflect().SetUnknown(extra)
	name := tableChain(st, root, Options{}).path(1)
	require.NoError(t, st.PutIfAbsent(ctx, name, foreign(t, m, &lancepb.IndexSection{Indices: []*lancepb.IndexMetadata{index}})))
	_, err := st.Create(ctx, root+"/data/a.lance")
	require.NoError(t, err)

	v, err := Latest(ctx, st, root, Options{})
	require.NoError(t, err)
	v, err = Commit(ctx, st, root, v, Change{
		Append: []Fragment{dataFile(t, st, root, "b.lance", 1)}, Delete: map[uint64]*roaring.Bitmap{0: roaring.BitmapOf(2)},
	}, Options{})
	require.NoError(t, err)
	require.Equal(t, extra, []byte(v.raw.ProtoReflect().GetUnknown()))
	require.Equal(t, extra, []byte(v.raw.GetFragments()[0].ProtoReflect().GetUnknown()))
	require.True(t, proto.Equal(index, v.indexes[0]))
	require.Equal(t, m.GetConfig(), v.raw.GetConfig())
	require.Equal(t, m.GetTableMetadata(), v.raw.GetTableMetadata())
	require.EqualValues(t, flagDeletions|flagTableConfig, v.raw.GetWriterFeatureFlags())
}

func FuzzDecodeVersion(f *testing.F) {
	b := sampleVersion(f)
	f.Add(b)
	f.Add(b[headBytes:])
	f.Add(foreign(f, &lancepb.Manifest{Version: 3, Fields: testSchema(f).Proto()}, nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		// Without the head, so that the fuzzer need not guess checksums.
		if len(b) > headBytes && string(b[:len(headMagic)]) == headMagic {
			b = append([]byte("unsigned"), b[len(headMagic):]...)
		}
		v, err := decodeVersion("v", b)
		if err != nil {
			requireDecodeError(t, err)
			return
		}
		require.NoError(t, v.Describe(&bytes.Buffer{}))
		v.NextFieldID()
	})
}

// requireDecodeError fails unless a decoder refused its input in one of the ways that callers know.
func requireDecodeError(t *testing.T, err error) {
	t.Helper()
	var corrupt *object.CorruptError
	var unsupported *UnsupportedError
	if !errors.As(err, &corrupt) && !errors.As(err, &unsupported) && !errors.Is(err, lance.ErrUnsupported) {
		t.Fatalf("error is %T: %v", err, err)
	}
}

func FuzzDecodeShard(f *testing.F) {
	s := &Shard{ID: uuid.New(), Version: 3, Epoch: 2, CurrentGeneration: 7, Generations: []Generation{{Number: 6, Path: "x", Rows: 5}}}
	b, err := s.encode()
	require.NoError(f, err)
	f.Add(b)
	f.Add(b[:len(b)-checksumBytes])
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := decodeShard("s", b)
		if err != nil {
			requireDecodeError(t, err)
			return
		}
		require.NoError(t, s.Describe(&bytes.Buffer{}))
		again, err := s.encode()
		require.NoError(t, err)
		_, err = decodeShard("s", again)
		require.NoError(t, err)
	})
}
