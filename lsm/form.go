package lsm

import (
	"github.com/apache/arrow-go/v18/arrow"

	"github.com/flightd/flightd/lance"
)

// inForms returns a schema of the table's with its columns in the forms in which the base has them: another program may have
// made the table with JSON of Lance, packed structs or dictionaries of numbers, and goes on reading those. What is in front
// of the base has plain columns.
func (t *Table) inForms(s *lance.Schema) *lance.Schema {
	set := t.set.Load()
	if set == nil || !set.base.forms { // without layers a stage makes it
		return s
	}
	return s.StoredAs(set.base.version.Schema)
}

// checkForms refuses rows that the base could not store in its forms: texts that are no JSON, and nulls in packed structs. A
// merge would find out when they are acknowledged. It reports whether there are such forms, so that each batch is looked at.
func (t *Table) checkForms(s *tableSchema, rec arrow.RecordBatch, dead func(row int) bool) (bool, error) {
	set := t.set.Load()
	if set == nil || !set.base.forms {
		return false, nil
	}
	stored := s.lance.StoredAs(set.base.version.Schema)
	for i := range stored.Fields {
		if err := stored.Fields[i].CheckForm(rec.Column(i).Data(), dead); err != nil {
			return true, &ColumnError{Table: t.name.String(), Column: stored.Fields[i].Name, Hint: err.Error()}
		}
	}
	return true, nil
}
