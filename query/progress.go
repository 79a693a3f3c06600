package query

import (
	"context"
	"sync/atomic"
)

// Progress tells how far a statement is: how many of the rows that its scans will read they have read, or how many are in
// the index that it builds. It is safe for concurrent use.
type Progress struct{ total, done, most atomic.Int64 }

// progressSteps is the precision in which the furthest value is remembered.
const progressSteps = 1 << 20

// progressKey finds the Progress in a statement's context.
type progressKey struct{}

// WithProgress returns a context whose statements tell p how far they are.
func WithProgress(ctx context.Context, p *Progress) context.Context {
	return context.WithValue(ctx, progressKey{}, p)
}

// progressOf returns the Progress of a context, or one that nobody looks at.
func progressOf(ctx context.Context) *Progress {
	if p, ok := ctx.Value(progressKey{}).(*Progress); ok {
		return p
	}
	return &Progress{}
}

// built tells how far the building of an index is, in rows.
func (p *Progress) built(done, total int64) {
	p.total.Store(total)
	p.done.Store(done)
}

// Fraction returns a number from 0 to 1 that never falls. It stays below 1: when the statement is over, its caller
// knows. A statement that scans nothing stays at 0.
func (p *Progress) Fraction() float64 {
	total, done := p.total.Load(), p.done.Load()
	steps := int64(0)
	if total > 0 {
		steps = min(int64(float64(done)/float64(total)*progressSteps), progressSteps*99/100)
	}
	for {
		most := p.most.Load()
		if steps <= most {
			return float64(most) / progressSteps
		}
		if p.most.CompareAndSwap(most, steps) {
			return float64(steps) / progressSteps
		}
	}
}
