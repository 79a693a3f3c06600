package lance

import (
	"fmt"
	"hash/crc32"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/flightd/flightd/internal/lancepb"
	"github.com/flightd/flightd/spill"
)

// pagesField is the number of lancepb.ColumnMetadata.pages.
const pagesField = 2

// pageList is what is known of the pages of a column of the file: their messages, as they will stand in the column's
// metadata, and the checksums of their buffers. The bytes are in the ledger; what follows from them is kept up with each
// page, so that the end, which needs the checksum of the metadata before the metadata, reads everything once.
type pageList struct {
	ledger  *ledger
	column  int
	head    []byte // of the metadata: what comes before the pages
	size    int64  // of the metadata
	sum     uint32 // of the metadata
	buffers uint32 // of all pages
}

// add takes the next page and the checksums of its buffers.
func (l *pageList) add(page *lancepb.Page, sums []uint32) error {
	message, err := deterministic.Marshal(page)
	if err != nil {
		return err
	}
	entry := protowire.AppendTag(make([]byte, 0, len(message)+8), pagesField, protowire.BytesType)
	entry = protowire.AppendBytes(entry, message)
	l.size += int64(len(entry))
	l.sum = crc32.Update(l.sum, castagnoli, entry)
	l.buffers += uint32(len(sums))
	if err := l.ledger.append(2*l.column, entry); err != nil {
		return err
	}
	entry = entry[:0]
	for _, sum := range sums {
		entry = le.AppendUint32(entry, sum)
	}
	return l.ledger.append(2*l.column+1, entry)
}

// writeMetadata writes the metadata of the column.
func (l *pageList) writeMetadata(out *output) error {
	if err := out.Write(l.head); err != nil {
		return err
	}
	return l.ledger.read(2*l.column, out.Write)
}

// writeSums writes the checksums of the buffers of all pages.
func (l *pageList) writeSums(out *output) error { return l.ledger.read(2*l.column+1, out.Write) }

// ledger keeps the bytes of all pageLists: two streams for each, in memory or in a side file.
type ledger struct {
	memory [][]byte
	side   *spill.File
}

// newLedger gives each column its place in a ledger.
func newLedger(lists []*pageList, o WriterOptions) (*ledger, error) {
	g := &ledger{}
	var err error
	if o.SpillPages == nil {
		g.memory = make([][]byte, 2*len(lists))
	} else if g.side, err = o.SpillPages.OpenFile(spill.Options{Streams: max(2*len(lists), 1), BufferBytes: o.SpillBytes}); err != nil {
		return nil, err
	}
	head, err := columnHead()
	if err != nil {
		return nil, err
	}
	for i, l := range lists {
		*l = pageList{ledger: g, column: i, head: head, size: int64(len(head)), sum: crc32.Checksum(head, castagnoli)}
	}
	return g, nil
}

// columnHead returns the bytes of a column's metadata that come before its pages.
func columnHead() ([]byte, error) {
	enc, err := directEncoding(&lancepb.ColumnEncoding{
		ColumnEncoding: &lancepb.ColumnEncoding_Values{Values: &emptypb.Empty{}},
	})
	if err != nil {
		return nil, err
	}
	return deterministic.Marshal(&lancepb.ColumnMetadata{Encoding: enc})
}

func (g *ledger) append(stream int, b []byte) error {
	if g.side == nil {
		g.memory[stream] = append(g.memory[stream], b...)
		return nil
	}
	if err := g.side.Append(stream, b); err != nil {
		return fmt.Errorf("spill the metadata of pages: %w", err)
	}
	return nil
}

func (g *ledger) read(stream int, fn func([]byte) error) error {
	if g.side == nil {
		return fn(g.memory[stream])
	}
	if err := g.side.Read(stream, fn); err != nil {
		return fmt.Errorf("read back the metadata of pages: %w", err)
	}
	return nil
}

// close drops everything. A side file that cannot be removed goes with its folder.
func (g *ledger) close() {
	g.memory = nil
	if g.side != nil {
		_ = g.side.Close()
	}
}
