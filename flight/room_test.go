package flight

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// takeLater takes room in a goroutine of its own, and tells when it has it.
func takeLater(ctx context.Context, r *room, n int64) (got *atomic.Pointer[flying]) {
	got = new(atomic.Pointer[flying])
	go func() {
		if f, err := r.take(ctx, n); err == nil {
			got.Store(f)
		}
	}()
	return got
}

// TestRoomIsGivenWithinItsShare has streams wait for each other only when there is no room left, and the first one never.
func TestRoomIsGivenWithinItsShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(100)
		large, err := r.take(t.Context(), 500)
		require.NoError(t, err, "a message larger than the share comes alone")
		r.came(large, 0)
		first, err := r.take(t.Context(), 60)
		require.NoError(t, err)
		second, err := r.take(t.Context(), 40)
		require.NoError(t, err)
		third := takeLater(t.Context(), r, 50)
		synctest.Wait()
		require.Nil(t, third.Load(), "there is no room")
		r.came(first, 30)
		synctest.Wait()
		require.Nil(t, third.Load(), "there is still too little")
		r.came(second, 40)
		time.Sleep(time.Hour) // of the test's clock
		require.Nil(t, third.Load(), "messages that came keep their room until the table has them")
		r.give(30)
		synctest.Wait()
		require.NotNil(t, third.Load())
		require.Equal(t, int64(90), r.used)
	})
}

// TestRoomOfThoseThatRest gives the room of clients that send nothing to others, and takes it from these when they send.
func TestRoomOfThoseThatRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(100)
		resting, err := r.take(t.Context(), 90)
		require.NoError(t, err)
		start := time.Now()
		second, err := r.take(t.Context(), 90)
		require.NoError(t, err)
		require.GreaterOrEqual(t, time.Since(start), roomResting)
		require.LessOrEqual(t, time.Since(start), roomResting+roomLook)
		r.came(second, 45)
		r.came(resting, 45)
		third := takeLater(t.Context(), r, 20)
		synctest.Wait()
		require.Nil(t, third.Load())
		r.give(45)
		synctest.Wait()
		require.NotNil(t, third.Load())
		r.came(third.Load(), 0)
		r.give(45)
		require.Zero(t, r.used)
		require.Empty(t, r.flights)

		_, err = r.take(t.Context(), 90)
		require.NoError(t, err)
		ctx, cancel := context.WithCancelCause(t.Context())
		gone := errors.New("the client is gone")
		cancel(gone)
		_, err = r.take(ctx, 90)
		require.ErrorIs(t, err, gone)
	})
}

// TestNoRoomBoundsNothing is for a server without a limit.
func TestNoRoomBoundsNothing(t *testing.T) {
	require.Nil(t, newRoom(0))
	r := &batchReader{}
	require.NoError(t, r.makeRoom())
	r.fillRoom(&message{})
	r.leaveRoom()
}
