package ivf

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/flightd/flightd/internal/lancepb"
	"github.com/flightd/flightd/vector"
)

// element is a type that the elements of vectors have.
type element struct {
	arrow  arrow.DataType
	tensor lancepb.TensorType
	bytes  int
}

// elements are those that an index takes, float32 first because it is what the zero value means.
var elements = []element{
	{arrow.PrimitiveTypes.Float32, lancepb.TensorType_TENSOR_FLOAT32, 4},
	{arrow.FixedWidthTypes.Float16, lancepb.TensorType_TENSOR_FLOAT16, 2},
	{arrow.PrimitiveTypes.Float64, lancepb.TensorType_TENSOR_FLOAT64, 8},
}

// elementOf finds the element of an Arrow type; nil means float32.
func elementOf(t arrow.DataType) (element, error) {
	for _, e := range elements {
		if t == nil || arrow.TypeEqual(t, e.arrow) {
			return e, nil
		}
	}
	return element{}, fmt.Errorf("vectors of %s have no index; their elements are float16, float32 or float64", t)
}

// elementOfTensor finds the element of a tensor.
func elementOfTensor(t lancepb.TensorType) (element, error) {
	for _, e := range elements {
		if t == e.tensor {
			return e, nil
		}
	}
	return element{}, fmt.Errorf("a tensor of %v: %w", t, errUnsupported)
}

// get reads one element at the beginning of b.
func (e element) get(b []byte) float32 {
	switch e.bytes {
	case 2:
		var out [1]float32
		vector.WidenFloat16(out[:], []uint16{binary.LittleEndian.Uint16(b)})
		return out[0]
	case 4:
		return math.Float32frombits(binary.LittleEndian.Uint32(b))
	default:
		return float32(math.Float64frombits(binary.LittleEndian.Uint64(b)))
	}
}

// append writes x behind b, rounded if the element is narrower.
func (e element) append(b []byte, x float32) []byte {
	switch e.bytes {
	case 2:
		var out [1]uint16
		vector.NarrowFloat16(out[:], []float32{x})
		return binary.LittleEndian.AppendUint16(b, out[0])
	case 4:
		return binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	default:
		return binary.LittleEndian.AppendUint64(b, math.Float64bits(float64(x)))
	}
}

// round makes of numbers what is read back after they were written as this element.
func (e element) round(v []float32) {
	var b [8]byte
	for i, x := range v {
		v[i] = e.get(e.append(b[:0], x))
	}
}

// readTensor decodes a tensor of rows by columns. The data is as long as the shape says, so memory is in proportion to what was
// read.
func readTensor(t *lancepb.Tensor) (flat []float32, rows, columns int, e element, err error) {
	shape := t.GetShape()
	if len(shape) != 2 || shape[0] == 0 || shape[1] == 0 || shape[0] > math.MaxInt32 || shape[1] > math.MaxInt32 {
		return nil, 0, 0, e, fmt.Errorf("a tensor of shape %v, expected two dimensions", shape)
	}
	for _, e = range elements {
		if e.tensor != t.GetDataType() {
			continue
		}
		n := int64(shape[0]) * int64(shape[1])
		if int64(len(t.GetData()))/int64(e.bytes) != n || len(t.GetData())%e.bytes != 0 {
			return nil, 0, 0, e, fmt.Errorf("%d bytes are no tensor of %v elements of %s", len(t.GetData()), shape, e.arrow)
		}
		flat = make([]float32, n)
		for i := range flat {
			flat[i] = e.get(t.GetData()[i*e.bytes:])
		}
		return flat, int(shape[0]), int(shape[1]), e, nil
	}
	return nil, 0, 0, e, fmt.Errorf("a tensor of %v: %w", t.GetDataType(), errUnsupported)
}

// writeTensor is the inverse of readTensor.
func writeTensor(flat []float32, columns int, e element) *lancepb.Tensor {
	t := &lancepb.Tensor{DataType: e.tensor, Shape: []uint32{uint32(len(flat) / columns), uint32(columns)}}
	t.Data = make([]byte, 0, len(flat)*e.bytes)
	for _, x := range flat {
		t.Data = e.append(t.Data, x)
	}
	return t
}
