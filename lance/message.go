package lance

import "github.com/flightd/flightd/internal/lancepb"

// noBuffer stands for the number of a buffer that a page does not have.
const noBuffer = ^uint32(0)

// appendValidity writes a validity bitmap if there are nulls, and returns its number or noBuffer.
func (p *pageWriter) appendValidity(bitmap []byte, nulls int) (uint32, error) {
	if nulls == 0 {
		return noBuffer, nil
	}
	return p.append(bitmap)
}

// flat describes values of one width in a buffer.
func flat(bits int64, buffer uint32) *lancepb.ArrayEncoding {
	return &lancepb.ArrayEncoding{ArrayEncoding: &lancepb.ArrayEncoding_Flat{
		Flat: &lancepb.Flat{BitsPerValue: uint64(bits), Buffer: &lancepb.Buffer{BufferIndex: buffer}},
	}}
}

// nullable describes values with a validity bitmap in the given buffer, or without nulls.
func nullable(validity uint32, values *lancepb.ArrayEncoding) *lancepb.ArrayEncoding {
	n := &lancepb.Nullable{Nullability: &lancepb.Nullable_NoNulls{NoNulls: &lancepb.NoNulls{Values: values}}}
	if validity != noBuffer {
		n.Nullability = &lancepb.Nullable_SomeNulls{
			SomeNulls: &lancepb.SomeNulls{Validity: flat(1, validity), Values: values},
		}
	}
	return &lancepb.ArrayEncoding{ArrayEncoding: &lancepb.ArrayEncoding_Nullable{Nullable: n}}
}

// allNulls describes a page without buffers.
func allNulls() *lancepb.ArrayEncoding {
	return &lancepb.ArrayEncoding{ArrayEncoding: &lancepb.ArrayEncoding_Nullable{Nullable: &lancepb.Nullable{
		Nullability: &lancepb.Nullable_AllNulls{AllNulls: &lancepb.AllNulls{}},
	}}}
}

// fixedSizeList describes lists of n items.
func fixedSizeList(n int64, items *lancepb.ArrayEncoding) *lancepb.ArrayEncoding {
	return &lancepb.ArrayEncoding{ArrayEncoding: &lancepb.ArrayEncoding_FixedSizeList{
		FixedSizeList: &lancepb.FixedSizeList{Dimension: uint32(n), Items: items},
	}}
}

// binaryPage describes strings: end offsets and bytes.
func binaryPage(indices, bytes uint32, adjustment uint64) *lancepb.ArrayEncoding {
	return &lancepb.ArrayEncoding{ArrayEncoding: &lancepb.ArrayEncoding_Binary{Binary: &lancepb.Binary{
		Indices: nullable(noBuffer, flat(64, indices)), Bytes: flat(8, bytes), NullAdjustment: adjustment,
	}}}
}

// listPage describes lists: their end offsets among the items of the page.
func listPage(offsets uint32, adjustment, items uint64) *lancepb.ArrayEncoding {
	return &lancepb.ArrayEncoding{ArrayEncoding: &lancepb.ArrayEncoding_List{List: &lancepb.List{
		Offsets: nullable(noBuffer, flat(64, offsets)), NullOffsetAdjustment: adjustment, NumItems: items,
	}}}
}

// structPage describes the header of structs.
func structPage() *lancepb.ArrayEncoding {
	return &lancepb.ArrayEncoding{ArrayEncoding: &lancepb.ArrayEncoding_Struct{Struct: &lancepb.SimpleStruct{}}}
}

// dictionaryPage describes indices of rows among n items.
func dictionaryPage(indices, items *lancepb.ArrayEncoding, n int) *lancepb.ArrayEncoding {
	return &lancepb.ArrayEncoding{ArrayEncoding: &lancepb.ArrayEncoding_Dictionary{Dictionary: &lancepb.Dictionary{
		Indices: indices, Items: items, NumDictionaryItems: uint32(n),
	}}}
}
