package query

import (
	"iter"
	"strconv"
	"strings"
	"unicode/utf8"
)

// tokenKind is the kind of a token.
type tokenKind uint8

const (
	word        tokenKind = iota // an unquoted name or keyword
	quoted                       // a "quoted" name
	literal                      // a string, dollar-quoted string or number
	parameter                    // ?, ?1, $1 or $name
	punctuation                  // anything else, one character each
)

// A token is a piece of SQL text. Comments and spaces are none.
type token struct {
	kind  tokenKind
	start int // byte offset in the text
	end   int
	depth int    // of parentheses around it; a parenthesis has the depth outside of it
	text  string // upper case for a word, unquoted for a quoted name, as written otherwise
	name  string // of a word or quoted name, as written without quotes
}

// is says whether the token is this keyword or punctuation.
func (t token) is(text string) bool {
	return (t.kind == word || t.kind == punctuation) && t.text == text
}

// ident says whether the token can be a name.
func (t token) ident() bool { return t.kind == word || t.kind == quoted }

// lex splits SQL text as DuckDB does. It knows what hides text (quotes, dollar quotes, comments that nest) and
// parentheses, and nothing about grammar.
func lex(sql string) ([]token, error) {
	if !utf8.ValidString(sql) {
		return nil, errorf(InvalidArgument, "the SQL text is not UTF-8")
	}
	if i := strings.IndexByte(sql, 0); i >= 0 {
		return nil, &Error{Code: InvalidArgument, Message: "the SQL text contains a zero byte", Position: i + 1}
	}
	l := &lexer{sql: sql}
	for l.skipBlanks(); l.err == nil && l.at < len(sql); l.skipBlanks() {
		l.next()
	}
	if l.err != nil {
		return nil, l.err
	}
	return l.tokens, nil
}

// A lexer is a position in the text and the tokens before it.
type lexer struct {
	sql    string
	at     int
	depth  int
	tokens []token
	err    *Error
}

// fail stops the lexer with a message about the place where something began.
func (l *lexer) fail(start int, message string) {
	l.err = &Error{Code: InvalidArgument, Message: message, Position: start + 1}
	l.at = len(l.sql)
}

// rest returns the text that is not read yet.
func (l *lexer) rest() string { return l.sql[l.at:] }

// skipBlanks passes spaces and comments. Block comments nest, as in PostgreSQL.
func (l *lexer) skipBlanks() {
	for l.at < len(l.sql) {
		switch r, size := utf8.DecodeRuneInString(l.rest()); {
		case isSpace(r):
			l.at += size
		case strings.HasPrefix(l.rest(), "--"):
			n := strings.IndexAny(l.rest(), "\r\n")
			if n < 0 {
				n = len(l.rest())
			}
			l.at += n
		case strings.HasPrefix(l.rest(), "/*"):
			l.skipBlock()
		default:
			return
		}
	}
}

// isSpace knows the spaces that DuckDB's parser skips; it replaces these Unicode ones by plain spaces.
func isSpace(r rune) bool {
	switch r {
	case ' ', '\t', '\n', '\r', '\f', '\v', 0x00A0, 0x202F, 0x205F, 0x3000, 0xFEFF:
		return true
	}
	return r >= 0x2000 && r <= 0x200F
}

// skipBlock passes one block comment.
func (l *lexer) skipBlock() {
	start, depth := l.at, 0
	for l.at < len(l.sql) {
		switch {
		case strings.HasPrefix(l.rest(), "/*"):
			depth++
			l.at += 2
		case strings.HasPrefix(l.rest(), "*/"):
			depth--
			l.at += 2
			if depth == 0 {
				return
			}
		default:
			l.at++
		}
	}
	l.fail(start, "a comment that begins here does not end")
}

// next reads one token.
func (l *lexer) next() {
	start := l.at
	switch c := l.sql[l.at]; {
	case c == '\'':
		// DuckDB goes on with the last text when only a line break lies between, in the mode in which that began:
		// behind an escape string the backslashes of this one would count, and texts would end elsewhere than here.
		if n := len(l.tokens); n > 0 && l.tokens[n-1].kind != word && l.tokens[n-1].endsLikeEscape() {
			l.fail(start, "a text cannot follow an escape string, or a number that ends in e; write them as one text, or with || between")
			return
		}
		l.quote('\'', false)
		l.add(literal, start)
	case (c == 'e' || c == 'E') && strings.HasPrefix(l.sql[l.at+1:], "'"):
		l.at++
		l.quote('\'', true)
		l.add(literal, start)
	case c == '"':
		l.quote('"', false)
		l.add(quoted, start)
	case c == '$':
		l.dollar()
	case c == '?':
		l.at++
		l.digits()
		l.add(parameter, start)
	case c >= '0' && c <= '9':
		l.number()
		l.add(literal, start)
	case isNameStart(c):
		l.name(true)
		l.add(word, start)
	default:
		l.punctuate(c)
	}
}

// endsLikeEscape reports whether DuckDB may take the quote behind the token for that of an escape string.
func (t token) endsLikeEscape() bool {
	switch low := strings.ToLower(t.text); t.kind {
	case literal:
		return strings.HasPrefix(low, "e'") || strings.HasSuffix(low, "e")
	case parameter:
		return strings.HasSuffix(low, "e")
	}
	return false
}

// punctuate reads one character and keeps count of the parentheses.
func (l *lexer) punctuate(c byte) {
	start := l.at
	l.at++
	switch c {
	case '(', '[', '{':
		l.add(punctuation, start)
		l.depth++
	case ')', ']', '}':
		l.depth = max(l.depth-1, 0)
		l.add(punctuation, start)
	default:
		l.add(punctuation, start)
	}
}

// add appends the token from start to here.
func (l *lexer) add(kind tokenKind, start int) {
	if l.err != nil {
		return
	}
	t := token{kind: kind, start: start, end: l.at, depth: l.depth, text: l.sql[start:l.at]}
	switch kind {
	case word:
		t.name, t.text = t.text, strings.ToUpper(t.text)
	case quoted:
		t.name = strings.ReplaceAll(t.text[1:len(t.text)-1], `""`, `"`)
		t.text = t.name
	}
	l.tokens = append(l.tokens, t)
}

// quote passes a quoted text; a doubled quote, and in an escape string a backslash, hides a quote.
func (l *lexer) quote(q byte, escapes bool) {
	start := l.at
	for l.at++; l.at < len(l.sql); l.at++ {
		switch c := l.sql[l.at]; {
		case escapes && c == '\\':
			l.at++
		case c == q && strings.HasPrefix(l.sql[l.at+1:], string(q)):
			l.at++
		case c == q:
			l.at++
			return
		}
	}
	l.fail(start, "a quote that begins here does not end")
}

// dollar reads $1, $name, or a string between two equal $tag$.
func (l *lexer) dollar() {
	start := l.at
	l.at++
	number := l.at < len(l.sql) && l.sql[l.at] >= '0' && l.sql[l.at] <= '9'
	l.name(false)
	if number || !strings.HasPrefix(l.rest(), "$") {
		l.add(parameter, start)
		return
	}
	tag := l.sql[start : l.at+1]
	n := strings.Index(l.sql[l.at+1:], tag)
	if n < 0 {
		l.fail(start, "a dollar-quoted text that begins here does not end")
		return
	}
	l.at += 1 + n + len(tag)
	l.add(literal, start)
}

// name passes letters, digits, underscores, every non-ASCII character that is no space, and dollars if they count.
func (l *lexer) name(dollars bool) {
	for l.at < len(l.sql) {
		r, size := utf8.DecodeRuneInString(l.rest())
		plain := r >= utf8.RuneSelf || isNameStart(byte(r)) || r >= '0' && r <= '9' || dollars && r == '$'
		if isSpace(r) || !plain {
			return
		}
		l.at += size
	}
}

// isNameStart says whether an unquoted name can begin with the byte.
func isNameStart(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c >= utf8.RuneSelf
}

// digits passes decimal digits.
func (l *lexer) digits() {
	for l.at < len(l.sql) && l.sql[l.at] >= '0' && l.sql[l.at] <= '9' {
		l.at++
	}
}

// number passes a number. What follows its digits (a fraction, an exponent, a hexadecimal rest) may come as further
// tokens: nobody here asks for its value.
func (l *lexer) number() { l.name(false) }

// parameterNames yields the places of the parameters among some tokens, and their names: those of plain question marks are 1, 2, ….
func parameterNames(tokens []token) iter.Seq2[int, string] {
	return func(yield func(int, string) bool) {
		number := 0
		for i, t := range tokens {
			if t.kind != parameter {
				continue
			}
			name := t.text[1:]
			if t.text == "?" {
				number++
				name = strconv.Itoa(number)
			}
			if !yield(i, name) {
				return
			}
		}
	}
}
