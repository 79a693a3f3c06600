package keyfilter

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/bits"

	"github.com/cespare/xxhash/v2"

	"github.com/flightd/flightd/object"
)

const (
	// bitsPerKey is the size of a filter.
	bitsPerKey = 10
	// probes is how many bits of its block a key has.
	probes = 6
	// blockBytes is the size of a block: a cache line.
	blockBytes = 64
	// spread leads from one bit of a key to the next: 2^32 divided by the golden ratio.
	spread = 0x9E3779B9
)

// Filter is a set of keys that may have some that were never added.
type Filter struct {
	keys   uint64 // how many were added
	count  uint64 // of blocks
	blocks []byte
	reader object.Reader // that blocks are mapped from, nil when they are on the heap
}

// New returns an empty filter with room for n keys.
func New(n int) *Filter {
	count := blocksFor(uint64(n))
	return &Filter{count: count, blocks: make([]byte, count*blockBytes)}
}

// blocksFor returns the number of blocks for some keys, at least one.
func blocksFor(keys uint64) uint64 {
	const blockBits = 8 * blockBytes
	return max(keys/blockBits*bitsPerKey+(keys%blockBits*bitsPerKey+blockBits-1)/blockBits, 1)
}

// Int returns the hash of an integer key.
func Int(key int64) uint64 {
	x := uint64(key)
	x = (x ^ x>>30) * 0xBF58476D1CE4E5B9
	x = (x ^ x>>27) * 0x94D049BB133111EB
	return x ^ x>>31
}

// Bytes returns the hash of a key of bytes.
func Bytes(key []byte) uint64 { return xxhash.Sum64(key) }

// block returns the block of a hash.
func (f *Filter) block(hash uint64) []byte {
	i, _ := bits.Mul64(hash, f.count)
	return f.blocks[i*blockBytes:][:blockBytes:blockBytes]
}

// Add puts the key of a hash in.
func (f *Filter) Add(hash uint64) {
	block := f.block(hash)
	for h, i := uint32(hash), 0; i < probes; h, i = h*spread, i+1 {
		block[h>>23>>3] |= 1 << (h >> 23 & 7)
	}
	f.keys++
}

// Has reports whether the key of a hash may have been added. If not, it was not.
func (f *Filter) Has(hash uint64) bool {
	block := f.block(hash)
	for h, i := uint32(hash), 0; i < probes; h, i = h*spread, i+1 {
		if block[h>>23>>3]>>(h>>23&7)&1 == 0 {
			return false
		}
	}
	return true
}

// Keys returns how many keys were added.
func (f *Filter) Keys() int64 { return int64(f.keys) }

// Bytes returns the size of the filter in memory.
func (f *Filter) Bytes() int64 { return int64(len(f.blocks)) }

// Rate returns the part of all keys that were not added of which Has says yes, estimated from the bits that are set.
func (f *Filter) Rate() float64 {
	sum := 0.0
	for at := 0; at < len(f.blocks); at += blockBytes {
		set := 0
		for word := f.blocks[at:][:blockBytes]; len(word) > 0; word = word[8:] {
			set += bits.OnesCount64(binary.LittleEndian.Uint64(word))
		}
		share, all := float64(set)/(8*blockBytes), 1.0
		for range probes {
			all *= share
		}
		sum += all
	}
	return sum / float64(f.count)
}

// Describe tells people what is in the filter.
func (f *Filter) Describe(w io.Writer) error {
	_, err := fmt.Fprintf(w, "key filter of %d keys in %d blocks of 512 bits, %.1f bits a key; about %.2f %% of absent keys pass\n",
		f.keys, f.count, f.BitsPerKey(), 100*f.Rate())
	return err
}

// BitsPerKey returns the bits that a key takes, 0 without keys.
func (f *Filter) BitsPerKey() float64 {
	if f.keys == 0 {
		return 0
	}
	return float64(8*len(f.blocks)) / float64(f.keys)
}
