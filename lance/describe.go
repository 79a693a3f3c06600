package lance

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// Describe writes what is in the file where, for people: schema, metadata, global buffers and pages. It reads no pages.
func (r *Reader) Describe(w io.Writer) error {
	if err := r.enter(context.Background()); err != nil {
		return err
	}
	defer r.leave()
	out := bufio.NewWriter(w)
	sums := "no checksums"
	if r.sums != nil {
		sums = "checksums"
	}
	fmt.Fprintf(out, "%s: Lance %s, %d bytes, %d rows, %d columns, %s\n", r.name, r.footer.version(), r.size, r.rows, len(r.columns), sums)
	for _, k := range slices.Sorted(maps.Keys(r.meta)) {
		fmt.Fprintf(out, "metadata %s = %s\n", k, r.meta[k])
	}
	for i, e := range r.globals {
		fmt.Fprintf(out, "global buffer %d%s: %s\n", i, r.globalRole(i), e)
	}
	for col := range r.columns {
		if err := r.describeColumn(out, col); err != nil {
			return err
		}
	}
	return out.Flush()
}

// globalRole names the global buffers that the format or this package uses.
func (r *Reader) globalRole(i int) string {
	switch {
	case i == 0:
		return " (schema)"
	case i > r.userGlobals():
		return " (checksums)"
	}
	return ""
}

func (r *Reader) describeColumn(out io.Writer, col int) error {
	f := r.columns[col].field
	pages, err := r.column(col)
	if err != nil {
		return err
	}
	notes := ""
	if f.Nullable {
		notes += ", nullable"
	}
	if f.Key > 0 {
		notes += fmt.Sprintf(", key %d", f.Key)
	}
	fmt.Fprintf(out, "column %d %q: field %d, %s%s; metadata: %s\n", col, r.columns[col].path, f.ID, f.Type, notes, r.columns[col].at)
	for k, p := range pages {
		bufs := make([]string, len(p.bufs))
		for i, e := range p.bufs {
			bufs[i] = e.String()
			if p.sums != nil {
				bufs[i] += fmt.Sprintf(" crc %08x", p.sums[i])
			}
		}
		fmt.Fprintf(out, "  page %d: rows %d to %d, %s [%s]\n", k, p.first, p.end(), p.codec.describe(), strings.Join(bufs, ", "))
	}
	return nil
}

// String says where an extent is.
func (e extent) String() string { return fmt.Sprintf("%d bytes at %d", e.size, e.off) }
