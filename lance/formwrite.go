package lance

import (
	"fmt"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/flightd/flightd/internal/lancepb"
)

// StoredAs returns the schema with its columns in the forms in which another one, such as that of a manifest, has those with
// the same ids.
func (s *Schema) StoredAs(other *Schema) *Schema {
	byID := map[int32]*Field{}
	other.walk(func(f *Field, _ string) { byID[f.ID] = f })
	out := &Schema{Fields: make([]Field, len(s.Fields)), Metadata: s.Metadata}
	for i := range s.Fields {
		out.Fields[i] = s.Fields[i].storedAs(byID)
	}
	return out
}

func (f Field) storedAs(byID map[int32]*Field) Field {
	if as := byID[f.ID]; as != nil && sameType(as.Type, f.Type) {
		f.form, f.formMetadata = as.form, as.formMetadata
		if as.form == numbersForm {
			f.index, f.Metadata = as.index, as.Metadata
		}
	}
	children := make([]Field, len(f.Children))
	for i := range f.Children {
		children[i] = f.Children[i].storedAs(byID)
	}
	f.Children = children
	return f
}

// HasForms reports whether a column is stored in another form than that of its type.
func (s *Schema) HasForms() bool {
	return slices.ContainsFunc(s.Fields, func(f Field) bool { return f.hasForms() })
}

func (f *Field) hasForms() bool {
	if f.form != plainForm {
		return true
	}
	for i := range f.Children {
		if f.Children[i].hasForms() {
			return true
		}
	}
	return false
}

// CheckForm returns why rows of a column cannot be stored in its form, nil when they can. What is in rows that are dead does
// not matter.
func (f *Field) CheckForm(d arrow.ArrayData, dead func(row int) bool) error {
	if !f.hasForms() {
		return nil
	}
	stored, err := f.toForm(d, dead)
	if err == nil {
		stored.Release()
	}
	return err
}

// writable returns why a Writer cannot write a field in its form.
func (f *Field) writable() error {
	switch f.form {
	case blobForm, placedForm:
		return fmt.Errorf("%s: %w", f.form, ErrUnsupported)
	case packedForm:
		for i := range f.Children {
			if t := f.Children[i].Type; t.ID() == arrow.FIXED_SIZE_LIST {
				return fmt.Errorf("packed structs with a field of %s: %w", t, ErrUnsupported)
			}
		}
		_, _, err := packedFields(f)
		return err
	case numbersForm:
		if f.index != f.storedIndex().Name() {
			return fmt.Errorf("dictionaries with indices of %s: %w", f.index, ErrUnsupported)
		}
		if bitWidth(f.Type)%8 != 0 {
			return fmt.Errorf("dictionaries of %s: %w", f.Type, ErrUnsupported)
		}
	}
	return nil
}

// writableForms is writable for a field and what is nested in it.
func (f *Field) writableForms() error {
	err := f.writable()
	for i := 0; i < len(f.Children) && err == nil; i++ {
		err = f.Children[i].writableForms()
	}
	return err
}

// formField returns the field as its values are laid out: JSON are bytes, and packed structs values of one width.
func (f Field) formField() Field {
	switch f.form {
	case jsonForm:
		f.Type = arrow.BinaryTypes.LargeBinary
		return f
	case packedForm:
		fields, bytes, _ := packedFields(&f) // writable has looked
		for _, x := range fields {
			f.packed = append(f.packed, uint64(x.bytes)*8)
		}
		f.Type, f.Children = &arrow.FixedSizeBinaryType{ByteWidth: bytes}, nil
		return f
	}
	if !f.hasForms() || len(f.Children) == 0 {
		return f
	}
	children, below := make([]Field, len(f.Children)), make([]arrow.Field, len(f.Children))
	for i, c := range f.Children {
		children[i] = c.formField()
		below[i] = arrow.Field{Name: c.Name, Type: children[i].Type, Nullable: c.Nullable, Metadata: c.Metadata}
	}
	f.Children = children
	switch f.Type.(type) {
	case *arrow.StructType:
		f.Type = arrow.StructOf(below...)
	case *arrow.ListType:
		f.Type = arrow.ListOfField(below[0])
	case *arrow.LargeListType:
		f.Type = arrow.LargeListOfField(below[0])
	case *arrow.MapType:
		entries := children[0].Type.(*arrow.StructType)
		f.Type = arrow.MapOfFields(entries.Field(0), entries.Field(1))
	}
	return f
}

// toForm returns rows of a field as formField lays them out.
func (f *Field) toForm(d arrow.ArrayData, dead func(row int) bool) (arrow.ArrayData, error) {
	switch {
	case f.form == jsonForm:
		return jsonBytes(d, dead)
	case f.form == packedForm:
		return packStructs(f, d, dead)
	case !f.hasForms() || f.form == numbersForm:
		d.Retain()
		return d, nil
	}
	children := make([]arrow.ArrayData, len(f.Children))
	defer func() {
		for _, c := range children {
			if c != nil {
				c.Release()
			}
		}
	}()
	for i := range f.Children {
		var gone func(row int) bool
		if f.Type.ID() == arrow.STRUCT {
			c := chunk{data: d, n: d.Len()}
			gone = func(row int) bool { // rows of the fields begin with those of the structs' buffers
				row -= d.Offset()
				return row < 0 || row >= c.n || c.isNull(row) || dead != nil && dead(row)
			}
		}
		var err error
		if children[i], err = f.Children[i].toForm(d.Children()[i], gone); err != nil {
			return nil, fmt.Errorf("%q: %w", f.Children[i].Name, err)
		}
	}
	laid := f.formField()
	return array.NewData(laid.Type, d.Len(), d.Buffers(), children, chunk{data: d, n: d.Len()}.nulls(), d.Offset()), nil
}

// jsonBytes returns the binary form of JSON texts.
func jsonBytes(d arrow.ArrayData, dead func(row int) bool) (arrow.ArrayData, error) {
	n := d.Len()
	ends := make([]int64, n+1)
	var out []byte
	if n > 0 {
		values, c := textsOf(d), chunk{data: d, n: n}
		for i := range n {
			if ends[i+1] = ends[i]; c.isNull(i) || dead != nil && dead(i) {
				continue
			}
			var err error
			text := values.at(d.Offset() + i)
			if out, err = appendJSONB(out, text); err != nil {
				return nil, fmt.Errorf("row %d is no JSON: %w: %.100q", i, err, text)
			}
			ends[i+1] = int64(len(out))
		}
	}
	bitmap, nulls := copiedValidity(d, memory.DefaultAllocator)
	defer releaseBuffer(bitmap)
	bufs := []*memory.Buffer{bitmap, memory.NewBufferBytes(arrow.Int64Traits.CastToBytes(ends)), memory.NewBufferBytes(out)}
	return array.NewData(arrow.BinaryTypes.LargeBinary, n, bufs, nil, nulls, 0), nil
}

// packStructs returns structs as values of one width: their fields one behind the other, which cannot be null there.
func packStructs(f *Field, d arrow.ArrayData, dead func(row int) bool) (arrow.ArrayData, error) {
	fields, bytes, err := packedFields(f)
	if err != nil {
		return nil, err
	}
	n, at := d.Len(), 0
	c, out := chunk{data: d, n: n}, make([]byte, d.Len()*bytes)
	for i, field := range fields {
		child := d.Children()[i]
		values := chunk{data: child, from: d.Offset(), n: n}
		for row := range n {
			if c.isNull(row) || dead != nil && dead(row) {
				continue
			}
			if values.isNull(row) {
				return nil, fmt.Errorf("%q of row %d is null, which packed structs cannot say", f.Children[i].Name, row)
			}
			copy(out[row*bytes+at:][:field.bytes], child.Buffers()[1].Bytes()[(values.offset()+row)*field.bytes:])
		}
		at += field.bytes
	}
	bitmap, nulls := copiedValidity(d, memory.DefaultAllocator)
	defer releaseBuffer(bitmap)
	return array.NewData(&arrow.FixedSizeBinaryType{ByteWidth: bytes}, n, []*memory.Buffer{bitmap, memory.NewBufferBytes(out)}, nil, nulls, 0), nil
}

// packedEncoder lays out packed structs in 2.0, which are never null.
type packedEncoder struct {
	fixedEncoder
	bits []uint64
}

// encode implements encoder.
func (e packedEncoder) encode(p *pageWriter, chunks []chunk, rows int) (*lancepb.ArrayEncoding, error) {
	values, err := e.appendValues(p, chunks, rows)
	if err != nil {
		return nil, err
	}
	out := &lancepb.PackedStruct{Buffer: values.GetFlat().GetBuffer()}
	for _, bits := range e.bits {
		out.Inner = append(out.Inner, nullable(noBuffer, flat(int64(bits), 0)))
	}
	return &lancepb.ArrayEncoding{ArrayEncoding: &lancepb.ArrayEncoding_PackedStruct{PackedStruct: out}}, nil
}

// numbersEncoder lays out values of one width as numbers of the distinct ones of a page, in 2.0.
type numbersEncoder struct {
	fixedEncoder
	index arrow.DataType
}

// encode implements encoder: the index of each row, then the items, of which one is null if rows are.
func (e numbersEncoder) encode(p *pageWriter, chunks []chunk, rows int) (*lancepb.ArrayEncoding, error) {
	places, null := map[string]int{}, -1
	var items, validity []byte
	width, size, row := e.index.(arrow.FixedWidthDataType).BitWidth()/8, int(e.bits/8), 0
	indices, word, count := make([]byte, rows*width), [8]byte{}, 0
	add := func(value []byte, valid bool) int {
		items = append(items, value...)
		if count%8 == 0 {
			validity = append(validity, 0)
		}
		if valid {
			validity[count/8] |= 1 << (count % 8)
		}
		count++
		return count - 1
	}
	for _, c := range chunks {
		values := c.data.Buffers()[1].Bytes()
		for i := range c.n {
			at, ok := null, true
			if !c.isNull(i) {
				value := values[(c.offset()+i)*size:][:size]
				if at, ok = places[string(value)]; !ok {
					at = add(value, true)
					places[string(value)] = at
				}
			} else if null < 0 {
				null = add(make([]byte, size), false)
				at = null
			}
			le.PutUint64(word[:], uint64(at))
			copy(indices[row*width:(row+1)*width], word[:])
			row++
		}
	}
	numbersAt, err := p.append(indices)
	if err != nil {
		return nil, err
	}
	validityAt, err := p.appendValidity(validity, max(0, min(1, null+1)))
	if err != nil {
		return nil, err
	}
	itemsAt, err := p.append(items)
	return dictionaryPage(nullable(noBuffer, flat(int64(width)*8, numbersAt)), nullable(validityAt, flat(e.bits, itemsAt)), count), err
}

// numberFixed gives the distinct values of one width numbers, a null that of the value before it.
func (s *shredded) numberFixed(dt arrow.DataType) ([]uint32, *dictionary) {
	fixed := s.fixedValues()
	places, numbers, last := map[string]uint32{}, make([]uint32, s.n), uint32(0)
	var items, value []byte
	for i := range s.n {
		if s.isValid(i) {
			value = s.appendFixed(value[:0], &fixed, i, i+1)
			at, ok := places[string(value)]
			if !ok {
				at = uint32(len(places))
				places[string(value)] = at
				items = append(items, value...)
			}
			last = at
		}
		numbers[i] = last
	}
	return numbers, &dictionary{len(places), items, flatBlock(bitWidth(dt))}
}
