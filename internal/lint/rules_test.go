package lint

import "regexp"

// module is the path under which the project's own packages are imported.
const module = "github.com/flightd/flightd"

// imports says which of the project's packages each package may import, beside internal/*, which everyone may.
// cmd and testdata are not listed: a command puts everything together.
var imports = map[string][]string{
	"flight":        {"query", "lsm"},
	"query":         {"lsm"},
	"lsm":           {"lsm/wal", "lsm/keyfilter", "lsm/policy", "memindex", "vector", "btree", "bitmap", "ivf", "fts", "manifest", "lance", "object", "object/objecttest"},
	"lsm/wal":       {"object"},
	"lsm/keyfilter": {"object"},
	"lsm/policy":    {},
	"memindex":      {"vector", "fts"},
	"btree":         {"lance", "object"},
	// Its values have the order and the bounds of a BTREE's.
	"bitmap":     {"btree", "lance", "object"},
	"fts":        {"lance", "object"},
	"ivf":        {"vector", "lance", "spill", "object"},
	"manifest":   {"lance", "object"},
	"lance":      {"spill", "object"},
	"spill":      {"object"},
	"vector":     {},
	"object":     {},
	"object/gcs": {"object"},
	// Stores that misbehave, for tests.
	"object/objecttest": {"object"},
}

// composers may import everything.
var composers = []string{"cmd/flightd"}

// owners says which packages may import a heavy dependency. The prefix ends at a path boundary.
var owners = []struct {
	prefix string
	owners []string
	reason string
}{
	{"google.golang.org/grpc", []string{"flight"}, "the wire is one package's business"},
	{"github.com/apache/arrow-go/v18/arrow/flight", []string{"flight"}, "the wire is one package's business"},
	{"github.com/duckdb", []string{"query"}, "only query needs cgo"},
	{"C", []string{"query"}, "only query needs cgo"},
	{"github.com/spf13", []string{"cmd/flightd"}, "nothing below cmd reads flags"},
	{"github.com/knadh/koanf", []string{"cmd/flightd"}, "nothing below cmd reads a configuration"},
	{"github.com/prometheus", []string{"cmd/flightd"}, "packages report plain structs"},
	{"cloud.google.com", []string{"object/gcs"}, "the cloud SDK stays behind object.Store"},
	{"unsafe", []string{"lance", "internal/offheap", "query", "vector"}, "each use there has its reason beside it"},
}

// banned lists imports that nobody may use.
var banned = map[string]string{
	"github.com/stretchr/testify/assert": "use require: a test that goes on after a failure reports noise",
	"github.com/stretchr/testify/mock":   "test against the real thing, in memory",
	"github.com/stretchr/testify/suite":  "plain tests and subtests do",
	"github.com/pkg/errors":              "use fmt.Errorf with %w",
	"log":                                "use log/slog, handed in by Options",
	"math/rand":                          "use math/rand/v2",
	"io/ioutil":                          "use os and io",
}

// calls lists selectors that nobody may use, as package name and regular expression of the name.
var calls = []struct {
	pkg    string
	name   *regexp.Regexp
	reason string
}{
	{"atomic", regexp.MustCompile(`^(Add|Load|Store|Swap|CompareAndSwap|And|Or)(Int|Uint|Pointer|Uintptr)`), "use the typed atomics"},
	{"os", regexp.MustCompile(`^(Getenv|LookupEnv|Environ)$`), "only cmd reads the environment"},
}

// envReaders may read the environment: the command, tests that look for test data, and what only tests use.
var envReaders = []string{"cmd/flightd", "internal/python"}

// traces are patterns that no tracked text may contain. None of them matches its own line here.
var traces = []struct {
	pattern *regexp.Regexp
	reason  string
}{
	{regexp.MustCompile(`(^|[^\w.~$})])/(work|root|home|Users)/\w`), "the path of one machine"},
	{regexp.MustCompile(`(pypi|pythonhosted)\.org|proxy\.golang\.(org)|repo1?\.maven\.(apache\.org|org)|crates\.(io)`),
		"the host of a registry; the machine's own configuration says where packages come from"},
	{regexp.MustCompile(`index[-]url|\bGO(PROXY|NOSUMDB|PRIVATE)[=]`), "the configuration of a registry"},
}

// Sizes that are a habit, not a rule.
const (
	fileLines     = 600
	functionLines = 60
)
