package vector

import "fmt"

// Table holds the distances between a query and every code word: what a scan of codes looks up and adds (the asymmetric distance of
// Jégou et al. 2011). It can be filled again and again. The zero value is ready for PQ.Table. Once filled it is safe for
// concurrent reads.
//
// The distance of a code is that of the vector that the code stands for: its sums of distances over sub-vectors are added under L2;
// under Dot each is one less the product, and the surplus ones are taken off, as Lance does it. Rounding apart, that is Distance of
// the decoded vector.
type Table struct {
	m, bits int
	base    float32
	dist    []float32 // [sub-vector][code]
}

// Table fills t for a query: under L2 over residuals the query less the partition's centroid. The metric is L2 or Dot; cosine is L2 over
// normalised vectors, and half of that is the cosine distance.
func (p *PQ) Table(m Metric, q []float32, t *Table) {
	mustShape(p.dim, len(q), 1)
	t.m, t.bits, t.base = p.m, p.bits, 0
	switch m {
	case L2:
	case Dot:
		t.base = float32(1 - p.m)
	default:
		panic(fmt.Sprintf("vector: codes have no metric %v", m))
	}
	words := 1 << p.bits
	if n := p.m * words; cap(t.dist) < n {
		t.dist = make([]float32, n)
	} else {
		t.dist = t.dist[:n]
	}
	for j := range p.words {
		p.words[j].distances(m, q[j*p.sub():], p.sub(), 1, 0, words/lanes, t.dist[j*words:])
	}
}

// Scan writes the distance of each code to out; the codes stand in rows.
func (t *Table) Scan(codes []byte, out []float32) {
	mustShape(t.m*t.bits/8, len(codes), len(out))
	if t.bits == 4 {
		t.scan4(codes, out)
	} else {
		t.scan8(codes, out)
	}
}

// scanRows is how many sums stay in the first cache while sub-vector after sub-vector is added to them.
const scanRows = 512

// ScanColumns writes the distance of each code to out; the codes stand in columns, and have 8 bits. The distances have the
// bits of Scan's.
func (t *Table) ScanColumns(codes []byte, out []float32) {
	mustShape(t.m*t.bits/8, len(codes), len(out))
	if t.bits != 8 {
		panic("vector: columns of 4-bit codes are scanned in blocks")
	}
	n := len(out)
	for i := range out {
		out[i] = t.base
	}
	for at := 0; at < n; at += scanRows {
		sums, j := out[at:min(at+scanRows, n)], 0
		for ; j+4 <= t.m; j += 4 {
			words := (*[1024]float32)(t.dist[j*256:])
			c0, c1 := codes[j*n+at:][:len(sums)], codes[(j+1)*n+at:][:len(sums)]
			c2, c3 := codes[(j+2)*n+at:][:len(sums)], codes[(j+3)*n+at:][:len(sums)]
			for i := range sums {
				sums[i] += (words[c0[i]] + words[256+int(c1[i])]) + (words[512+int(c2[i])] + words[768+int(c3[i])])
			}
		}
		for ; j < t.m; j++ {
			words, c := (*[256]float32)(t.dist[j*256:]), codes[j*n+at:][:len(sums)]
			for i := range sums {
				sums[i] += words[c[i]]
			}
		}
	}
}

// scan8 adds sixteen sub-vectors at a time, then four, then one. A sum grows by four look-ups added in pairs, whose loads do
// not wait for each other, and in the order of ScanColumns.
func (t *Table) scan8(codes []byte, out []float32) {
	for i := range out {
		out[i] = t.base
	}
	for at := 0; at < len(out); at += scanRows {
		sums, j := out[at:min(at+scanRows, len(out))], 0
		chunk := codes[at*t.m : (at+len(sums))*t.m]
		for ; j+16 <= t.m; j += 16 {
			add16((*[4096]float32)(t.dist[j*256:]), chunk[j:], t.m, sums)
		}
		for ; j+4 <= t.m; j += 4 {
			add4((*[1024]float32)(t.dist[j*256:]), chunk[j:], t.m, sums)
		}
		for ; j < t.m; j++ {
			words := (*[256]float32)(t.dist[j*256:])
			for i := range sums {
				sums[i] += words[chunk[i*t.m+j]]
			}
		}
	}
}

// add16 adds sixteen sub-vectors to the sums; codes begins at the first of them and rows are stride bytes apart. Unrolled over
// arrays no look-up is checked for bounds, and it takes a quarter of the time of a loop.
func add16(w *[4096]float32, codes []byte, stride int, sums []float32) {
	for i := range sums {
		c := (*[16]byte)(codes[i*stride:])
		sum := sums[i]
		sum += (w[c[0]] + w[256+int(c[1])]) + (w[512+int(c[2])] + w[768+int(c[3])])
		sum += (w[1024+int(c[4])] + w[1280+int(c[5])]) + (w[1536+int(c[6])] + w[1792+int(c[7])])
		sum += (w[2048+int(c[8])] + w[2304+int(c[9])]) + (w[2560+int(c[10])] + w[2816+int(c[11])])
		sum += (w[3072+int(c[12])] + w[3328+int(c[13])]) + (w[3584+int(c[14])] + w[3840+int(c[15])])
		sums[i] = sum
	}
}

// add4 is add16 for four.
func add4(w *[1024]float32, codes []byte, stride int, sums []float32) {
	for i := range sums {
		c := (*[4]byte)(codes[i*stride:])
		sums[i] += (w[c[0]] + w[256+int(c[1])]) + (w[512+int(c[2])] + w[768+int(c[3])])
	}
}

// scan4 is exact; FastTable is quick.
func (t *Table) scan4(codes []byte, out []float32) {
	width := t.m / 2
	for i := range out {
		sum := t.base
		for j, c := range codes[i*width : (i+1)*width] {
			words := (*[32]float32)(t.dist[j*32:])
			sum += words[c&15] + words[16+int(c>>4)]
		}
		out[i] = sum
	}
}
