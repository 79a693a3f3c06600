package wal

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/object"
)

// TestBucketScenarios runs the files in testdata/bucket. -rewrite writes their output anew.
func TestBucketScenarios(t *testing.T) {
	datadriven.Walk(t, "testdata/bucket", func(t *testing.T, name string) {
		s := &bucketScenario{t: t, st: object.NewMem(), id: uuid.UUID{0: 0xaa, 15: 0x55}, writers: map[string]*Bucket{}}
		datadriven.RunTest(t, name, s.run)
	})
}

// bucketScenario is a bucket with the log of one shard, and the writers that were given it one after the other.
type bucketScenario struct {
	t       *testing.T
	st      *object.Mem
	id      uuid.UUID
	writers map[string]*Bucket
}

// run dispatches a command. Its first argument is the writer.
func (s *bucketScenario) run(t *testing.T, td *datadriven.TestData) string {
	name := ""
	if len(td.CmdArgs) > 0 {
		name = td.CmdArgs[0].Key
	}
	switch td.Cmd {
	case "open": // open WRITER epoch=N [after=POSITION]: fences the writers before, and replays what the manifest does not have
		var epoch uint64
		td.ScanArgs(t, "epoch", &epoch)
		stream := testStream(s.id, epoch)
		td.MaybeScanArgs(t, "after", &stream.After)
		b, recs := openBucket(t, s.st, BucketOptions{Epoch: epoch, RetryDelay: 1}, stream)
		s.writers[name] = b
		out := fmt.Sprintf("%d records\n", len(recs))
		for _, r := range recs {
			out += fmt.Sprintf("%s %v\n", r.LSN, numbers(t, r))
		}
		return out
	case "append": // append WRITER: a record for each line, of the numbers in it; all in one group
		var recs []*Record
		for line := range strings.Lines(td.Input) {
			var ids []int64
			for _, f := range strings.Fields(line) {
				n, err := strconv.ParseInt(f, 10, 64)
				require.NoError(t, err)
				ids = append(ids, n)
			}
			recs = append(recs, numbered(s.id, 1, ids...))
		}
		b := s.writers[name]
		last, err := b.Append(t.Context(), recs...)
		if err == nil {
			err = b.WaitDurable(t.Context(), last)
		}
		if err != nil {
			return s.failed(err)
		}
		return fmt.Sprintf("durable up to %s\n", last)
	case "release": // release WRITER position=N generation=N: what is stored up to there is in generations
		var position, generation uint64
		td.ScanArgs(t, "position", &position)
		td.ScanArgs(t, "generation", &generation)
		s.writers[name].Release(s.id, position, generation)
		return "ok\n"
	case "trim": // trim WRITER: of all that is durable
		b := s.writers[name]
		if err := b.Trim(b.DurableLSN()); err != nil {
			return s.failed(err)
		}
		return "ok\n"
	case "close":
		if err := s.writers[name].Close(); err != nil {
			return s.failed(err)
		}
		return "ok\n"
	case "ls": // the objects, by their names
		list, err := s.st.List(t.Context(), testStream(s.id, 1).Dir)
		require.NoError(t, err)
		var names []string
		for _, x := range list {
			names = append(names, fmt.Sprintf("%s %d bytes\n", path.Base(x.Name), x.Size))
		}
		slices.Sort(names)
		return strings.Join(names, "")
	}
	td.Fatalf(t, "unknown command %s", td.Cmd)
	return ""
}

// failed says what an error means to the writer.
func (s *bucketScenario) failed(err error) string {
	for what, is := range map[string]error{"closed": ErrClosed, "poisoned": ErrPoisoned} {
		if errors.Is(err, is) {
			return what + ": " + err.Error() + "\n"
		}
	}
	return "error: " + err.Error() + "\n"
}
