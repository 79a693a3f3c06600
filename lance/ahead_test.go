package lance

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/object"
)

// gated is a store whose reads, once it is closed, wait for the gate to open.
type gated struct {
	object.Store
	closed  atomic.Bool
	waiting chan struct{} // gets one for each read that waits
	gate    chan struct{}
	fail    error
}

func (g *gated) Open(ctx context.Context, name string) (object.Reader, error) {
	r, err := g.Store.Open(ctx, name)
	return &gatedReader{r, g}, err
}

type gatedReader struct {
	object.Reader
	g *gated
}

func (r *gatedReader) ReadAt(b []byte, off int64) (int, error) {
	if r.g.closed.Load() {
		r.g.waiting <- struct{}{}
		<-r.g.gate
		if r.g.fail != nil {
			return 0, r.g.fail
		}
	}
	return r.Reader.ReadAt(b, off)
}

// TestAScanReadsAhead: all columns of a file that is not mapped are read at once, and the pages behind a batch while the
// caller has it. What was read in vain is let go, also when the file is closed meanwhile, or reading fails.
func TestAScanReadsAhead(t *testing.T) {
	schema := arrow.NewSchema([]arrow.Field{{Name: "a", Type: arrow.PrimitiveTypes.Int64, Nullable: true}, {Name: "b", Type: arrow.BinaryTypes.String, Nullable: true}}, nil)
	mem := object.NewMem()
	rec := newGenerator(1, 0).batch(schema, 1000)
	writeFile(t, mem, "f", schema, WriterOptions{PageBytes: 2000}, rec)
	for _, how := range []string{"read", "closed", "failed"} {
		t.Run(how, func(t *testing.T) {
			g := &gated{Store: mem, waiting: make(chan struct{}, 1000), gate: make(chan struct{})}
			r := openFile(t, g, "f")
			for c := range 2 { // their metadata
				_, err := r.column(c)
				require.NoError(t, err)
			}
			g.closed.Store(true)
			s := r.Scan([]int{0, 1}, 0, 1000, 0)
			type result struct {
				rec arrow.RecordBatch
				err error
			}
			first := make(chan result, 1)
			go func() {
				rec, err := s.Next(t.Context())
				first <- result{rec, err}
			}()
			<-g.waiting
			<-g.waiting // both, while neither has come
			if how == "failed" {
				g.fail = errors.New("the store is away")
			}
			close(g.gate)
			got := <-first
			if how == "failed" {
				require.ErrorIs(t, got.err, g.fail)
				return
			}
			require.NoError(t, got.err)
			require.True(t, array.SliceEqual(rec.Column(0), 0, got.rec.NumRows(), got.rec.Column(0), 0, got.rec.NumRows()))
			n := got.rec.NumRows()
			got.rec.Release()
			<-g.waiting // which is behind the batch, and nobody asked for it
			if how == "closed" {
				require.NoError(t, r.Close())
				s.Close()
				return
			}
			for n < 1000 {
				next, err := s.Next(t.Context())
				require.NoError(t, err)
				n += next.NumRows()
				next.Release()
			}
			_, err := s.Next(t.Context())
			require.ErrorIs(t, err, io.EOF)
		})
	}
}
