package vector

import (
	"fmt"
	"math"
)

// chunkRows is how many rows go through a kernel at a time where a kernel needs a second output or converted rows: the
// scratch then lies on the stack.
const chunkRows = 64

// Distances writes the distance between q and each row of rows to out: len(rows) = len(q)·len(out). The metric is L2,
// Cosine or Dot.
func Distances(m Metric, q, rows, out []float32) {
	mustShape(len(q), len(rows), len(out))
	switch m {
	case L2:
		l2Rows(q, rows, out)
	case Dot:
		dotRows(q, rows, out)
		for i, d := range out {
			out[i] = 1 - d
		}
	case Cosine:
		cosineRows(q, Norm(q), rows, out)
	default:
		panic(fmt.Sprintf("vector: float vectors have no metric %v", m))
	}
}

// DistancesAt writes the distance between q and row at[i] of rows to out[i]: len(out) = len(at). It reads no other rows.
func DistancesAt(m Metric, q, rows []float32, at []uint32, out []float32) {
	if len(at) != len(out) {
		panic(fmt.Sprintf("vector: %d rows chosen, room for %d distances", len(at), len(out)))
	}
	dim := len(q)
	if m == Cosine {
		norm := Norm(q)
		for i, r := range at {
			cosineRows(q, norm, rows[int(r)*dim:(int(r)+1)*dim], out[i:i+1])
		}
		return
	}
	for i, r := range at {
		Distances(m, q, rows[int(r)*dim:(int(r)+1)*dim], out[i:i+1])
	}
}

// Distance is the distance between two vectors of one length, under L2, Cosine or Dot.
func Distance(m Metric, a, b []float32) float32 {
	var out [1]float32
	Distances(m, a, b, out[:])
	return out[0]
}

// DistancesFloat16 is Distances for rows of binary16 numbers. The query is float32; each element is widened, exactly, before it
// is computed with.
func DistancesFloat16(m Metric, q []float32, rows []uint16, out []float32) {
	dim := len(q)
	mustShape(dim, len(rows), len(out))
	if dim == 0 {
		Distances(m, q, nil, out)
		return
	}
	// A few rows at a time are widened into a block that stays in the first cache: half the bytes come from memory, and
	// the distances have the bits of Distances over widened rows.
	var scratch [widenFloats]float32
	wide := scratch[:]
	if dim > len(wide) {
		wide = make([]float32, dim)
	}
	block := len(wide) / dim
	for len(out) > 0 {
		n := min(block, len(out))
		WidenFloat16(wide[:n*dim], rows[:n*dim])
		Distances(m, q, wide[:n*dim], out[:n])
		rows, out = rows[n*dim:], out[n:]
	}
}

// widenFloats is the size of the block of widened rows: 16 KiB.
const widenFloats = 4096

// Norm is the Euclidean length of v.
func Norm(v []float32) float32 {
	var out [1]float32
	dotRows(v, v, out[:])
	return sqrt(out[0])
}

// Normalize scales each row of rows to length 1 and writes it to dst, which may be rows itself. A row of zeros becomes NaN, which no
// index takes, as in Lance. So does one so long that its length overflows: it has no cosine distance to any row.
func Normalize(dim int, dst, rows []float32) {
	if dim <= 0 || len(dst) != len(rows) || len(rows)%dim != 0 {
		panic(fmt.Sprintf("vector: %d elements normalised in rows of %d into %d", len(rows), dim, len(dst)))
	}
	for at := 0; at < len(rows); at += dim {
		row := rows[at : at+dim]
		norm := Norm(row)
		if norm > math.MaxFloat32 {
			norm = float32(math.NaN())
		}
		for i, x := range row {
			dst[at+i] = x / norm
		}
	}
}

// cosineRows is the cosine distance of q, whose length is norm, to each row.
func cosineRows(q []float32, norm float32, rows, out []float32) {
	var squares [chunkRows]float32
	dim := len(q)
	for len(out) > 0 {
		n := min(chunkRows, len(out))
		dotSquareRows(q, rows[:n*dim], out[:n], squares[:n])
		for i, dot := range out[:n] {
			out[i] = 1 - dot/norm/sqrt(squares[i])
		}
		rows, out = rows[n*dim:], out[n:]
	}
}

func sqrt(x float32) float32 { return float32(math.Sqrt(float64(x))) }

// mustShape panics unless elements are rows of dim elements.
func mustShape(dim, elements, rows int) {
	if elements != dim*rows {
		panic(fmt.Sprintf("vector: %d elements are not %d rows of %d", elements, rows, dim))
	}
}
