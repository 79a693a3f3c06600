package main

import "strings"

// splitStatements cuts SQL text at its semicolons, those in strings, quoted names and comments aside. What follows the
// last one comes back as rest, "" when it is nothing but space and comments; it may end in the middle of a string.
func splitStatements(text string) (statements []string, rest string) {
	start := 0
	blank := true // nothing but space and comments since start
	for i := 0; i < len(text); {
		n, token := nextToken(text[i:])
		switch token {
		case tokenEnd:
			if !blank {
				statements = append(statements, strings.TrimSpace(text[start:i]))
			}
			start, blank = i+n, true
		case tokenOther:
			blank = false
		}
		i += n
	}
	if blank {
		return statements, ""
	}
	return statements, strings.TrimSpace(text[start:])
}

// Kinds of tokens, as far as splitStatements must tell them apart.
const (
	tokenSpace = iota // and comments
	tokenEnd          // a semicolon
	tokenOther
)

// nextToken returns the length and the kind of the token at the beginning of text, which is not empty.
func nextToken(text string) (n, kind int) {
	switch c := text[0]; {
	case c == ';':
		return 1, tokenEnd
	case c == '\'' || c == '"':
		return closed(text, 1, text[:1]), tokenOther // a doubled quote is a string that ends and one that begins
	case strings.HasPrefix(text, "--"):
		return closed(text, 2, "\n"), tokenSpace
	case strings.HasPrefix(text, "/*"):
		return closed(text, 2, "*/"), tokenSpace
	case c == '$':
		if tag := dollarTag(text); tag != "" {
			return closed(text, len(tag), tag), tokenOther
		}
	case strings.ContainsRune(" \t\r\n\f\v", rune(c)):
		return 1, tokenSpace
	}
	return 1, tokenOther
}

// closed returns the length of a token whose content begins at from and that ends with end, or with the text.
func closed(text string, from int, end string) int {
	if i := strings.Index(text[from:], end); i >= 0 {
		return from + i + len(end)
	}
	return len(text)
}

// dollarTag returns the opening $tag$ of a string, "" when there is none.
func dollarTag(text string) string {
	end := strings.IndexByte(text[1:], '$')
	if end < 0 {
		return ""
	}
	for i, c := range text[1 : 1+end] {
		letter := c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c > 127
		if !letter && (i == 0 || c < '0' || c > '9') {
			return ""
		}
	}
	return text[:end+2]
}
