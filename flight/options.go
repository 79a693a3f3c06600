package flight

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/grpc/metadata"

	"github.com/flightd/flightd/lsm"
)

// optionPrefix begins the call headers that carry options of an ingest. ADBC reaches the options of
// CommandStatementIngest by no means, but it can set headers.
const optionPrefix = "x-flightd-"

// ingestOptions are the options of an ingest that change what it does.
type ingestOptions struct {
	// durability is what acks shall mean, empty for what they mean in the table.
	durability lsm.Durability
	// missing says what becomes of columns that the stream lacks.
	missing lsm.Missing
	// evolve says that columns which the table lacks are added to it.
	evolve bool
	// key is the idempotency key, empty for none.
	key string
	// resume says that the stream may go on where one under the same key ended.
	resume bool
}

// readOptions reads the options of an ingest: the call's headers, and those that its command has. An option that is
// not obeyed is refused, because a client that gives one relies on it.
func readOptions(ctx context.Context, command map[string]string) (o ingestOptions, err error) {
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
				return o, invalid("option %q is given twice, as %q and as %q; give it once", name, other, value)
			}
			options[name] = value
		}
	}
	for _, name := range slices.Sorted(maps.Keys(options)) {
		if err := o.set(name, options[name]); err != nil {
			return o, err
		}
	}
	if o.resume && o.key == "" {
		return o, invalid("option resume needs an idempotency-key: it names the request to go on with")
	}
	if o.key != "" && o.durability == lsm.Buffered {
		return o, invalid("option durability = \"buffered\": what has an idempotency-key is durable in every table; leave one of the two out")
	}
	return o, nil
}

// allow refuses options that a table does not allow.
func (o *ingestOptions) allow(table *lsm.Table) error {
	if o.durability == lsm.Buffered && table.Durability() == lsm.Durable {
		return invalid("option durability = \"buffered\": table %q is durable, which no stream can weaken; leave the option out, "+
			"or make the table WITH (durability = 'buffered')", table.Name())
	}
	return nil
}

// set sets one option.
func (o *ingestOptions) set(name, value string) error {
	switch name {
	case "durability":
		o.durability = lsm.Durability(value)
		if o.durability != lsm.Durable && o.durability != lsm.Buffered {
			return invalid("option durability = %q: say \"durable\" to have acks of a buffered table mean that their rows are on disk, or leave it out", value)
		}
		return nil
	case "missing":
		missing, ok := map[string]lsm.Missing{"null": lsm.MissingNull, "keep": lsm.MissingKeep, "error": lsm.MissingError}[value]
		if !ok {
			return invalid("option missing = %q: a column that the stream lacks becomes \"null\", or its default, can \"keep\" what rows have, or is an \"error\"", value)
		}
		o.missing = missing
		return nil
	case "evolve":
		if value != "add-columns" {
			return invalid("option evolve = %q: say \"add-columns\" to have columns that the table lacks added to it, or leave it out", value)
		}
		o.evolve = true
		return nil
	case "idempotency-key":
		if value == "" {
			return invalid("option idempotency-key is empty; give each request a key of its own, or leave the option out")
		}
		o.key = value
		return nil
	case "resume":
		resume, err := strconv.ParseBool(value)
		if err != nil {
			return invalid("option resume = %q: say \"true\" or \"false\"", value)
		}
		o.resume = resume
		return nil
	case "transaction":
		return noTransaction([]byte(value))
	}
	return invalid("there is no option %q for an ingest; there are durability, evolve, idempotency-key, missing, resume and transaction", name)
}
