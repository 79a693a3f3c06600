package flight

import "time"

// sweepEvery is how often it is looked for what is to end.
const sweepEvery = time.Second

// sweepLoop lets go of what clients have left, until the server drains.
func (s *Server) sweepLoop() {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			s.sweepSafely(now)
		case <-s.drain.Done():
			return
		}
	}
}

// sweepSafely sweeps, and goes on after a panic, which the log has.
func (s *Server) sweepSafely(now time.Time) {
	var err error
	defer s.recovered("sweep", &err)
	s.sweep(now)
}

// sweep ends the sessions without calls, the leases whose time is over and the queries that nobody reads. When writers
// wait for memory that old snapshots hold, it also lets go of one snapshot that can be spared, the next time of another.
func (s *Server) sweep(now time.Time) {
	for _, session := range s.sessions.idle(now, s.sessionIdle) {
		s.endSession(session)
	}
	s.leases.expire(now)
	s.jobs.expire(now)
	s.running.cutStalled(now, s.readIdle)
	if s.db.HeldUpByReaders() && !s.leases.dropOne() {
		s.running.cutLongest(now)
	}
}
