package ivf

import (
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/flightd/flightd/internal/lancepb"
	"github.com/flightd/flightd/vector"
)

// IndexVersion is what the manifest of a table says of the version of such indexes, as Lance 14 has it.
const IndexVersion = 1

// Details is what the manifest of a table says of an index of a model.
func Details(model *vector.IVF) (*anypb.Any, error) {
	d := &lancepb.VectorIndexDetails{MetricType: lancepb.VectorMetric(model.Metric())}
	if pq := model.PQ(); pq != nil {
		d.Pq = &lancepb.VectorProduct{NumBits: uint32(pq.Bits()), NumSubVectors: uint32(pq.SubVectors())}
	} else {
		d.Flat = &lancepb.VectorFlat{}
	}
	return lancepb.NewAny(d)
}
