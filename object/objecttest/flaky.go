package objecttest

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/flightd/flightd/object"
)

// ErrFlaky is what calls of a Flaky fail with.
var ErrFlaky = errors.New("injected: no answer from the store")

// Flaky is a store behind a bad network. A call takes its time; its answer may be lost though it had its effect, or it
// may have none, or have it later, when the caller has long been told that it failed; or a library in between tries again,
// and the caller is told that a name is taken which it took itself.
type Flaky struct {
	object.Store
	// Percent is how many calls of a hundred go wrong of those that change something; of reads it is a quarter of that.
	Percent int
	// Delay is the most that a call takes.
	Delay time.Duration

	mu     sync.Mutex
	random *rand.Rand
	late   sync.WaitGroup
}

// NewFlaky returns a flaky store in front of another. The seed decides what goes wrong.
func NewFlaky(st object.Store, seed uint64, percent int, delay time.Duration) *Flaky {
	return &Flaky{Store: st, Percent: percent, Delay: delay, random: rand.New(rand.NewPCG(seed, 1))}
}

// Wait returns when all calls that have their effect later have had it.
func (f *Flaky) Wait() { f.late.Wait() }

// fate is what becomes of a call.
type fate int

const (
	fine fate = iota
	without
	lost
	later
	twice
)

// draw decides what becomes of a call, of which Percent in so many go wrong, and lets its time pass.
func (f *Flaky) draw(calls int) fate {
	f.mu.Lock()
	what := fine
	if f.random.IntN(calls) < f.Percent {
		what = fate(1 + f.random.IntN(4))
	}
	var d time.Duration
	if f.Delay > 0 && f.random.IntN(4) == 0 {
		d = time.Duration(f.random.Int64N(int64(f.Delay)))
	}
	f.mu.Unlock()
	if d > 0 {
		time.Sleep(d)
	}
	return what
}

// afterwards has a call's effect later.
func (f *Flaky) afterwards(do func()) {
	f.mu.Lock()
	d := time.Duration(f.random.Int64N(int64(2*f.Delay) + 1))
	f.mu.Unlock()
	f.late.Go(func() {
		time.Sleep(d)
		do()
	})
}

// write makes a call that changes something.
func (f *Flaky) write(do func() error) error {
	switch f.draw(100) {
	case without:
		return ErrFlaky
	case lost:
		_ = do() // nobody hears of it
		return ErrFlaky
	case later:
		f.afterwards(func() { _ = do() })
		return ErrFlaky
	case twice:
		return errors.Join(do(), do())
	}
	return do()
}

// PutIfAbsent implements object.Store.
func (f *Flaky) PutIfAbsent(ctx context.Context, name string, data []byte) error {
	return f.write(func() error { return f.Store.PutIfAbsent(context.WithoutCancel(ctx), name, data) })
}

// Put implements object.Store.
func (f *Flaky) Put(ctx context.Context, name string, data []byte) error {
	return f.write(func() error { return f.Store.Put(context.WithoutCancel(ctx), name, data) })
}

// Delete implements object.Store.
func (f *Flaky) Delete(ctx context.Context, name string) error {
	return f.write(func() error { return f.Store.Delete(context.WithoutCancel(ctx), name) })
}

// Get implements object.Store.
func (f *Flaky) Get(ctx context.Context, name string) ([]byte, error) {
	if f.draw(400) != fine {
		return nil, ErrFlaky
	}
	return f.Store.Get(ctx, name)
}

// Stat implements object.Store.
func (f *Flaky) Stat(ctx context.Context, name string) (object.Info, error) {
	if f.draw(400) != fine {
		return object.Info{}, ErrFlaky
	}
	return f.Store.Stat(ctx, name)
}

// List implements object.Store.
func (f *Flaky) List(ctx context.Context, dir string) ([]object.Info, error) {
	if f.draw(400) != fine {
		return nil, ErrFlaky
	}
	return f.Store.List(ctx, dir)
}
