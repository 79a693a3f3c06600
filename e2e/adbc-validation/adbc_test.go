package validation

import (
	"context"
	"testing"

	"github.com/apache/arrow-adbc/go/adbc"
	"github.com/apache/arrow-adbc/go/adbc/validation"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/stretchr/testify/suite"
)

// TestADBC runs the suite.
func TestADBC(t *testing.T) {
	q := &quirks{address: serve(t), version: version(t)}
	suite.Run(t, &validation.DatabaseTests{Quirks: q})
	suite.Run(t, &validation.ConnectionTests{Quirks: q})
	suite.Run(t, &statementTests{validation.StatementTests{Quirks: q}})
}

// statementTests are the suite's own but for one test.
type statementTests struct{ validation.StatementTests }

// SetupTest opens a connection whose statements forget what was bound when they get a query. Those of the driver keep
// it after an ingest, and then refuse to run the query by which the suite looks at what was ingested.
func (s *statementTests) SetupTest() {
	s.StatementTests.SetupTest()
	s.Cnxn = forgetting{s.Cnxn}
}

// forgetting is a connection with such statements.
type forgetting struct{ adbc.Connection }

// NewStatement implements adbc.Connection.
func (c forgetting) NewStatement() (adbc.Statement, error) {
	statement, err := c.Connection.NewStatement()
	if err != nil {
		return nil, err
	}
	return forgettingStatement{statement, statement.(adbc.StatementExecuteSchema)}, nil
}

// forgettingStatement is one of them.
type forgettingStatement struct {
	adbc.Statement
	adbc.StatementExecuteSchema
}

// SetSqlQuery implements adbc.Statement.
func (s forgettingStatement) SetSqlQuery(query string) error {
	if err := s.Statement.SetSqlQuery(query); err != nil {
		return err
	}
	return s.Statement.Bind(context.Background(), nil)
}

// TestSqlIngestErrors takes the place of the suite's test, which wants a SQLSTATE and a code that Flight SQL has no
// place for: the driver never sets a SQLSTATE, and a table that exists is ALREADY_EXISTS, not INTERNAL.
func (s *statementTests) TestSqlIngestErrors() {
	statement, err := s.Cnxn.NewStatement()
	s.Require().NoError(err)
	defer validation.CheckedClose(s.T(), statement)
	ctx := s.T().Context()
	ingest := func(mode string, want adbc.Status, columns ...string) {
		var fields []arrow.Field
		for _, name := range columns {
			fields = append(fields, arrow.Field{Name: name, Type: arrow.PrimitiveTypes.Int64, Nullable: true})
		}
		b := array.NewRecordBuilder(s.Quirks.Alloc(), arrow.NewSchema(fields, nil))
		defer b.Release()
		for _, field := range b.Fields() {
			field.AppendNull()
		}
		rows := b.NewRecordBatch()
		defer rows.Release()
		s.Require().NoError(statement.SetOption(adbc.OptionKeyIngestTargetTable, "bulk_ingest"))
		s.Require().NoError(statement.SetOption(adbc.OptionKeyIngestMode, mode))
		s.Require().NoError(statement.Bind(ctx, rows))
		_, err := statement.ExecuteUpdate(ctx)
		if want == adbc.StatusOK {
			s.Require().NoError(err)
			return
		}
		var refused adbc.Error
		s.Require().ErrorAs(err, &refused)
		s.Equal(want, refused.Code, refused.Msg)
	}
	s.Require().NoError(s.Quirks.DropTable(s.Cnxn, "bulk_ingest"))
	var unbound adbc.Error
	s.Require().NoError(statement.SetOption(adbc.OptionKeyIngestTargetTable, "bulk_ingest"))
	_, _, err = statement.ExecuteQuery(ctx)
	s.Require().ErrorAs(err, &unbound)
	s.Equal(adbc.StatusInvalidState, unbound.Code)
	ingest(adbc.OptionValueIngestModeAppend, adbc.StatusNotFound, "ints")
	ingest(adbc.OptionValueIngestModeCreate, adbc.StatusOK, "ints")
	ingest(adbc.OptionValueIngestModeCreate, adbc.StatusAlreadyExists, "ints")
	ingest(adbc.OptionValueIngestModeAppend, adbc.StatusInvalidArgument, "ints", "more")
	ingest(adbc.OptionValueIngestModeAppend, adbc.StatusOK, "ints")
}
