package query

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// An option is name = value in a WITH clause.
type option struct {
	name  string // in lower case
	value string // of a string what it says, else as it was written
	at    int    // the place of the name among the tokens
	to    int    // and of the value
	end   int    // the place behind the value
}

// options reads (name = value, ...) at i, where it finds a parenthesis, and returns the place behind it. what is named in
// errors.
func (p *parsed) options(i int, what string) (list []option, next int, err error) {
	end := p.closing(i)
	if end >= len(p.tokens) {
		return nil, end, p.syntaxError(end, "syntax error")
	}
	for _, s := range p.split(span{i + 1, end}) {
		if s.empty() || !p.tokens[s.from].ident() || p.word(s.from+1) != "=" || s.to < s.from+3 {
			return nil, end, p.syntaxError(min(s.from, end), what+" options are WITH (name = value, ...): syntax error")
		}
		o := option{name: strings.ToLower(p.tokens[s.from].name), at: s.from, to: s.from + 2, end: s.to}
		o.value = p.optionText(o)
		if t := p.tokens[o.to]; s.to == o.to+1 && t.kind == literal && strings.HasPrefix(t.text, "'") {
			o.value = strings.ReplaceAll(t.text[1:len(t.text)-1], "''", "'")
		} else if s.to == o.to+1 && t.kind == quoted {
			o.value = t.name
		}
		if slices.ContainsFunc(list, func(other option) bool { return other.name == o.name }) {
			return nil, end, p.syntaxError(o.at, fmt.Sprintf("option %q is there twice: syntax error", o.name))
		}
		list = append(list, o)
	}
	if len(list) == 0 {
		return nil, end, p.syntaxError(end, what+" options are WITH (name = value, ...): syntax error")
	}
	return list, end + 1, nil
}

// optionError says what is wrong with an option's value, and points at it.
func (p *parsed) optionError(o option, format string, args ...any) error {
	return &Error{Code: InvalidArgument, Position: p.tokens[o.to].start + 1,
		Message: fmt.Sprintf("option %s = %s: ", o.name, p.optionText(o)) + fmt.Sprintf(format, args...)}
}

// noOption refuses an option that does not exist, and says which do.
func (p *parsed) noOption(o option, what string, known []string) error {
	return &Error{Code: InvalidArgument, Position: p.tokens[o.at].start + 1,
		Message: fmt.Sprintf("there is no %s option %q; there are %s", what, o.name, listed(known))}
}

// optionText is the value as it was written.
func (p *parsed) optionText(o option) string {
	return p.sql[p.tokens[o.to].start:p.tokens[o.end-1].end]
}

// choice returns the one of some values that an option has, whatever its case.
func (p *parsed) choice(o option, values ...string) (string, error) {
	if i := slices.IndexFunc(values, func(v string) bool { return strings.EqualFold(v, o.value) }); i >= 0 {
		return values[i], nil
	}
	quoted := make([]string, len(values))
	for i, v := range values {
		quoted[i] = quoteString(v)
	}
	return "", p.optionError(o, "say %s", strings.Join(quoted, " or "))
}

// flag returns the truth of an option.
func (p *parsed) flag(o option) (bool, error) {
	v, err := strconv.ParseBool(strings.ToLower(o.value))
	if err != nil {
		return false, p.optionError(o, "say true or false")
	}
	return v, nil
}

// listed writes a list as one reads it.
func listed(names []string) string {
	switch n := len(names); n {
	case 0:
		return "none"
	case 1:
		return names[0]
	default:
		return strings.Join(names[:n-1], ", ") + " and " + names[n-1]
	}
}
