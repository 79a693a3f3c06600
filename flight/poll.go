package flight

import (
	"context"
	"crypto/rand"
	"fmt"
	"sync"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/flight"
	pb "github.com/apache/arrow-go/v18/arrow/flight/gen/flight"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/flightd/flightd/query"
)

const (
	// pollTime is how long PollFlightInfo waits for the end of the statement before it says how far that is.
	pollTime = 500 * time.Millisecond
	// jobTime is how long a statement that runs in the background goes on without being asked for, and how long its
	// answer is kept.
	jobTime = 5 * time.Minute
	// maxJobs bounds the statements in the background.
	maxJobs = 256
	// jobPrefix begins the handle of the descriptor by which a statement in the background is asked for.
	jobPrefix = "job "
)

// job is a statement that PollFlightInfo runs in the background.
type job struct {
	id         string
	owner      *session
	descriptor *flight.FlightDescriptor // what was asked for
	progress   query.Progress
	cancel     context.CancelCauseFunc

	done chan struct{} // closed once info and err are there
	info *flight.FlightInfo
	err  error

	expires time.Time // guarded by jobs.mu
}

// jobs are the statements that run in the background, and those whose answer is kept.
type jobs struct {
	mu   sync.Mutex
	byID map[string]*job
}

func newJobs() *jobs { return &jobs{byID: make(map[string]*job)} }

// add remembers a job.
func (r *jobs) add(j *job) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.byID) >= maxJobs {
		return precondition("%d statements run in the background; wait for some, or cancel them", maxJobs)
	}
	j.expires = time.Now().Add(jobTime)
	r.byID[j.id] = j
	return nil
}

// find returns a job, which then lasts from now on.
func (r *jobs) find(id string) (j *job, expires time.Time, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if j = r.byID[id]; j == nil {
		return nil, expires, notFound("the statement is not known any more: it was cancelled, its session ended, or nobody asked for it for %v", jobTime)
	}
	j.expires = time.Now().Add(jobTime)
	return j, j.expires, nil
}

// endWhere ends the jobs that match, for a reason, and says how many these were. What a job has made stays.
func (r *jobs) endWhere(why error, match func(*job) bool) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for id, j := range r.byID {
		if match(j) {
			delete(r.byID, id)
			j.cancel(why)
			n++
		}
	}
	return n
}

// expire ends the jobs that nobody asks for.
func (r *jobs) expire(now time.Time) {
	r.endWhere(fmt.Errorf("nobody asked for the statement: %w", context.Canceled), func(j *job) bool { return !now.Before(j.expires) })
}

// endOwned ends the jobs of a session.
func (r *jobs) endOwned(owner *session) {
	r.endWhere(fmt.Errorf("the session ended: %w", context.Canceled), func(j *job) bool { return j.owner == owner })
}

// PollFlightInfo implements the Flight service: the first call begins the statement, which then runs in the
// background, and each further one, with the descriptor that the last one gave, waits a while for its end.
func (s *service) PollFlightInfo(ctx context.Context, d *flight.FlightDescriptor) (*flight.PollInfo, error) {
	j, err := s.jobOf(ctx, d)
	if err != nil {
		return nil, err
	}
	timer := time.NewTimer(pollTime)
	defer timer.Stop()
	select {
	case <-j.done:
	case <-timer.C:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	_, expires, err := s.jobs.find(j.id)
	if err != nil {
		return nil, err
	}
	return j.poll(expires)
}

// poll says how far the job is.
func (j *job) poll(expires time.Time) (*flight.PollInfo, error) {
	answer := &flight.PollInfo{ExpirationTime: timestamppb.New(expires)}
	select {
	case <-j.done:
		if j.err != nil {
			return nil, j.err
		}
		answer.Info, answer.Progress = j.info, proto.Float64(1)
		return answer, nil
	default:
	}
	next, err := packCommand(&pb.TicketStatementQuery{StatementHandle: []byte(jobPrefix + j.id)})
	if err != nil {
		return nil, err
	}
	answer.FlightDescriptor = &flight.FlightDescriptor{Type: flight.DescriptorCMD, Cmd: next}
	answer.Progress = proto.Float64(j.progress.Fraction())
	// The metadata is how CancelFlightInfo finds the job while there is no ticket.
	answer.Info = &flight.FlightInfo{FlightDescriptor: j.descriptor, TotalRecords: -1, TotalBytes: -1, AppMetadata: []byte(jobPrefix + j.id)}
	return answer, nil
}

// jobOf returns the job that a descriptor of ours names, or begins that of another.
func (s *service) jobOf(ctx context.Context, d *flight.FlightDescriptor) (*job, error) {
	if d.GetType() == flight.DescriptorCMD {
		command, err := parseCommand(d.GetCmd())
		if err != nil {
			return nil, err
		}
		if ticket, ok := command.(*pb.TicketStatementQuery); ok {
			id, err := jobID(ticket.GetStatementHandle())
			if err != nil {
				return nil, err
			}
			j, _, err := s.jobs.find(id)
			return j, err
		}
	}
	return s.beginJob(ctx, d)
}

// jobID takes the id out of a handle.
func jobID(handle []byte) (string, error) {
	if len(handle) <= len(jobPrefix) || string(handle[:len(jobPrefix)]) != jobPrefix {
		return "", invalid("the descriptor is not one that PollFlightInfo gave")
	}
	return string(handle[len(jobPrefix):]), nil
}

// beginJob runs what a descriptor asks for in the background. It does not end with the call.
func (s *service) beginJob(ctx context.Context, d *flight.FlightDescriptor) (*job, error) {
	j := &job{id: rand.Text(), owner: sessionOf(ctx), descriptor: d, done: make(chan struct{})}
	ctx, j.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	if err := s.jobs.add(j); err != nil {
		j.cancel(nil)
		return nil, err
	}
	stop := context.AfterFunc(s.stop, func() { j.cancel(errStopping) })
	s.start("PollFlightInfo", func() (err error) {
		j.info, err = s.wholeInfo(query.WithProgress(ctx, &j.progress), d)
		return err
	}, func(err error) {
		if err != nil && codeOf(err) == codeOf(context.Canceled) {
			err = cause(ctx, err)
		}
		j.err = err
		stop()
		close(j.done)
		j.cancel(nil)
	})
	return j, nil
}

// wholeInfo is GetFlightInfo, but a query has run to its end when its info is there, and its rows are kept. Only a scan
// that has several endpoints runs while they are read.
func (s *service) wholeInfo(ctx context.Context, d *flight.FlightDescriptor) (*flight.FlightInfo, error) {
	info, err := s.GetFlightInfo(ctx, d)
	if err != nil || len(info.GetEndpoint()) != 1 || d.GetType() != flight.DescriptorCMD {
		return info, err
	}
	command, err := parseCommand(d.GetCmd())
	if err != nil {
		return nil, err
	}
	switch command := command.(type) {
	case *pb.CommandStatementQuery:
		statement, err := s.query.Prepare(ctx, s.querySession(ctx), command.GetQuery())
		if err != nil {
			return nil, err
		}
		defer s.close(statement)
		return s.collectedInfo(ctx, statement, nil, info)
	case *pb.CommandPreparedStatementQuery:
		p, release, err := s.prepared.acquire(command.GetPreparedStatementHandle())
		if err != nil {
			return nil, err
		}
		defer release()
		params := p.bound()
		if params != nil {
			defer params.Release()
		}
		return s.collectedInfo(ctx, p.statement, params, info)
	}
	return info, nil
}

// collectedInfo runs a query and returns the info of its rows. What is no query, or one for each of several rows of
// parameters, keeps its info.
func (s *service) collectedInfo(ctx context.Context, statement *query.Statement, params arrow.RecordBatch, info *flight.FlightInfo) (*flight.FlightInfo, error) {
	if statement.IsUpdate() || statement.Returns() || params != nil && params.NumRows() > 1 {
		return info, nil
	}
	rows, err := statement.Collect(ctx, params)
	if err != nil {
		return nil, cause(ctx, err)
	}
	return s.returnedInfo(rows, info.GetFlightDescriptor())
}
