package lsm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/flightd/flightd/object"
)

// leaseFolder holds the leases, one object for each epoch, which its process alone writes.
const leaseFolder = systemFolder + "/lease"

const (
	// defaultLease is how long a process may show no sign of life before another takes the data over: long enough for a
	// store that is slow or a machine that is short of time, and not longer than people wait for a restart.
	defaultLease = 10 * time.Second
	// leaseBeats is how often a lease is renewed while it lasts, and looked at by who waits for its end.
	leaseBeats = 4
)

// leaseState is the content of a lease.
type leaseState struct {
	Owner string `json:"owner"`
	// Beat rises with each renewal.
	Beat uint64 `json:"beat"`
	// Lasts is how long nothing may change before the process counts as gone, in milliseconds.
	Lasts int64 `json:"lasts_ms"`
	// Released is set when the process has ended in order.
	Released bool `json:"released,omitempty"`
}

// lease keeps others from taking the data from a process that lives. It is a courtesy and no lock: what keeps the data whole
// is the epoch. No two clocks are compared: who wants the data watches the object for as long as it says it lasts.
type lease struct {
	db    *DB
	lasts time.Duration
	name  string
	state leaseState
	stop  context.CancelFunc // nil while it does not run
	done  sync.WaitGroup
}

// leaseName returns the name of the lease of an epoch.
func leaseName(epoch uint64) string { return fmt.Sprintf("%s/%d.json", leaseFolder, epoch) }

// readLease returns the lease of an epoch, as it is and decoded; nothing when there is none.
func readLease(ctx context.Context, st object.Store, epoch uint64) (text string, s leaseState, err error) {
	b, err := st.Get(ctx, leaseName(epoch))
	if errors.Is(err, object.ErrNotExist) {
		return "", s, nil
	}
	if err != nil {
		return "", s, fmt.Errorf("read lease: %w", err)
	}
	_ = json.Unmarshal(b, &s) // one that cannot be read lasts as long as any
	return string(b), s, nil
}

// await returns when the process that has a claim has gone, or ErrInUse when it lives.
func (l *lease) await(ctx context.Context, c catalogClaim) error {
	first, s, err := readLease(ctx, l.db.st, c.Epoch)
	if err != nil {
		return err
	}
	if s.Released {
		return nil
	}
	lasts := l.lasts
	if s.Lasts > 0 {
		lasts = min(time.Duration(s.Lasts)*time.Millisecond, maxLease)
	}
	l.db.logger.Info("the data have an owner; waiting for a sign of life", "owner", c.Owner, "epoch", c.Epoch, "at_most", lasts)
	tick := time.NewTicker(max(lasts/leaseBeats, time.Millisecond))
	defer tick.Stop()
	for range leaseBeats + 1 {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
		now, s, err := readLease(ctx, l.db.st, c.Epoch)
		switch {
		case err != nil:
			return err
		case s.Released:
			return nil
		case now != first:
			return fmt.Errorf("%w by %s; stop it, or take the data over from it", ErrInUse, c.Owner)
		}
	}
	return nil
}

// maxLease bounds what a lease may say of itself.
const maxLease = 5 * time.Minute

// start begins to renew the lease of an epoch, and to look whether the epoch is still the newest.
func (l *lease) start(epoch uint64) {
	ctx, cancel := context.WithCancel(context.Background())
	l.name, l.stop = leaseName(epoch), cancel
	l.state = leaseState{Owner: processName(), Lasts: l.lasts.Milliseconds()}
	l.done.Go(func() { l.run(ctx, epoch) })
}

// run is the lease's goroutine.
func (l *lease) run(ctx context.Context, epoch uint64) {
	tick := time.NewTicker(l.lasts / leaseBeats)
	defer tick.Stop()
	for warned := false; ; {
		err := l.beat(ctx)
		if err == nil {
			err = l.db.home.owned(ctx)
		}
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, ErrFenced):
			return // and the lease is nobody's interest any more
		case err != nil && !warned:
			l.db.logger.Warn("the lease of the data cannot be renewed: another process may take them over", "epoch", epoch, "error", err)
		}
		warned = err != nil
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// beat renews the lease.
func (l *lease) beat(ctx context.Context) error {
	l.state.Beat++
	b, err := json.Marshal(l.state)
	if err != nil {
		return err
	}
	return l.db.st.Put(ctx, l.name, b)
}

// end stops the renewals, and gives the lease up if the process has ended in order: the next one need not wait.
func (l *lease) end(inOrder bool) {
	if l.stop == nil {
		return
	}
	l.stop()
	l.done.Wait()
	if !inOrder {
		return
	}
	l.state.Released = true
	if err := l.beat(context.Background()); err != nil {
		l.db.logger.Warn("the lease of the data cannot be given up: the next process waits for its end", "error", err)
	}
}

// processName names this process to people.
func processName() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown host"
	}
	return fmt.Sprintf("flightd, process %d on %s", os.Getpid(), host)
}
