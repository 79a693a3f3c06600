package flight

//lint:file-ignore SA1019 CancelQuery is deprecated, but older clients send nothing else.

import (
	"context"
	"fmt"

	"github.com/apache/arrow-go/v18/arrow/flight"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql"
	pb "github.com/apache/arrow-go/v18/arrow/flight/gen/flight"
	"google.golang.org/protobuf/proto"
)

// action is one of the actions of DoAction.
type action struct {
	name, describe string
	// bare actions carry their message as it is, the others inside an Any, as their specifications have it.
	bare bool
	// request is the type of message they carry.
	request proto.Message
	// run answers a request; a nil answer is sent as an empty result.
	run func(s *service, ctx context.Context, request proto.Message) (proto.Message, error)
}

// actions are all actions, in the order in which ListActions names them.
var actions = []action{
	{flightsql.CreatePreparedStatementActionType, "Prepares a statement.", false, &pb.ActionCreatePreparedStatementRequest{},
		func(s *service, ctx context.Context, r proto.Message) (proto.Message, error) {
			return s.prepare(ctx, r.(*pb.ActionCreatePreparedStatementRequest))
		}},
	{flightsql.ClosePreparedStatementActionType, "Closes a prepared statement.", false, &pb.ActionClosePreparedStatementRequest{},
		func(s *service, _ context.Context, r proto.Message) (proto.Message, error) {
			s.prepared.close(r.(*pb.ActionClosePreparedStatementRequest).GetPreparedStatementHandle())
			return nil, nil
		}},
	{flight.CancelFlightInfoActionType, "Cancels the queries that read a flight.", true, &pb.CancelFlightInfoRequest{},
		func(s *service, _ context.Context, r proto.Message) (proto.Message, error) {
			err := s.cancelInfo(r.(*pb.CancelFlightInfoRequest).GetInfo())
			return &pb.CancelFlightInfoResult{Status: flight.CancelStatusCancelled}, err
		}},
	{flightsql.CancelQueryActionType, "The older form of CancelFlightInfo.", false, &pb.ActionCancelQueryRequest{},
		func(s *service, _ context.Context, r proto.Message) (proto.Message, error) {
			var info pb.FlightInfo
			if err := proto.Unmarshal(r.(*pb.ActionCancelQueryRequest).GetInfo(), &info); err != nil {
				return nil, invalid("CancelQuery has no valid FlightInfo: %w", err)
			}
			err := s.cancelInfo(&info)
			return &pb.ActionCancelQueryResult{Result: pb.ActionCancelQueryResult_CANCEL_RESULT_CANCELLED}, err
		}},
	{flight.RenewFlightEndpointActionType, "Makes a ticket that expires last longer.", true, &pb.RenewFlightEndpointRequest{},
		func(s *service, _ context.Context, r proto.Message) (proto.Message, error) {
			return s.renewEndpoint(r.(*pb.RenewFlightEndpointRequest).GetEndpoint())
		}},
	{flight.SetSessionOptionsActionType, "Sets the session's catalog and schema.", true, &pb.SetSessionOptionsRequest{},
		func(s *service, ctx context.Context, r proto.Message) (proto.Message, error) {
			return s.setSessionOptions(ctx, r.(*pb.SetSessionOptionsRequest)), nil
		}},
	{flight.GetSessionOptionsActionType, "Tells the session's options.", true, &pb.GetSessionOptionsRequest{},
		func(s *service, ctx context.Context, _ proto.Message) (proto.Message, error) {
			return s.sessionOptions(ctx)
		}},
	{flight.CloseSessionActionType, "Closes the session's statements and resets its options.", true, &pb.CloseSessionRequest{},
		func(s *service, ctx context.Context, _ proto.Message) (proto.Message, error) {
			return s.closeSession(ctx), nil
		}},
}

// refusedActions are the actions of Flight SQL that this server does not have, with the reason.
var refusedActions = map[string]string{
	flightsql.BeginTransactionActionType:            "transactions are not supported; every statement commits on its own",
	flightsql.EndTransactionActionType:              "transactions are not supported; every statement commits on its own",
	flightsql.BeginSavepointActionType:              "savepoints are not supported",
	flightsql.EndSavepointActionType:                "savepoints are not supported",
	flightsql.CreatePreparedSubstraitPlanActionType: "Substrait plans are not run; send SQL",
}

// ListActions implements the Flight service.
func (s *service) ListActions(_ *flight.Empty, stream pb.FlightService_ListActionsServer) error {
	for _, a := range actions {
		if err := stream.Send(&flight.ActionType{Type: a.name, Description: a.describe}); err != nil {
			return fmt.Errorf("send an action: %w", err)
		}
	}
	return nil
}

// DoAction implements the Flight service.
func (s *service) DoAction(request *flight.Action, stream pb.FlightService_DoActionServer) error {
	for _, a := range actions {
		if a.name == request.GetType() {
			return s.act(a, request.GetBody(), stream)
		}
	}
	if reason, ok := refusedActions[request.GetType()]; ok {
		return unimplemented("%s: %s", request.GetType(), reason)
	}
	return unimplemented("action %q does not exist; ListActions names those that do", request.GetType())
}

// act runs an action and sends its answer.
func (s *service) act(a action, body []byte, stream pb.FlightService_DoActionServer) error {
	message, err := a.decode(body)
	if err != nil {
		return err
	}
	answer, err := a.run(s, stream.Context(), message)
	if err != nil {
		return err
	}
	var result pb.Result
	if answer != nil {
		if result.Body, err = a.encode(answer); err != nil {
			return err
		}
	}
	if err := stream.Send(&result); err != nil {
		return fmt.Errorf("send the result of %s: %w", a.name, err)
	}
	return nil
}

// decode reads the body of a request.
func (a action) decode(body []byte) (proto.Message, error) {
	if !a.bare {
		message, err := parseCommand(body)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", a.name, err)
		}
		if message.ProtoReflect().Descriptor() != a.request.ProtoReflect().Descriptor() {
			return nil, invalid("%s does not take a %s", a.name, message.ProtoReflect().Descriptor().Name())
		}
		return message, nil
	}
	message := a.request.ProtoReflect().New().Interface()
	if err := proto.Unmarshal(body, message); err != nil {
		return nil, invalid("%s: %w", a.name, err)
	}
	return message, nil
}

// encode writes the body of a result.
func (a action) encode(answer proto.Message) ([]byte, error) {
	if !a.bare {
		return packCommand(answer)
	}
	b, err := proto.Marshal(answer)
	if err != nil {
		return nil, internal("%s: %w", a.name, err)
	}
	return b, nil
}
