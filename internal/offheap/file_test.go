package offheap

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMappedFilesHaveNoNameAndAreWritable(t *testing.T) {
	dir := t.TempDir()
	const size = 3<<20 + 17
	b, err := MapFile(dir, size)
	require.NoError(t, err)
	require.Len(t, b, size)
	require.True(t, isZero(b))
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)
	for i := range b {
		b[i] = byte(i)
	}
	require.EqualValues(t, byte((size-1)&0xff), b[size-1])
	UnmapFile(b)
}

func TestAFileThatCannotBeMappedLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	_, err := MapFile(dir, 1<<60)
	require.Error(t, err)
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)
	_, err = MapFile(filepath.Join(dir, "none"), 1)
	require.ErrorIs(t, err, os.ErrNotExist)
}
