package wal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/flightd/flightd/object"
)

// putEntry stores an entry at the end of its stream. An error means that nobody knows whether it is there, or that another
// process has the stream.
//
// A name that is taken is looked into. Our own bytes mean that the call had succeeded and its answer was lost. A sentinel
// with a lower epoch is that of a process that claimed before us and came late; it has not written anything behind it, and
// will not. A higher epoch is that of our successor.
func (b *Bucket) putEntry(s *Stream, e *entry) error {
	data, err := e.seal(s.Epoch, s.Generation.Load())
	if err != nil {
		return err
	}
	ctx := context.Background()
	for try := 0; ; {
		name := s.entryPath(s.next)
		err := b.opts.Store.PutIfAbsent(ctx, name, data)
		if errors.Is(err, object.ErrExists) {
			var mine, past bool
			mine, past, err = b.lookAt(ctx, s, name, data)
			if past {
				s.next++
				try = 0
				continue
			}
			if mine {
				err = nil
			}
		}
		if err == nil {
			e.position = s.next
			s.next++
			return nil
		}
		if errors.Is(err, ErrFenced) || errors.As(err, new(*object.CorruptError)) || try == b.opts.Retries {
			return fmt.Errorf("put log entry %s: %w", name, err)
		}
		b.opts.Logger.Warn("put log entry; will try again", "entry", name, "error", err)
		time.Sleep(b.opts.RetryDelay << min(try, 10))
		try++
	}
}

// lookAt finds out what has the place of an entry: the entry itself, or the sentinel of a process before.
func (b *Bucket) lookAt(ctx context.Context, s *Stream, name string, data []byte) (mine, past bool, err error) {
	got, err := b.opts.Store.Get(ctx, name)
	if err != nil {
		return false, false, fmt.Errorf("look who has the place: %w", err)
	}
	if bytes.Equal(got, data) {
		return true, false, nil
	}
	x, err := decodeEntry(name, got, func([]byte) []byte { return nil })
	switch {
	case err != nil:
		return false, false, err
	case !x.own:
		return false, false, &object.CorruptError{Name: name, Err: errors.New("another program has put its log entry into a shard that is flightd's")}
	case x.epoch > s.Epoch:
		return false, false, fmt.Errorf("epoch %d has the place, ours is %d: %w", x.epoch, s.Epoch, ErrFenced)
	case x.sentinel && x.epoch < s.Epoch:
		return false, true, nil
	}
	return false, false, &object.CorruptError{Name: name, Err: fmt.Errorf("an entry of epoch %d has the place of ours, of epoch %d", x.epoch, s.Epoch)}
}
