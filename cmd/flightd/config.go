package main

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/providers/posflag"
	"github.com/knadh/koanf/v2"
	"github.com/spf13/pflag"

	"github.com/flightd/flightd/lsm"
)

// envPrefix begins the name of every environment variable that is meant for flightd.
const envPrefix = "FLIGHTD_"

// config is what serve runs with.
type config struct {
	data     string
	listen   string
	http     string
	memory   int64 // bytes
	temp     string
	retain   time.Duration
	compact  int64 // bytes a second, less than zero for no bound
	window   time.Duration
	idle     time.Duration
	grace    time.Duration
	session  time.Duration // without calls, after which what a session holds is freed
	timeout  time.Duration // that a statement may take, 0 for any
	read     time.Duration // after which a result that nobody takes is ended
	insecure bool
	// durability is that of tables without one, logInterval how long a buffered batch may stay unsynced.
	durability  lsm.Durability
	logInterval time.Duration
	logFormat   string
	logLevel    slog.Level
}

// setting is one thing that can be configured.
type setting struct {
	// name is the flag and the key in the file; see envName for the environment.
	name string
	// usage is the line in the help text; the word in backquotes stands for the value.
	usage string
	// value is the default.
	value string
	// apply parses v into c. Its error says what is wanted, not where: load knows where.
	apply func(c *config, v string) error
}

// envName is the setting's name in the environment.
func (s setting) envName() string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(s.name, "-", "_"))
}

// settings lists all of serve's settings in the order of the help text.
var settings = []setting{
	{"data", "`FOLDER` that holds the tables; made when absent", "./flightd-data", applyData},
	{"listen", "`ADDRESS` of Flight SQL; port 0 picks a free one", "127.0.0.1:31337", applyListen},
	{"http", "`ADDRESS` of /metrics, /healthz and /readyz; empty turns it off", "127.0.0.1:31338", applyHTTP},
	{"durability", "`MODE` of tables that have none of their own; durable: a batch is acknowledged when it is on disk, buffered: when it is in memory", "durable", applyDurability},
	{"wal-interval", "`TIME` that a buffered batch may not be on disk yet", "100ms", applyLogInterval},
	{"memory", "`SIZE` of the budget for memtables, caches and queries together, as 8GiB or 50%", "50%", applyMemory},
	{"temp", "`FOLDER` for spilled sorts and side files (default DATA/_flightd/tmp)", "", applyTemp},
	{"retain", "`TIME` that superseded versions and files that nothing names are kept", "24h", applyRetain},
	{"compaction-rate", "`SIZE` that compaction may read and write in a second while nobody waits for it; 0 is no bound", "128MiB", applyCompactionRate},
	{"idempotency-window", "`TIME` for which an idempotency key is remembered", "168h", applyWindow},
	{"transaction-idle", "`TIME` that a stream which is stored as a whole or under a key may bring nothing", "5m", applyIdle},
	{"grace", "`TIME` that running work gets to finish after SIGTERM or SIGINT", "10s", applyGrace},
	{"session-idle", "`TIME` without a call after which a session's prepared statements are closed", "30m", applySessionIdle},
	{"read-idle", "`TIME` for which a client may take nothing of a result before its query is ended", "5m", applyReadIdle},
	{"query-timeout", "`TIME` that a statement may take, a query until its result is read; 0s is no limit", "0s", applyQueryTimeout},
	{"insecure", "allow addresses beyond loopback, without encryption and for everybody", "false", applyInsecure},
	{"log-format", "`FORMAT` of the log on stderr: text or json", "text", applyLogFormat},
	{"log-level", "least `LEVEL` that is logged: debug, info, warn or error", "info", applyLogLevel},
}

// addFlags declares the settings on fs. Values stay text there: load parses all three sources by the same rules.
func addFlags(fs *pflag.FlagSet) {
	fs.SortFlags = false
	for _, s := range settings {
		if s.name == "insecure" {
			fs.Bool(s.name, false, s.usage)
			continue
		}
		fs.String(s.name, s.value, s.usage)
	}
	fs.String("config", "", "YAML `FILE` with any of these settings; the environment and flags win over it")
}

// source is one place that settings come from.
type source struct {
	k *koanf.Koanf
	// place describes the place of a key for an error message.
	place func(key string) string
}

// loadConfig merges the file, the environment and the flags, in rising order of precedence.
func loadConfig(fs *pflag.FlagSet, environ []string) (config, error) {
	flags, err := flagSource(fs)
	if err != nil {
		return config{}, err
	}
	vars, path, err := envSource(environ)
	if err != nil {
		return config{}, err
	}
	if f := fs.Lookup("config"); f.Changed {
		path = f.Value.String()
	}
	sources := []source{vars, flags}
	if path != "" {
		yml, err := fileSource(path)
		if err != nil {
			return config{}, err
		}
		sources = slices.Insert(sources, 0, yml)
	}
	return merge(sources)
}

// merge applies every setting from the last source that has it. Values that lose are checked, too: a wrong line
// in a file should not wait for the day on which the flag above it goes away.
func merge(sources []source) (config, error) {
	var c config
	var problems []error
	for _, s := range settings {
		if err := s.apply(&c, s.value); err != nil {
			problems = append(problems, fmt.Errorf("default of --%s: %w; give --%s a value", s.name, err, s.name))
		}
		for _, src := range sources {
			v := src.k.Get(s.name)
			if v == nil {
				continue
			}
			if err := s.apply(&c, fmt.Sprint(v)); err != nil {
				problems = append(problems, fmt.Errorf("%s: %w", src.place(s.name), err))
			}
		}
	}
	if len(problems) == 0 {
		problems = append(problems, c.refuseExposure())
	}
	if err := errors.Join(problems...); err != nil {
		return config{}, &usageError{err}
	}
	if c.temp == "" {
		c.temp = filepath.Join(c.data, "_flightd", "tmp")
	}
	return c, nil
}

// fileSource reads the YAML file at path.
func fileSource(path string) (source, error) {
	k := koanf.New(".")
	if err := k.Load(file.Provider(path), yaml.Parser()); err != nil {
		return source{}, &usageError{fmt.Errorf("config file %s: %w; it must be a YAML file of settings, such as \"data: /var/lib/flightd\"", path, err)}
	}
	place := func(key string) string { return fmt.Sprintf("config file %s, key %q", path, key) }
	var problems []error
	for _, key := range k.Keys() {
		if !known(key) {
			problems = append(problems, fmt.Errorf("%s: no such setting; there are %s", place(key), names()))
			continue
		}
		switch k.Get(key).(type) {
		case string, bool, int, int64, uint64, float64:
		default:
			problems = append(problems, fmt.Errorf("%s: want one plain value; to use the default remove the line", place(key)))
		}
	}
	if err := errors.Join(problems...); err != nil {
		return source{}, &usageError{err}
	}
	return source{k, place}, nil
}

// envSource reads the FLIGHTD_ variables, and the path of the config file if they name one.
func envSource(environ []string) (src source, path string, err error) {
	byEnv := make(map[string]string)
	for _, s := range settings {
		byEnv[s.envName()] = s.name
	}
	var problems []error
	k := koanf.New(".")
	err = k.Load(env.Provider("", env.Opt{
		Prefix:      envPrefix,
		EnvironFunc: func() []string { return environ },
		TransformFunc: func(name, value string) (string, any) {
			key, ok := byEnv[name]
			switch {
			case ok:
				return key, value
			case name == envPrefix+"CONFIG":
				path = value
			case !foreignVariable(name):
				problems = append(problems, fmt.Errorf(
					"environment variable %s: no such setting; there are %s; unset it or correct its name", name, names()))
			}
			return "", nil
		},
	}), nil)
	if err := errors.Join(append(problems, err)...); err != nil {
		return source{}, "", &usageError{err}
	}
	place := func(key string) string {
		i := slices.IndexFunc(settings, func(s setting) bool { return s.name == key })
		return "environment variable " + settings[i].envName()
	}
	return source{k, place}, path, nil
}

// foreignVariable reports whether a FLIGHTD_ variable was set for somebody else: the tests' own, and what
// Kubernetes gives every pod beside a Service named flightd (FLIGHTD_SERVICE_HOST, FLIGHTD_PORT_31337_TCP …),
// which must not keep the server from starting.
func foreignVariable(name string) bool {
	rest := strings.TrimPrefix(name, envPrefix)
	switch {
	case rest == "SHARED", strings.HasPrefix(rest, "TEST_"):
		return true
	case rest == "PORT", strings.HasPrefix(rest, "PORT_"):
		return true
	}
	return rest == "SERVICE_HOST" || rest == "SERVICE_PORT" || strings.HasPrefix(rest, "SERVICE_PORT_")
}

// flagSource takes the flags that were given.
func flagSource(fs *pflag.FlagSet) (source, error) {
	k := koanf.New(".")
	err := k.Load(posflag.ProviderWithFlag(fs, ".", nil, func(f *pflag.Flag) (string, any) {
		if !known(f.Name) {
			return "", nil
		}
		return f.Name, f.Value.String()
	}), nil)
	return source{k, func(key string) string { return "flag --" + key }}, err
}

// known reports whether a setting has the name.
func known(name string) bool {
	return slices.ContainsFunc(settings, func(s setting) bool { return s.name == name })
}

// names lists the settings for an error message.
func names() string {
	var b []string
	for _, s := range settings {
		b = append(b, s.name)
	}
	return strings.Join(b, ", ")
}
