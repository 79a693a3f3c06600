package wal

import (
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/object"
)

// FuzzReplay reads any bytes as a segment: as they are, and with checksums made to fit, so that what is behind them is
// reached, too.
func FuzzReplay(f *testing.F) {
	d := newCrashDisk()
	l := openTest(f, d, Options{})
	for id := range uint64(3) {
		_, err := l.Append(context.Background(), testRecord(id, 50), testRecord(id+10, 0))
		require.NoError(f, err)
	}
	require.NoError(f, l.Close())
	_, end, err := replayAll(d, 0)
	require.NoError(f, err)
	groups := d.content(segmentName(1))[firstGroup:end.tail.offset]
	f.Add(groups, false)
	f.Add(groups, true)
	f.Add(groups[:len(groups)-100], true)
	f.Add(groups[64:], true)
	f.Add([]byte{}, false)
	f.Fuzz(func(t *testing.T, groups []byte, mend bool) {
		d := newCrashDisk()
		rawSegment(t, d, 1)
		content := append(d.content(segmentName(1)), groups...)
		if mend {
			mendChecksums(content)
		}
		d = d.with(segmentName(1), content)
		next := LSN(0)
		_, err := replay(d, 0, func(r *Record) error {
			require.GreaterOrEqual(t, r.LSN, next)
			require.True(t, r.Kind.valid())
			require.LessOrEqual(t, r.bodyBytes(), int64(len(groups)))
			next = r.LSN + 1
			return nil
		})
		var damage *object.CorruptError
		require.True(t, err == nil || errors.As(err, &damage), "%v", err)
		if verify(d) == nil {
			require.NoError(t, err)
		}
	})
}

// mendChecksums goes from group to group, by their lengths, and writes the checksums and places that they should have.
func mendChecksums(content []byte) {
	sum := binary.LittleEndian.Uint32(content[60:])
	for off := firstGroup; off+groupHeaderBytes <= len(content); {
		b := content[off:]
		length := int(binary.LittleEndian.Uint32(b[20:]))
		if length < groupHeaderBytes || length > len(b) {
			length = len(b) &^ (groupAlign - 1)
			binary.LittleEndian.PutUint32(b[20:], uint32(length))
		}
		binary.LittleEndian.PutUint64(b[8:], 1)
		binary.LittleEndian.PutUint32(b[16:], uint32(off))
		binary.LittleEndian.PutUint32(b[4:], crc32.Checksum(b[groupHeaderBytes:length], castagnoli))
		binary.LittleEndian.PutUint32(b[0:], crc32.Update(sum, castagnoli, b[4:groupHeaderBytes]))
		off += max(length, groupAlign)
	}
}

// FuzzSegmentHeader reads any bytes as the header of a segment.
func FuzzSegmentHeader(f *testing.F) {
	b := make([]byte, segmentHeaderBytes)
	h := segmentHeader{id: 1, salt: 9}
	h.encode(b)
	f.Add(b)
	f.Add(b[:63])
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := decodeSegmentHeader(b, 1)
		if err != nil {
			return
		}
		again := make([]byte, segmentHeaderBytes)
		h.encode(again)
		require.Equal(t, b[:segmentHeaderBytes], again)
	})
}

// FuzzLanceEntry reads any bytes as a log entry of another writer: no panic, no more memory than its size allows, and
// arrays in which every value can be read.
func FuzzLanceEntry(f *testing.F) {
	for _, schema := range []*arrow.Schema{lanceSchema, nil} {
		f.Add(lanceEntry(f, schema))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := decodeLanceEntry(b)
		if err != nil {
			return
		}
		defer e.Release()
		for _, rec := range e.Batches {
			for _, c := range rec.Columns() {
				for row := range c.Len() {
					_ = c.ValueStr(row)
				}
			}
		}
	})
}
