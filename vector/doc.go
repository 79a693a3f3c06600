// Package vector computes with vectors: distances, k-means, product quantisation and top-k. It is pure: no I/O, no state
// but what its callers hold, no import of the project. It is also the only home of assembly.
//
// # Vectors
//
// Vectors of one dimension d lie one after the other in a flat, row-major slice: row i of rows is rows[i*d : (i+1)*d].
// Elements are float32, binary16 (a uint16 that holds the bits) or, for binary vectors, bytes of eight bits. No alignment
// beyond that of the element is asked for. A function reads exactly the elements of the slices that it is given, never a
// byte behind them, so a slice may end where a mapping ends. Nothing is retained unless a comment says so; an output slice may
// not overlap an input.
//
// # Distances
//
// As Lance defines its _distance, so that what is ranked here may be compared with what Lance ranks:
//
//	L2       sum of (a-b)^2, without the root
//	Cosine   1 - a·b / |a| / |b|
//	Dot      1 - a·b
//	Hamming  the number of bits in which a and b differ
//
// Smaller is nearer for all of them; Dot may be negative. Binary vectors have Hamming only, the others all but Hamming.
//
// # Numbers
//
// Sums are taken in float32. A kernel may add in any order and may fuse multiplication and addition, so assembly and its
// twin in Go differ by rounding: for d terms by at most about d·2^-24 times the sum of the terms' absolute values. On one
// machine the distance between two vectors has the same bits wherever they lie: how many rows are computed together, and at
// which place a row stands among them, plays no part. A distance that is shown may therefore be computed in any layer.
//
// NaN and infinity go through sums as IEEE 754 has it: a vector with NaN has distance NaN to each other, one with an
// infinity has +Inf or NaN, and squares of large numbers may overflow to +Inf. Under Cosine a zero vector has distance NaN to all.
//
// Conversions between binary16 and float32 are exact to the bit in all implementations: to nearest, ties to even,
// subnormal numbers kept, NaN quiet with the top of its payload.
//
// # Kernels
//
// Each kernel is a function of its own name that takes slices and picks the implementation: AVX2 with FMA, F16C and POPCNT on amd64, NEON on arm64,
// else the twin with the suffix Go. Kernels trust the shapes that they are given; exported functions check them first. The
// build tag purego leaves the assembly out. To test the arm64 kernels on another machine, with QEMU's user mode (Debian: qemu-user-static):
//
//	GOARCH=arm64 CGO_ENABLED=0 go test -c -o build/vector.arm64 ./vector && qemu-aarch64-static build/vector.arm64
//
// Assembly and not the compiler's intrinsics (simd/archsimd), because these are outside the Go 1 promise, ask every user for
// GOEXPERIMENT, and in Go 1.26 mix legacy SSE into AVX code, which costs a kernel up to a hundredfold.
//
// # Inverted files
//
// IVF joins Centroids and a PQ to the model of an index and holds the rules by which Lance treats rows under each metric. What is
// indexed on disk and in memory goes through it.
//
// # Errors, goroutines
//
// Slices whose lengths do not fit each other are a mistake of the calling code and panic, as an index out of range does; what may come from a
// client or a file is checked by constructors, which return errors. Only KMeans and TrainPQ start goroutines, as many as they are told, and
// await them; both end with their context.
package vector
