package lance

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/flightd/flightd/internal/lancepb"
)

// form is how the values of a column are stored, where that is not what its type says. Other writers choose it by a field's
// metadata or by Lance's name of its type; a Writer goes on in the form that a table has, see formwrite.go.
type form int

const (
	plainForm form = iota
	// jsonForm is text that is stored as binary JSON, see jsonb.go.
	jsonForm
	// blobForm is bytes that lie anywhere in the file, in the column are their places: blob.go.
	blobForm
	// placedForm is the same in 2.2, where they can lie in files beside it, too.
	placedForm
	// packedForm is structs whose fields share a column: packed.go.
	packedForm
	// numbersForm is a dictionary of values of one width.
	numbersForm
)

// String names the form in errors.
func (f form) String() string {
	return [...]string{"plain values", "JSON of Lance", "blobs", "blobs", "packed structs", "dictionaries of numbers"}[f]
}

// Keys and values of a field's metadata that choose a form.
const (
	metaBlob      = "lance-encoding:blob"
	metaPacked    = "lance-encoding:packed"
	metaPackedOld = "packed"
	lanceJSON     = "lance.json"
	lanceBlob     = "lance.blob.v2"
)

// formOf returns the form of a stored field.
func formOf(f *lancepb.Field) form {
	is := func(key string) bool { return strings.EqualFold(string(f.GetMetadata()[key]), "true") }
	name := f.GetLogicalType()
	switch {
	case name == "json":
		return jsonForm
	case name == "large_binary" && is(metaBlob):
		return blobForm
	case name == "blob" || name == "struct" && (is(metaBlob) || string(f.GetMetadata()[extensionName]) == lanceBlob):
		return placedForm
	case name == "struct" && (is(metaPacked) || is(metaPackedOld)):
		return packedForm
	}
	return plainForm
}

// formMetadata are the keys of metadata that say a form.
var formMetadata = []string{metaBlob, metaPacked, metaPackedOld}

// withoutForm removes from a field's metadata what says how it is stored: to who reads it that means nothing, and what is
// written of it is plain.
func withoutForm(md map[string]string) map[string]string {
	for _, key := range formMetadata {
		delete(md, key)
	}
	if name := md[extensionName]; name == lanceBlob || name == lanceJSON {
		delete(md, extensionName)
		delete(md, extensionMetadata)
	}
	return md
}

// formOnly returns of a field's metadata what says how it is stored.
func formOnly(md map[string]string) map[string]string {
	out := map[string]string{}
	for _, key := range append(slices.Clone(formMetadata), extensionName, extensionMetadata, MetaDictionary) {
		if value, ok := md[key]; ok {
			out[key] = value
		}
	}
	return out
}

// withoutForms returns the field as its type says.
func (f Field) withoutForms() Field {
	f.form = plainForm
	children := make([]Field, len(f.Children))
	for i := range f.Children {
		children[i] = f.Children[i].withoutForms()
	}
	f.Children = children
	return f
}

// storedMetadata returns the metadata of a field as files and manifests have it.
func (f *Field) storedMetadata() map[string]string {
	md := hideExtension(withoutForm(f.Metadata.ToMap()))
	switch f.form {
	case plainForm:
		return md
	case jsonForm:
		delete(md, hiddenName)
	case numbersForm: // whose type says it
		delete(md, MetaDictionary)
	}
	if md == nil {
		md = map[string]string{}
	}
	maps.Copy(md, f.formMetadata)
	return md
}

// leaf reports whether a field has a column of its own in files of a version, and those below it have none.
func (f *Field) leaf() bool { return len(f.Children) == 0 || f.form == packedForm }

// storedType is the type of the values of a leaf before they are made what the field's type says, in pages of a layout.
func (f *Field) storedType(l layout) (arrow.DataType, error) {
	switch f.form {
	case jsonForm, placedForm:
		return arrow.BinaryTypes.LargeBinary, nil
	case packedForm:
		if _, ok := recordsOf(l); ok {
			return arrow.BinaryTypes.LargeBinary, nil
		}
		_, bytes, err := packedFields(f)
		return &arrow.FixedSizeBinaryType{ByteWidth: bytes}, err
	}
	return f.Type, nil
}

// recordsOf returns the fields of the records that a page has, if it has any.
func recordsOf(l layout) ([]recordField, bool) {
	z, ok := l.(*fullZip)
	if !ok {
		return nil, false
	}
	d, ok := z.varying.(recordDecoder)
	return d.fields, ok
}

// formed makes the values of a leaf what the field's type says. It takes over the caller's reference.
func (r *Reader) formed(f *Field, l layout, d arrow.ArrayData) (arrow.ArrayData, error) {
	if f.form != jsonForm && f.form != placedForm && f.form != packedForm {
		return d, nil
	}
	defer d.Release()
	switch f.form {
	case jsonForm:
		return jsonTexts(d, f.Type, r.alloc)
	case placedForm:
		return r.placedBlobs(f, d)
	}
	if fields, ok := recordsOf(l); ok {
		texts := textsOf(d)
		return unpackStructs(f, fields, d, func(i int) []byte { return texts.at(d.Offset() + i) }, r.alloc)
	}
	fields, bytes, err := packedFields(f)
	if err != nil {
		return nil, err
	}
	values := d.Buffers()[1].Bytes()
	return unpackStructs(f, fields, d, func(i int) []byte { return values[(d.Offset()+i)*bytes:][:bytes] }, r.alloc)
}

// jsonCodec is a page of JSON in 2.0: of strings that are its binary form.
type jsonCodec struct{ valueCodec }

// compressed implements compressedCodec.
func (c jsonCodec) compressed() (uint32, bool) {
	if inner, ok := c.valueCodec.(compressedCodec); ok {
		return inner.compressed()
	}
	return 0, false
}

func (c jsonCodec) describe() string { return "JSON, " + c.valueCodec.describe() }

// parseJSONPage returns the codec of a page of JSON.
func parseJSONPage(e *lancepb.ArrayEncoding, f *Field) (codec, error) {
	binary := *f
	binary.form, binary.Type = plainForm, arrow.BinaryTypes.LargeBinary
	c, err := parseEncoding(e, &binary)
	if err != nil {
		return nil, err
	}
	values, ok := c.(valueCodec)
	if !ok {
		return nil, fmt.Errorf("JSON as %s: %w", c.describe(), ErrUnsupported)
	}
	return jsonCodec{values}, nil
}

func (c jsonCodec) slice(v *pageView, dt arrow.DataType, from, to int, alloc memory.Allocator) (arrow.ArrayData, error) {
	d, err := c.valueCodec.slice(v, arrow.BinaryTypes.LargeBinary, from, min(to, from+jsonRows), alloc)
	if err != nil {
		return nil, err
	}
	defer d.Release()
	return jsonTexts(d, dt, alloc)
}

// jsonRows is how many values of JSON are made at once in 2.0, whose pages can have many.
const jsonRows = 1 << 16

// takeRuns gathers rows of a column of 2.0 from pages that can only be read as runs of rows.
func (r *Reader) takeRuns(ctx context.Context, col int, rows []int64) (arrow.ArrayData, error) {
	if len(rows) == 0 {
		return emptyArray(r.columns[col].field.Type, r.alloc), nil
	}
	sorted := slices.Clone(rows)
	slices.Sort(sorted)
	sorted = slices.Compact(sorted)
	var parts []arrow.ArrayData
	defer func() {
		for _, p := range parts {
			p.Release()
		}
	}()
	for _, run := range ranges(sorted) {
		for run.from < run.to {
			if err := ctx.Err(); err != nil {
				return nil, fmt.Errorf("read %s: %w", r.name, err)
			}
			d, err := r.decode(col, run.from, run.to)
			if err != nil {
				return nil, err
			}
			parts = append(parts, d)
			run.from += int64(d.Len())
		}
	}
	data, err := r.concatenate(parts)
	if err != nil || slices.Equal(sorted, rows) {
		return data, err
	}
	defer data.Release()
	return r.reorder(data, sorted, rows)
}
