package query

import (
	"errors"
	"strings"

	"github.com/flightd/flightd/lsm"
)

// unserved returns why there is no table of a name, when that is because another program left a dataset of the name that
// cannot be served, else nil.
func (s lsmStore) unserved(schema, name string) error {
	_, err := s.db.Table(lsm.TableName{Schema: schema, Name: name})
	var u *lsm.UnservedError
	if errors.As(err, &u) {
		return u
	}
	return nil
}

// explainUnserved says of a table that DuckDB does not know that its dataset cannot be served.
func explainUnserved(err error, of store) error {
	e, ok := err.(*Error)
	if !ok || e.Code != NotFound {
		return err
	}
	_, rest, _ := strings.Cut(e.Message, "Table with name ")
	name, _, ok := strings.Cut(rest, " does not exist!")
	if !ok {
		return err
	}
	if why := of.unserved(lsm.MainSchema, name); why != nil {
		return &Error{Code: FailedPrecondition, Position: e.Position, Message: why.Error(), Err: why}
	}
	return err
}
