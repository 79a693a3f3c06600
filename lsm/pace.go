package lsm

import (
	"context"
	"sync"
	"time"
)

// pace holds the compaction of all tables together to a rate, and makes it give way to flushes: writers wait for these.
// What somebody waits for is not paced.
//
// It is a token bucket: work that is done takes its bytes, and begins again when they have come back. It may hold the
// tokens of paceBurst, so that work in small pieces is not slower than the rate.
type pace struct {
	// rate is in bytes a second, those that are read and those that are written; 0 is no bound.
	rate int64

	mu     sync.Mutex
	tokens float64 // below 0 when work is ahead of the rate
	at     time.Time
	// flushes are under way now; idle is closed when the last of them ends.
	flushes int
	idle    chan struct{}
}

const (
	// paceBurst is the time whose tokens a bucket holds.
	paceBurst = 100 * time.Millisecond
	// maxYield is how long one piece of work gives way to flushes. Then it goes on all the same: flushes may never end
	// while somebody writes, and without compaction they get slower.
	maxYield = 50 * time.Millisecond
	// paceLook is how often work that waits looks whether somebody has begun to wait for it.
	paceLook = 20 * time.Millisecond
)

// newPace returns a pace of a rate.
func newPace(rate int64) *pace { return &pace{rate: rate, at: time.Now()} }

// flushing says that a flush has begun; the caller calls ended when it is over.
func (p *pace) flushing() (ended func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.flushes++; p.flushes == 1 {
		p.idle = make(chan struct{})
	}
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.flushes--; p.flushes == 0 {
			close(p.idle)
		}
	}
}

// wait returns when work may go on that has moved n bytes since it last did, or when it becomes urgent. It returns
// sooner with an error when ctx ends.
func (p *pace) wait(ctx context.Context, n int64, urgent func() bool) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	debt, idle := p.take(n, time.Now())
	if idle != nil {
		if err := pause(ctx, idle, maxYield, urgent); err != nil {
			return err
		}
	}
	return pause(ctx, nil, debt, urgent)
}

// take takes n bytes and returns how long it is until the bucket is not in debt, and what is closed when no flush is
// under way, nil when none is.
func (p *pace) take(n int64, now time.Time) (debt time.Duration, idle chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.flushes > 0 {
		idle = p.idle
	}
	if p.rate <= 0 {
		return 0, idle
	}
	most := float64(p.rate) * paceBurst.Seconds()
	p.tokens = min(p.tokens+now.Sub(p.at).Seconds()*float64(p.rate), most) - float64(n)
	p.at = now
	if p.tokens < 0 {
		debt = time.Duration(-p.tokens / float64(p.rate) * float64(time.Second))
	}
	return debt, idle
}

// pause waits until a time has passed or a channel, which may be nil, is closed, but no longer than until the work is
// urgent.
func pause(ctx context.Context, done chan struct{}, d time.Duration, urgent func() bool) error {
	for end := time.Now().Add(d); !urgent(); {
		left := time.Until(end)
		if left <= 0 {
			return nil
		}
		timer := time.NewTimer(min(left, paceLook))
		select {
		case <-timer.C:
		case <-done:
			timer.Stop()
			return nil
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		}
	}
	return nil
}
