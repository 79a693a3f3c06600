package lance

import "hash/crc32"

// encode returns the bytes of the buffer. A Writer, which need not have all checksums in memory, writes the same.
func (c *checksums) encode() []byte {
	b := append([]byte{}, checksumMagic[:]...)
	b = le.AppendUint32(b, c.schema)
	b = le.AppendUint32(b, uint32(len(c.globals)))
	b = le.AppendUint32(b, uint32(len(c.columns)))
	b = appendSums(b, c.globals)
	for _, col := range c.columns {
		b = le.AppendUint32(b, col.metadata)
		b = le.AppendUint32(b, uint32(len(col.buffers)))
		b = appendSums(b, col.buffers)
	}
	return le.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func appendSums(b []byte, sums []uint32) []byte {
	for _, s := range sums {
		b = le.AppendUint32(b, s)
	}
	return b
}
