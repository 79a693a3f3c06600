package lance

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/internal/python"
	"github.com/flightd/flightd/object"
)

// TestFormsAreWrittenAgain writes rows of pylance's in the form that pylance gave them, and has pylance compare.
func TestFormsAreWrittenAgain(t *testing.T) {
	python.Need(t)
	theirs, ours := t.TempDir(), t.TempDir()
	python.RunFile(t, filepath.Join(fixtures, "forms.py"), theirs)
	files, err := filepath.Glob(filepath.Join(theirs, "*.lance"))
	require.NoError(t, err)
	wrote := 0
	for _, file := range files {
		name := filepath.Base(file)
		t.Run(name, func(t *testing.T) {
			r := openFile(t, object.NewLocal(theirs), name)
			if !r.Schema().HasForms() {
				t.Skip("its columns are plain")
			}
			if err := r.Schema().Writable(); err != nil {
				require.True(t, strings.HasPrefix(name, "blobs") || strings.HasPrefix(name, "none") || strings.HasPrefix(name, "records"), err)
				require.ErrorContains(t, err, `column "`)
				_, err = Create(t.Context(), object.NewMem(), "f", r.Schema(), WriterOptions{Version: r.Version()})
				require.ErrorIs(t, err, ErrUnsupported)
				return
			}
			wrote++
			schema, batches := arrowFile(t, strings.TrimSuffix(file, "lance")+"arrow")
			for size, o := range map[string]WriterOptions{"": {}, "cut": {PageBytes: 3000}, "packed": {Compress: r.Version() != Version20}} {
				o.Version = r.Version()
				st := object.NewLocal(filepath.Join(ours, size))
				w, err := Create(t.Context(), st, name, r.Schema(), o)
				require.NoError(t, err)
				for _, b := range batches {
					for at := int64(0); at < b.NumRows(); at += 700 {
						require.NoError(t, w.Write(t.Context(), b.NewSlice(at, min(at+700, b.NumRows()))))
					}
				}
				_, err = w.Finish(t.Context())
				require.NoError(t, err)
				again := openFile(t, st, name)
				require.Equal(t, r.Schema(), again.Schema())
				require.NoError(t, again.Verify(t.Context()))
				requireColumns(t, again, schema, joined(t, schema, batches), newGenerator(1, 0))
			}
		})
	}
	require.Greater(t, wrote, 10)
	for _, size := range []string{"", "cut", "packed"} {
		python.RunFile(t, filepath.Join(fixtures, "formscheck.py"), theirs, filepath.Join(ours, size))
	}
}

// TestJSONIsStoredAsPylanceStoresIt: the texts of a file are the same bytes again.
func TestJSONIsStoredAsPylanceStoresIt(t *testing.T) {
	for _, version := range []string{"2.1", "2.2"} {
		r := openFile(t, object.NewLocal(filepath.Join(fixtures, "forms")), "json-nulls-"+version+".lance")
		require.Equal(t, "j", r.columns[1].field.Name)
		want, _, err := r.readStored(1, []rowRange{{0, r.Rows()}})
		require.NoError(t, err)
		defer want.Release()
		texts, err := jsonTexts(want, arrow.BinaryTypes.String, r.alloc)
		require.NoError(t, err)
		defer texts.Release()
		got, err := r.columns[1].field.toForm(texts, nil)
		require.NoError(t, err)
		a, b := array.MakeFromData(want), array.MakeFromData(got)
		defer a.Release()
		require.Equal(t, a.String(), b.String())
	}
}

// TestWhatIsNoJSONIsRefused with the row, before any of a batch is taken.
func TestWhatIsNoJSONIsRefused(t *testing.T) {
	f := &Field{Name: "j", Type: arrow.BinaryTypes.String, form: jsonForm, Nullable: true}
	for _, text := range []string{``, `{`, `{"a":1} x`, `nul`, `[1,]`, "\"\xff\"", `1e999`, strings.Repeat("[", 1100) + strings.Repeat("]", 1100)} {
		b := array.NewStringBuilder(memory.DefaultAllocator)
		b.AppendValues([]string{`{"a": [1, {"b": null}]}`, text}, nil)
		a := b.NewArray()
		require.ErrorContains(t, f.CheckForm(a.Data(), nil), "row 1 is no JSON", text)
		require.NoError(t, f.CheckForm(a.Data(), func(row int) bool { return row == 1 }))
	}
}

// TestFieldsOfPackedStructsAreNotNull, which their form cannot say; whole structs can be null.
func TestFieldsOfPackedStructsAreNotNull(t *testing.T) {
	s, err := SchemaFromArrow(oneColumn(fromJSON(t, point, `[]`)).Schema(), 0)
	require.NoError(t, err)
	s.Fields[0].form = packedForm
	s.Fields[0].formMetadata = map[string]string{metaPacked: "true"}
	for _, version := range []Version{Version20, Version21, Version22} {
		w, err := Create(t.Context(), object.NewMem(), version.String(), s, WriterOptions{Version: version})
		require.NoError(t, err)
		defer w.Abort()
		require.ErrorContains(t, w.Write(t.Context(), oneColumn(fromJSON(t, point, `[{"x": 1, "y": 1}, {"x": null, "y": 1}]`))), `column "c": "x" of row 1 is null`)
		err = w.Write(t.Context(), oneColumn(fromJSON(t, point, `[{"x": 1, "y": 1}, null]`)))
		if version == Version20 {
			require.ErrorContains(t, err, "structs are null")
		} else {
			require.NoError(t, err)
		}
	}
}
