package vector

import (
	"context"
	"fmt"
	"math"
	"sync"
)

// PQ is a product quantiser (Jégou, Douze, Schmid: Product quantization for nearest neighbor search, 2011): a vector is cut into
// sub-vectors, and each is replaced by the number of the nearest of 256 (8 bits) or 16 (4 bits) code words of its own
// codebook. It is immutable and safe for concurrent use.
//
// What is encoded is the caller's choice. Lance's IVF_PQ encodes residuals (Centroids.Residuals) under L2, and under Cosine after
// Normalize; under Dot it encodes the rows as they are. Code words are chosen by L2 whatever the metric: that makes the
// least error, and readers do not see how a code was chosen.
//
// # Codes
//
// A row's code is CodeBytes bytes: with 8 bits byte j is the code of sub-vector j; with 4 bits byte j holds sub-vector 2j in its low and
// 2j+1 in its high half, so their number is even. Codes of many rows stand in rows, one after the other, or in columns, all
// rows' byte 0 and then all rows' byte 1, as Lance stores a partition.
type PQ struct {
	dim, m, bits int
	codebook     []float32
	words        []packed
}

// NewPQ takes the codebook of m sub-vectors of dim/m elements: flat, [sub-vector][code][element], as Lance's tensor has it. It
// keeps codebook, which must not change any more, beside a copy of its own.
func NewPQ(dim, m, bits int, codebook []float32) (*PQ, error) {
	if err := checkPQ(dim, m, bits); err != nil {
		return nil, err
	}
	if want := dim << bits; len(codebook) != want {
		return nil, fmt.Errorf("a codebook of %d elements; %d dimensions with %d bits have %d", len(codebook), dim, bits, want)
	}
	if at := notFinite(codebook); at >= 0 {
		return nil, fmt.Errorf("element %d of the codebook is %v", at, codebook[at])
	}
	p := &PQ{dim: dim, m: m, bits: bits, codebook: codebook, words: make([]packed, m)}
	size := p.sub() << bits
	for j := range p.words {
		p.words[j] = pack(p.sub(), codebook[j*size:(j+1)*size])
	}
	return p, nil
}

// maxSubVectors keeps the sums of a fast scan in 16 bits with some precision left.
const maxSubVectors = 4096

func checkPQ(dim, m, bits int) error {
	switch {
	case bits != 4 && bits != 8:
		return fmt.Errorf("product quantisation with %d bits; it is 4 or 8", bits)
	case dim <= 0 || dim > math.MaxInt32:
		return fmt.Errorf("product quantisation of %d dimensions", dim)
	case m <= 0 || m > maxSubVectors || dim%m != 0:
		return fmt.Errorf("%d sub-vectors of %d dimensions; their number divides the dimensions and is at most %d", m, dim, maxSubVectors)
	case bits == 4 && m%2 != 0:
		return fmt.Errorf("%d sub-vectors with 4 bits; two share a byte, so their number is even", m)
	}
	return nil
}

// Dim is the number of elements of a vector.
func (p *PQ) Dim() int { return p.dim }

// SubVectors is the number of sub-vectors.
func (p *PQ) SubVectors() int { return p.m }

// Bits is 4 or 8.
func (p *PQ) Bits() int { return p.bits }

// Codebook is what NewPQ was given, or what TrainPQ found. It must not be changed.
func (p *PQ) Codebook() []float32 { return p.codebook }

// CodeBytes is the length of a row's code.
func (p *PQ) CodeBytes() int { return p.m * p.bits / 8 }

// sub is the number of elements of a sub-vector.
func (p *PQ) sub() int { return p.dim / p.m }

// word is the code word c of sub-vector j.
func (p *PQ) word(j, c int) []float32 {
	at := (j<<p.bits + c) * p.sub()
	return p.codebook[at : at+p.sub()]
}

// Encode writes the codes of rows to codes, in rows. A sub-vector that is near no code word, since it has a NaN, an infinity
// or overflows, gets code 0, as in Lance; indexes do not take such rows.
func (p *PQ) Encode(rows []float32, codes []byte) {
	n := len(rows) / p.dim
	mustShape(p.dim, len(rows), n)
	mustShape(p.CodeBytes(), len(codes), n)
	var to [chunkRows]int32
	var dist [chunkRows]float32
	for at := 0; at < n; at += chunkRows {
		chunk := min(chunkRows, n-at)
		out := codes[at*p.CodeBytes() : (at+chunk)*p.CodeBytes()]
		// The words of a sub-vector stay in the cache while it is encoded for all rows of the chunk.
		for j := range p.m {
			p.words[j].nearest(L2, rows[at*p.dim+j*p.sub():], p.dim, chunk, to[:], dist[:])
			p.put(out, j, to[:chunk])
		}
	}
}

// put writes the codes of sub-vector j of some rows.
func (p *PQ) put(codes []byte, j int, words []int32) {
	width := p.CodeBytes()
	for i, w := range words {
		code := byte(max(w, 0))
		switch {
		case p.bits == 8:
			codes[i*width+j] = code
		case j%2 == 0:
			codes[i*width+j/2] = code
		default:
			codes[i*width+j/2] |= code << 4
		}
	}
}

// Decode writes the vectors that codes, in rows, stand for.
func (p *PQ) Decode(codes []byte, rows []float32) {
	n := len(rows) / p.dim
	mustShape(p.dim, len(rows), n)
	mustShape(p.CodeBytes(), len(codes), n)
	for i := range n {
		code, row := codes[i*p.CodeBytes():], rows[i*p.dim:]
		for j := range p.m {
			c := int(code[j*p.bits/8])
			if p.bits == 4 {
				c = c >> (j % 2 * 4) & 15
			}
			copy(row[j*p.sub():], p.word(j, c))
		}
	}
}

// TransposeCodes turns the codes of n rows from rows into columns; with n and the bytes of a code exchanged it turns them
// back.
func TransposeCodes(dst, src []byte, n int) {
	if n == 0 && len(src) == 0 && len(dst) == 0 {
		return
	}
	if n <= 0 || len(dst) != len(src) || len(src)%n != 0 {
		panic(fmt.Sprintf("vector: %d bytes of codes of %d rows transposed into %d", len(src), n, len(dst)))
	}
	width := len(src) / n
	for i := range n {
		for j, b := range src[i*width : (i+1)*width] {
			dst[j*n+i] = b
		}
	}
}

// PQOptions says how a product quantiser is trained. Zero values are the defaults of KMeansOptions.
type PQOptions struct {
	// SubVectors divides the dimensions; with 4 bits it is even.
	SubVectors int
	// Bits is 4 or 8.
	Bits int
	// Iterations, Tolerance, SampleRows, Workers and Seed are those of the k-means over each sub-vector.
	Iterations int
	Tolerance  float64
	SampleRows int
	Workers    int
	Seed       uint64
}

// TrainPQ finds the code words for rows of dim elements, by k-means over each sub-vector. At least 2^Bits rows must be finite.
//
// Goroutines: up to Workers, each with a sub-vector of its own at a time, which all end before it returns. Beside the rows it needs
// memory for a copy of one sub-vector of the sample for each of them.
func TrainPQ(ctx context.Context, rows []float32, dim int, o PQOptions) (*PQ, error) {
	if err := checkPQ(dim, o.SubVectors, o.Bits); err != nil {
		return nil, err
	}
	if len(rows)%dim != 0 {
		return nil, fmt.Errorf("product quantisation: %d elements are not rows of %d dimensions", len(rows), dim)
	}
	t := &pqTraining{PQOptions: o, rows: rows, dim: dim, sub: dim / o.SubVectors, codebook: make([]float32, dim<<o.Bits)}
	errs := make([]error, max(1, min(o.Workers, o.SubVectors)))
	var wg sync.WaitGroup
	for w := range errs {
		wg.Go(func() {
			for j := w; j < o.SubVectors && errs[w] == nil; j += len(errs) {
				errs[w] = t.train(ctx, j)
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return NewPQ(dim, o.SubVectors, o.Bits, t.codebook)
}

type pqTraining struct {
	PQOptions
	rows     []float32
	dim, sub int
	codebook []float32 // each goroutine writes the part of its sub-vector
}

func (t *pqTraining) train(ctx context.Context, j int) error {
	n, limit := len(t.rows)/t.dim, t.SampleRows
	if limit <= 0 {
		limit = 256 << t.Bits
	}
	// Every n/limit-th row, so that only the sample is copied.
	sampled := min(n, limit)
	column := make([]float32, 0, sampled*t.sub)
	for i := range sampled {
		at := i*n/sampled*t.dim + j*t.sub
		column = append(column, t.rows[at:at+t.sub]...)
	}
	found, err := KMeans(ctx, column, t.sub, KMeansOptions{Clusters: 1 << t.Bits, Iterations: t.Iterations, Tolerance: t.Tolerance, SampleRows: limit, Seed: t.Seed + uint64(j)})
	if err != nil {
		return fmt.Errorf("sub-vector %d: %w", j, err)
	}
	copy(t.codebook[j*t.sub<<t.Bits:], found.Centroids.Flat())
	return nil
}
