package testdata

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"io"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/ipc"
)

//go:embed readings.arrow
var readings []byte

// ReadingsTable is the statement that creates a table for Readings.
const ReadingsTable = `CREATE TABLE readings (id BIGINT PRIMARY KEY, station VARCHAR, taken TIMESTAMP, celsius DOUBLE, humidity FLOAT, note VARCHAR)`

// Readings decodes the sample. The batches belong to the caller, who releases them.
func Readings() (_ []arrow.RecordBatch, err error) {
	file, err := ipc.NewFileReader(bytes.NewReader(readings))
	if err != nil {
		return nil, fmt.Errorf("open the sample readings.arrow: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	var batches []arrow.RecordBatch
	for {
		batch, err := file.Read()
		if errors.Is(err, io.EOF) {
			return batches, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read the sample readings.arrow: %w", err)
		}
		batch.Retain()
		batches = append(batches, batch)
	}
}
