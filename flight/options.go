package flight

import (
	"context"
	"maps"
	"slices"
	"strings"

	"google.golang.org/grpc/metadata"
)

// optionPrefix begins the call headers that carry options of an ingest. ADBC reaches the options of
// CommandStatementIngest by no means, but it can set headers.
const optionPrefix = "x-flightd-"

// checkOptions checks the options of an ingest: the call's headers, and those that its command has. An option that
// is not obeyed is refused, because a client that gives one relies on it.
func checkOptions(ctx context.Context, command map[string]string) error {
	options := make(map[string]string, len(command))
	maps.Copy(options, command)
	headers, _ := metadata.FromIncomingContext(ctx)
	for header, values := range headers {
		name, ok := strings.CutPrefix(header, optionPrefix)
		if !ok {
			continue
		}
		for _, value := range values {
			if other, ok := options[name]; ok && other != value {
				return invalid("option %q is given twice, as %q and as %q; give it once", name, other, value)
			}
			options[name] = value
		}
	}
	for _, name := range slices.Sorted(maps.Keys(options)) {
		if err := checkOption(name, options[name]); err != nil {
			return err
		}
	}
	return nil
}

// checkOption checks one option.
func checkOption(name, value string) error {
	switch name {
	case "durability":
		if value == "durable" {
			return nil
		}
		return invalid("option durability = %q: what is acknowledged here is durable, which no stream can weaken; say \"durable\" or leave it out", value)
	case "missing":
		if value == "null" {
			return nil
		}
		return unimplemented("option missing = %q: a column that the stream lacks becomes null; send all columns", value)
	case "evolve":
		return unimplemented("option evolve = %q: a stream cannot add columns to its table; create the table with them", value)
	case "idempotency-key", "resume":
		return unimplemented("option %s: the server does not remember keys of streams, so that one that is sent again is applied again; "+
			"with a primary key that changes nothing", name)
	case "transaction":
		return noTransaction([]byte(value))
	}
	return invalid("there is no option %q for an ingest; there are durability, evolve, idempotency-key, missing, resume and transaction", name)
}
