package wal

import (
	"context"
	"errors"
	"fmt"

	"github.com/flightd/flightd/object"
)

// smallEntry is the size up to which an object below Stream.After may be a sentinel.
const smallEntry = 4 << 10

// Trim implements Log: it removes the entries that end at or below an LSN and that Release gave free.
func (b *Bucket) Trim(upTo LSN) error {
	b.trimming.Lock()
	defer b.trimming.Unlock()
	if err := b.Err(); err != nil {
		return err
	}
	victims := make(map[*Stream][]stored)
	b.mu.Lock()
	for _, s := range b.mu.streams {
		if list := s.removable(min(upTo, b.DurableLSN())); len(list) > 0 {
			victims[s] = list
		}
	}
	b.mu.Unlock()
	for s, list := range victims {
		for i, e := range list {
			if err := b.remove(s.entryPath(e.position)); err != nil {
				victims[s] = list[i:]
				b.restore(victims)
				return err
			}
		}
		delete(victims, s)
	}
	return b.sweep()
}

// restore puts entries that are still there back into the lists of their streams.
func (b *Bucket) restore(victims map[*Stream][]stored) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for s, list := range victims {
		s.restore(list)
	}
}

// remove removes an object, or finds it gone.
func (b *Bucket) remove(name string) error {
	err := b.opts.Store.Delete(context.Background(), name)
	if err != nil && !errors.Is(err, object.ErrNotExist) {
		return fmt.Errorf("trim the log: %w", err)
	}
	return nil
}

// checkpoint writes what is known of the idempotency keys and waits until it is durable.
func (b *Bucket) checkpoint() error {
	c := &call{checkpoint: true, done: make(chan struct{}, 1)}
	if err := b.queue(c); err != nil {
		return err
	}
	<-c.done
	if c.err != nil || c.last == 0 {
		return c.err
	}
	return b.WaitDurable(context.Background(), c.last)
}

// sweep removes what a process before has given free and not removed. Sentinels stay.
func (b *Bucket) sweep() error {
	b.mu.Lock()
	var streams []*Stream
	for _, s := range b.mu.streams {
		if len(s.rest) > 0 {
			streams = append(streams, s)
		}
	}
	b.mu.Unlock()
	for _, s := range streams { // rest is Trim's alone
		for len(s.rest) > 0 {
			x := s.rest[0]
			p, _ := parseEntryName(x.Name)
			name := s.entryPath(p)
			keep := false
			if x.Size <= smallEntry {
				data, err := b.opts.Store.Get(context.Background(), name)
				if err != nil && !errors.Is(err, object.ErrNotExist) {
					return fmt.Errorf("trim the log: %w", err)
				}
				if err == nil {
					e, err := decodeEntry(name, data, func([]byte) []byte { return nil })
					keep = err != nil || e.sentinel || !e.own
				}
			}
			if !keep {
				if err := b.remove(name); err != nil {
					return err
				}
			}
			s.rest = s.rest[1:]
		}
	}
	return nil
}
