package wal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
)

// TestScenarios runs the files in testdata. -rewrite writes their output anew.
func TestScenarios(t *testing.T) {
	datadriven.Walk(t, "testdata/scenarios", func(t *testing.T, path string) {
		s := &scenario{t: t, disk: newCrashDisk()}
		datadriven.RunTest(t, path, s.run)
		if s.log != nil {
			require.NoError(t, s.log.Close())
		}
	})
}

// scenario is a log on a disk in memory. Segments have the smallest size and salts 1, 2, 3 …
type scenario struct {
	t    *testing.T
	disk *crashDisk
	log  *Local
	salt uint64
	hold chan struct{}
}

func (s *scenario) run(t *testing.T, td *datadriven.TestData) string {
	switch td.Cmd {
	case "open": // open [after=EPOCH-COUNT]: replays and opens
		return s.open(lsnArg(t, td, "after"))
	case "append": // append [together]: a record for each line KIND ROWS TEXT or KIND ROWS xBYTES
		return s.append(td)
	case "hold": // syncs do not end
		s.hold = make(chan struct{})
		hold := s.hold
		s.disk.inject(func(op, name string) error {
			if op == "sync" && strings.HasSuffix(name, segmentSuffix) {
				<-hold
			}
			return nil
		})
		return ""
	case "crash": // crash [power=SEED]: the process ends, or the power
		return s.crash(td)
	case "close":
		err := s.log.Close()
		s.log = nil
		return answerOf(err)
	case "trim": // trim upto=EPOCH-COUNT
		return answerOf(s.log.Trim(lsnArg(t, td, "upto")))
	case "flip": // flip segment=ID at=OFFSET
		return s.damage(td, func(b []byte, at int) []byte { b[at] ^= 0x40; return b })
	case "cut": // cut segment=ID at=OFFSET
		return s.damage(td, func(b []byte, at int) []byte { return b[:at] })
	case "replay": // replay [after=EPOCH-COUNT], all that the log holds without
		return s.replay(lsnArg(t, td, "after"))
	case "describe":
		var out bytes.Buffer
		_ = describe(&out, s.disk, 0, nil) // the error is in the output
		return out.String()
	case "verify":
		return answerOf(verify(s.disk))
	case "ls":
		return s.list()
	case "bytes": // bytes segment=ID: the header and all groups, byte for byte
		return annotate(t, s.disk, idArg(t, td))
	}
	td.Fatalf(t, "unknown command %s", td.Cmd)
	return ""
}

func (s *scenario) open(after LSN) string {
	_, end, err := replayAll(s.disk, 0)
	if err != nil {
		return answerOf(err)
	}
	o := Options{Dir: "log", End: end, After: after, SegmentBytes: minSegmentBytes, Spares: 1}
	require.NoError(s.t, o.validate())
	s.log, err = open(o, env{disk: s.disk, maxCount: maxCount, rest: afterFunc, salt: func() uint64 { s.salt++; return s.salt }})
	require.NoError(s.t, err)
	s.rest()
	return fmt.Sprintf("next is above %s\n", s.log.AppendedLSN())
}

// rest waits until all goroutines of the log have nothing left to do.
func (s *scenario) rest() {
	if s.hold == nil {
		settled(s.t, s.log)
	}
	require.Eventually(s.t, func() bool { return len(s.log.keeper.ready) == 1 }, time.Minute, 10*time.Microsecond)
}

func (s *scenario) append(td *datadriven.TestData) string {
	var recs []*Record
	for line := range strings.Lines(td.Input) {
		recs = append(recs, s.record(strings.TrimSpace(line)))
	}
	calls := [][]*Record{recs}
	if !td.HasArg("together") {
		calls = nil
		for _, r := range recs {
			calls = append(calls, []*Record{r})
		}
	}
	var out strings.Builder
	for _, recs := range calls {
		last, err := s.log.Append(context.Background(), recs...)
		if err != nil {
			return answerOf(err)
		}
		fmt.Fprintln(&out, last)
		s.rest()
	}
	return out.String()
}

// record parses KIND ROWS TEXT; a text of xBYTES is that many times the letter x.
func (s *scenario) record(line string) *Record {
	fields := strings.SplitN(line, " ", 3)
	require.Len(s.t, fields, 3, "record %q", line)
	r := &Record{Shard: uuid.UUID{0: 0xaa, 15: 0x55}, Incarnation: 3, Schema: 4}
	for k := Batch; k <= Idempotency; k++ {
		if k.String() == strings.ReplaceAll(fields[0], "_", " ") {
			r.Kind = k
		}
	}
	rows, err := strconv.Atoi(fields[1])
	require.NoError(s.t, err)
	r.Rows = uint32(rows)
	text := []byte(fields[2])
	if n, err := strconv.Atoi(strings.TrimPrefix(fields[2], "x")); err == nil {
		text = bytes.Repeat([]byte{'x'}, n)
	}
	r.Body = [][]byte{text}
	return r
}

func (s *scenario) crash(td *datadriven.TestData) string {
	var random *rand.Rand
	if td.HasArg("power") {
		var seed uint64
		td.ScanArgs(s.t, "power", &seed)
		random = rand.New(rand.NewPCG(seed, 0))
	}
	left := s.disk.crash(random)
	if s.hold != nil {
		close(s.hold)
		s.hold = nil
	}
	require.NoError(s.t, s.log.Close())
	s.disk, s.log = left, nil
	return ""
}

func (s *scenario) damage(td *datadriven.TestData, change func(b []byte, at int) []byte) string {
	name := segmentName(idArg(s.t, td))
	var at int
	td.ScanArgs(s.t, "at", &at)
	s.disk = s.disk.with(name, change(s.disk.content(name), at))
	return ""
}

func (s *scenario) replay(after LSN) string {
	begins := after
	if after == 0 {
		begins = anywhere
	}
	var out strings.Builder
	end, err := replayFrom(s.disk, after, begins, func(r *Record) error {
		body := bytes.Join(r.Body, nil)
		fmt.Fprintf(&out, "%s %s, %d rows, %d bytes: %.20s\n", r.LSN, r.Kind, r.Rows, len(body), body)
		return nil
	})
	if err != nil {
		return out.String() + answerOf(err)
	}
	fmt.Fprintf(&out, "end at %s, dropped %d\n", end.LSN, end.Dropped)
	return out.String()
}

func (s *scenario) list() string {
	names, err := s.disk.List()
	require.NoError(s.t, err)
	var out strings.Builder
	for _, name := range names {
		fmt.Fprintf(&out, "%s %d\n", name, len(s.disk.content(name)))
	}
	return out.String()
}

func idArg(t *testing.T, td *datadriven.TestData) uint64 {
	var id uint64
	td.ScanArgs(t, "segment", &id)
	return id
}

// lsnArg reads EPOCH-COUNT, 0 when the argument is not there.
func lsnArg(t *testing.T, td *datadriven.TestData, name string) LSN {
	if !td.HasArg(name) {
		return 0
	}
	var text string
	td.ScanArgs(t, name, &text)
	var epoch, count uint64
	if _, err := fmt.Sscanf(text, "%d-%d", &epoch, &count); err != nil {
		return 0
	}
	return newLSN(epoch, count)
}

// answerOf prints an error, one fault a line.
func answerOf(err error) string {
	if err == nil {
		return "ok\n"
	}
	var all interface{ Unwrap() []error }
	if errors.As(err, &all) {
		var out strings.Builder
		for _, e := range all.Unwrap() {
			fmt.Fprintf(&out, "error: %v\n", e)
		}
		return out.String()
	}
	return fmt.Sprintf("error: %v\n", err)
}
