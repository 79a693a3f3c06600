package query

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// spell writes tokens as kind:text, so that one line shows a whole text.
func spell(tokens []token) string {
	names := map[tokenKind]string{word: "w", quoted: "q", literal: "l", parameter: "p", punctuation: ""}
	var out []string
	for _, t := range tokens {
		s := t.text
		if n := names[t.kind]; n != "" {
			s = n + ":" + s
		}
		out = append(out, s)
	}
	return strings.Join(out, " ")
}

func TestLexerSeesWhatHidesText(t *testing.T) {
	f := func(sql, want string) {
		t.Helper()
		tokens, err := lex(sql)
		require.NoError(t, err, sql)
		require.Equal(t, want, spell(tokens), sql)
		for i, tok := range tokens {
			require.Less(t, tok.start, tok.end)
			require.True(t, i == 0 || tokens[i-1].end <= tok.start)
		}
	}
	f("", "")
	f("  -- only a comment", "")
	f("select 1", "w:SELECT l:1")
	f("select 'a;b''c' ; x", "w:SELECT l:'a;b''c' ; w:X")
	f(`select "a;b""c"`, `w:SELECT q:a;b"c`)
	f(`select e'a\'b' f`, `w:SELECT l:e'a\'b' w:F`)
	f(`select 'a\' f`, `w:SELECT l:'a\' w:F`)
	f("select $$a'b;$$, $x$ $$ $x$", "w:SELECT l:$$a'b;$$ , l:$x$ $$ $x$")
	f("select $1, $name, ?, ?2", "w:SELECT p:$1 , p:$name , p:? , p:?2")
	f("select $1$2", "w:SELECT p:$1 p:$2")
	f("a$b$c", "w:A$B$C")
	f("a/* b /* c */ d */e--f\ng", "w:A w:E w:G")
	f("a--b\rc", "w:A w:C")
	f("x.y(z)[1]", "w:X . w:Y ( w:Z ) [ l:1 ]")
	f("1.5e10 0x1F 1_000", "l:1 . l:5e10 l:0x1F l:1_000")
	f("größe Ä", "w:GRÖßE w:Ä")
	f("a\u00a0b", "w:A w:B")
	f("a->>'b'", "w:A - > > l:'b'")
	f("x'00' b", "w:X l:'00' w:B")
}

func TestLexerCountsParentheses(t *testing.T) {
	tokens, err := lex("a (b (c) [d]) e)")
	require.NoError(t, err)
	depths := map[string]int{}
	for _, tok := range tokens {
		if tok.kind == word {
			depths[tok.text] = tok.depth
		}
	}
	require.Equal(t, map[string]int{"A": 0, "B": 1, "C": 2, "D": 2, "E": 0}, depths)
}

func TestLexerPointsAtWhatDoesNotEnd(t *testing.T) {
	for sql, position := range map[string]int{
		"select 'abc": 8, `select "abc`: 8, "select $$abc": 8, "select /* a /* b */": 8, "select e'abc\\'": 9, "select 1\x00": 9, "select \xff": 0,
	} {
		_, err := lex(sql)
		require.Equal(t, InvalidArgument, codeOf(t, err), sql)
		require.Equal(t, position, err.(*Error).Position, sql)
	}
}

// FuzzLexer looks for panics, and for tokens that are not in the text.
func FuzzLexer(f *testing.F) {
	for _, sql := range append(twinQueries, "select $$a", "e'\\", "/*/*", "$a$b$a$", "\"", "é☃$", "CREATE TABLE t (a INT) WITH (x=1") {
		f.Add(sql)
	}
	f.Fuzz(func(t *testing.T, sql string) {
		tokens, err := lex(sql)
		if err != nil {
			return
		}
		end := 0
		for _, tok := range tokens {
			require.LessOrEqual(t, end, tok.start)
			require.Less(t, tok.start, tok.end)
			end = tok.end
		}
		require.LessOrEqual(t, end, len(sql))
		if p, err := parse(sql); err == nil {
			switch p.kind {
			case kindCreate:
				c, err := p.creation()
				require.True(t, err != nil || len(c.sql) == len(p.sql) || strings.HasSuffix(c.sql, " WITH NO DATA"))
			case kindDrop:
				_, _, _ = p.dropTarget()
			case kindInsert:
				if ins, err := p.insertion(); err == nil {
					_, _ = p.assignments(ins.set)
					_ = p.text(ins.source)
				}
			case kindUpdate, kindDelete:
				if c, err := p.changing(); err == nil {
					_, _ = p.assignments(c.set)
					_, _, _ = p.text(c.target), p.text(c.where), p.text(p.returning().list)
				}
			case kindMerge:
				if m, err := p.merging(); err == nil {
					_, _ = p.text(m.source), p.text(m.on)
					_ = p.withoutAction(span{0, len(p.tokens)})
				}
			case kindTruncate:
				_, _ = p.truncateTarget()
			case kindOptimize:
				_, _ = p.optimizeTarget()
			}
		}
	})
}
