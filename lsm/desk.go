package lsm

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
)

// order is work that only the goroutine of a desk may do.
type order struct {
	do   func() error
	done chan error
}

// desk is where a goroutine that owns something takes orders: nobody else does that work, so it needs no lock.
type desk struct {
	table  *Table
	orders chan order
	// waiting counts those who wait for an order to be taken or done.
	waiting atomic.Int32
}

func newDesk(t *Table) desk { return desk{table: t, orders: make(chan order)} }

// order has the goroutine do some work and waits for it.
func (d *desk) order(ctx context.Context, do func(context.Context) error) error {
	t := d.table
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(t.stop, func() { cancel(t.ended()) })()
	d.waiting.Add(1)
	defer d.waiting.Add(-1)
	o := order{do: func() error { return do(ctx) }, done: make(chan error, 1)}
	select {
	case d.orders <- o:
		// Each order that was taken is answered, soon after ctx ends.
		err := <-o.done
		if errors.Is(err, context.Canceled) && t.stop.Err() != nil {
			err = fmt.Errorf("%w: %w", t.ended(), err) // a store says only that it was cancelled
		}
		return t.db.blame(ctx, err)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// poke wakes a goroutine that reads a channel of capacity one.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
