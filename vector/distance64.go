package vector

import (
	"fmt"
	"math"
)

// DistancesFloat64 is Distances for vectors of float64. Sums are taken in float64, in the order of the elements, and the
// distance is rounded to float32 at the end. It has no assembly: such columns are rare, and twice the bytes.
func DistancesFloat64(m Metric, q, rows []float64, out []float32) {
	dim := len(q)
	mustShape(dim, len(rows), len(out))
	var norm float64
	for _, x := range q {
		norm += x * x
	}
	norm = math.Sqrt(norm)
	for i := range out {
		row := rows[i*dim : (i+1)*dim]
		var sum, square float64
		switch m {
		case L2:
			for j, x := range row {
				sum += (q[j] - x) * (q[j] - x)
			}
			out[i] = float32(sum)
		case Dot:
			for j, x := range row {
				sum += q[j] * x
			}
			out[i] = float32(1 - sum)
		case Cosine:
			for j, x := range row {
				sum += q[j] * x
				square += x * x
			}
			out[i] = float32(1 - sum/(norm*math.Sqrt(square)))
		default:
			panic(fmt.Sprintf("vector: float vectors have no metric %v", m))
		}
	}
}
