//! Cuts a template into tokens, with the whitespace rules that Transformers sets: `trim_blocks` and
//! `lstrip_blocks` on, the last newline of the source dropped.

use super::text::is_space;

/// A token and the line it starts on.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    pub(crate) line: u32,
}

/// What a token is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind {
    /// Template text outside all tags.
    Data(String),
    /// `{{`
    PrintBegin,
    /// `}}`
    PrintEnd,
    /// `{%`
    BlockBegin,
    /// `%}`
    BlockEnd,
    Name(String),
    Str(String),
    Int(i128),
    Float(f64),
    Op(&'static str),
    End,
}

const OPERATORS: [&str; 26] = [
    "**", "//", "==", "!=", ">=", "<=", "+", "-", "*", "/", "%", "~", "[", "]", "(", ")", "{", "}", "=", ".",
    ":", "|", ",", ";", ">", "<",
];

/// Where and why the source is not a template.
pub(crate) type SyntaxError = (u32, String);

/// The tokens of `source`, the last one [`Kind::End`].
pub(crate) fn tokens(source: &str) -> Result<Vec<Token>, SyntaxError> {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let source = source.strip_suffix('\n').unwrap_or(&source);
    let mut lexer = Lexer { source, at: 0, counted: 0, line: 1, out: Vec::new() };
    lexer.run()?;
    Ok(lexer.out)
}

struct Lexer<'a> {
    source: &'a str,
    at: usize,
    /// `line` is the line of this offset.
    counted: usize,
    line: u32,
    out: Vec<Token>,
}

impl<'a> Lexer<'a> {
    fn run(&mut self) -> Result<(), SyntaxError> {
        while let Some(found) = self.next_tag() {
            let tag = &self.source[found..found + 2];
            let sign = self.source[found + 2..].chars().next().filter(|c| matches!(c, '-' | '+'));
            let data = self.data_before(found, tag != "{{", sign);
            self.push(Kind::Data(data.to_string()));
            self.at = found + 2 + usize::from(sign.is_some());
            match tag {
                "{#" => self.comment()?,
                "{{" => self.tag(Kind::PrintBegin, Kind::PrintEnd, "}}")?,
                _ if self.is_raw() => self.raw()?,
                _ => self.tag(Kind::BlockBegin, Kind::BlockEnd, "%}")?,
            }
        }
        self.push(Kind::Data(self.rest().to_string()));
        self.at = self.source.len();
        self.push(Kind::End);
        Ok(())
    }

    fn rest(&self) -> &'a str {
        &self.source[self.at..]
    }

    fn next_tag(&self) -> Option<usize> {
        let found = self.rest().match_indices('{').map(|(i, _)| self.at + i);
        found.into_iter().find(|&i| matches!(self.source.as_bytes().get(i + 1), Some(b'{' | b'%' | b'#')))
    }

    /// Data up to a tag, shortened by what the tag strips on its left.
    fn data_before(&self, tag: usize, strips_indent: bool, sign: Option<char>) -> &'a str {
        let data = &self.source[self.at..tag];
        if sign == Some('-') {
            return data.trim_end_matches(is_space);
        }
        let line_start = data.rfind('\n').map_or(0, |i| i + 1);
        let at_line_start = line_start > 0 || self.at == 0 || self.source[..self.at].ends_with('\n');
        match strips_indent && sign.is_none() && at_line_start && data[line_start..].chars().all(is_space) {
            true => &data[..line_start],
            false => data,
        }
    }

    fn comment(&mut self) -> Result<(), SyntaxError> {
        let Some(end) = self.rest().find("#}") else { return self.fail("a comment is never closed") };
        let sign = self.rest()[..end].chars().next_back();
        self.at += end + 2;
        self.after_block(sign);
        Ok(())
    }

    /// Skips what a block or comment that ended with `sign` strips on its right.
    fn after_block(&mut self, sign: Option<char>) {
        match sign {
            Some('-') => self.skip_space(),
            Some('+') => {}
            _ => self.at += usize::from(self.rest().starts_with('\n')),
        }
    }

    fn skip_space(&mut self) {
        self.at = self.source.len() - self.rest().trim_start_matches(is_space).len();
    }

    fn is_raw(&self) -> bool {
        let rest = self.rest().trim_start_matches(is_space);
        rest.strip_prefix("raw").is_some_and(|rest| {
            let rest = rest.trim_start_matches(is_space);
            rest.starts_with("%}") || rest.starts_with("-%}")
        })
    }

    fn raw(&mut self) -> Result<(), SyntaxError> {
        let begin = self.rest().find("%}").unwrap_or(0);
        let sign = self.rest()[..begin].chars().next_back();
        self.at += begin + 2;
        if sign == Some('-') {
            self.skip_space();
        }
        let mut from = self.at;
        while let Some(found) = self.source[from..].find("{%").map(|i| from + i) {
            let inner = self.source[found + 2..].trim_start_matches(['-', '+']);
            let sign = self.source[found + 2..].chars().next().filter(|c| matches!(c, '-' | '+'));
            if let Some(rest) = inner.trim_start_matches(is_space).strip_prefix("endraw")
                && let Some(end) = rest.find("%}")
            {
                self.push(Kind::Data(self.data_before(found, true, sign).to_string()));
                self.at = self.source.len() - rest.len() + end + 2;
                self.after_block(rest[..end].chars().next_back());
                return Ok(());
            }
            from = found + 2;
        }
        self.fail("a raw block is never closed")
    }

    /// The inside of a print tag or block.
    fn tag(&mut self, begin: Kind, end: Kind, close: &str) -> Result<(), SyntaxError> {
        self.push(begin);
        let mut open = Vec::new();
        loop {
            self.skip_space();
            if open.is_empty() && self.closes(&end, close) {
                return Ok(());
            }
            let Some(c) = self.rest().chars().next() else { return self.fail("a tag is never closed") };
            match c {
                '0'..='9' => self.number()?,
                '\'' | '"' => self.string(c)?,
                c if c.is_alphanumeric() || c == '_' => self.name(),
                _ => self.operator(&mut open)?,
            }
        }
    }

    fn closes(&mut self, end: &Kind, close: &str) -> bool {
        let sign = self.rest().chars().next().filter(|&c| c == '-' || c == '+' && close == "%}");
        if !self.rest()[sign.map_or(0, char::len_utf8)..].starts_with(close) {
            return false;
        }
        self.push(end.clone());
        self.at += close.len() + usize::from(sign.is_some());
        match (close, sign) {
            ("}}", None) => {}
            _ => self.after_block(sign),
        }
        true
    }

    fn name(&mut self) {
        let end = self.rest().find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(self.rest().len());
        self.push(Kind::Name(self.rest()[..end].to_string()));
        self.at += end;
    }

    fn operator(&mut self, open: &mut Vec<char>) -> Result<(), SyntaxError> {
        let Some(op) = OPERATORS.into_iter().find(|op| self.rest().starts_with(op)) else {
            let c = self.rest().chars().next().unwrap_or(' ');
            return self.fail(&format!("unexpected character {c:?}"));
        };
        match op {
            "(" => open.push(')'),
            "[" => open.push(']'),
            "{" => open.push('}'),
            ")" | "]" | "}" if open.pop() != op.chars().next() => {
                return self.fail(&format!("unexpected '{op}'"));
            }
            _ => {}
        }
        self.push(Kind::Op(op));
        self.at += op.len();
        Ok(())
    }

    fn number(&mut self) -> Result<(), SyntaxError> {
        let rest = self.rest();
        let digits = |from: usize| {
            from + rest[from..].find(|c: char| !(c.is_ascii_digit() || c == '_')).unwrap_or(rest.len() - from)
        };
        let follows = |at: usize| rest[at..].starts_with(|c: char| c.is_ascii_digit());
        let whole = digits(0);
        let after_dot = matches!(self.out.last(), Some(Token { kind: Kind::Op("."), .. }));
        let mut end = whole;
        if !after_dot && rest[end..].starts_with('.') && follows(end + 1) {
            end = digits(end + 1);
        }
        let exponent = end
            + 1
            + usize::from(rest[end..].starts_with(['e', 'E']) && rest[end + 1..].starts_with(['+', '-']));
        if !after_dot && rest[end..].starts_with(['e', 'E']) && follows(exponent) {
            end = digits(exponent);
        }
        let plain = rest[..end].replace('_', "");
        let kind = if end == whole {
            plain.parse().map(Kind::Int).ok()
        } else {
            plain.parse().map(Kind::Float).ok()
        };
        let Some(kind) = kind else { return self.fail(&format!("the number {plain} is too large")) };
        self.push(kind);
        self.at += end;
        Ok(())
    }

    fn string(&mut self, quote: char) -> Result<(), SyntaxError> {
        let body = &self.rest()[1..];
        let mut escaped = false;
        let end = body.char_indices().find(|&(_, c)| {
            let closes = c == quote && !escaped;
            escaped = c == '\\' && !escaped;
            closes
        });
        let Some((end, _)) = end else { return self.fail("a string is never closed") };
        match unescape(&body[..end]) {
            Some(text) => self.push(Kind::Str(text)),
            None => return self.fail("a string holds an escape that is no character"),
        }
        self.at += end + 2;
        Ok(())
    }

    fn push(&mut self, kind: Kind) {
        if kind != Kind::Data(String::new()) {
            let line = self.line_here();
            self.out.push(Token { kind, line });
        }
    }

    fn line_here(&mut self) -> u32 {
        self.line += self.source[self.counted..self.at].matches('\n').count() as u32;
        self.counted = self.at;
        self.line
    }

    fn fail<T>(&mut self, reason: &str) -> Result<T, SyntaxError> {
        Err((self.line_here(), reason.to_string()))
    }
}

/// Resolves Python's escapes; unknown ones stay as they are.
fn unescape(body: &str) -> Option<String> {
    let mut out = String::with_capacity(body.len());
    let mut chars = body.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next()? {
            '\n' => {}
            'a' => out.push('\u{7}'),
            'b' => out.push('\u{8}'),
            'f' => out.push('\u{c}'),
            'n' => out.push('\n'),
            'r' => out.push('\r'),
            't' => out.push('\t'),
            'v' => out.push('\u{b}'),
            'x' => out.push(code_point(&mut chars, 2)?),
            'u' => out.push(code_point(&mut chars, 4)?),
            'U' => out.push(code_point(&mut chars, 8)?),
            octal @ '0'..='7' => out.push(octal_char(octal, &mut chars)?),
            c @ ('\\' | '\'' | '"') => out.push(c),
            other => out.extend(['\\', other]),
        }
    }
    Some(out)
}

fn code_point(chars: &mut std::str::Chars<'_>, digits: usize) -> Option<char> {
    let hex = chars.as_str().get(..digits)?;
    *chars = chars.as_str()[digits..].chars();
    hex.bytes()
        .all(|b| b.is_ascii_hexdigit())
        .then(|| u32::from_str_radix(hex, 16).ok().and_then(char::from_u32))?
}

fn octal_char(first: char, chars: &mut std::str::Chars<'_>) -> Option<char> {
    let mut value = first.to_digit(8)?;
    for _ in 0..2 {
        let Some(digit) = chars.as_str().chars().next().and_then(|c| c.to_digit(8)) else { break };
        value = value * 8 + digit;
        chars.next();
    }
    char::from_u32(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(source: &str) -> String {
        let kept = tokens(source).unwrap().into_iter().filter_map(|t| match t.kind {
            Kind::Data(data) => Some(data),
            Kind::PrintBegin => Some("<".into()),
            _ => None,
        });
        kept.collect()
    }

    #[test]
    fn tags_strip_the_whitespace_jinja_strips() {
        for (source, expected) in [
            ("a {% x %} b", "a  b"),
            ("a\n  {% x %}\n  b", "a\n  b"),
            ("a\n  {%+ x +%}\n  b", "a\n  \n  b"),
            ("a \n  {%- x -%}\n  b", "ab"),
            ("  {% x %}\n\n\n", "\n"),
            ("a\n  {{ x }}\n  b\n", "a\n  <\n  b"),
            ("a\n  {{- x -}}\n  b", "a<b"),
            ("a\n  {# x #}\nb {#- c -#} d", "a\nbd"),
            ("{% x %}  {% x %}", "  "),
            ("{% x %}\n  {% x %}", ""),
            ("{% raw %} {{ {% endraw %}\nb", " {{ b"),
            ("a\r\nb\rc\n", "a\nb\nc"),
            ("{{ {'a': {}} }}{", "<{"),
        ] {
            assert_eq!(data(source), expected, "{source:?}");
        }
    }

    #[test]
    fn literals_read_as_in_python() {
        let kinds = |source: &str| tokens(source).unwrap().into_iter().map(|t| t.kind).collect::<Vec<_>>();
        let strings = r#"{{ 'a\n\x41\u00e9\'"\q\101' }}"#;
        assert_eq!(kinds(strings)[1], Kind::Str("a\nA\u{e9}'\"\\qA".into()));
        let numbers = kinds("{{ 1_000 2.5e-1 3e2 x.0.1 }}");
        assert_eq!(numbers[1..4], [Kind::Int(1000), Kind::Float(0.25), Kind::Float(300.0)]);
        assert_eq!(numbers[5..9], [Kind::Op("."), Kind::Int(0), Kind::Op("."), Kind::Int(1)]);
    }

    #[test]
    fn errors_carry_their_line() {
        for (source, line) in [("a\n{{ 'x", 2), ("{{ x", 1), ("\n\n{# x", 3), ("{{ ) }}", 1), ("{{ ! }}", 1)]
        {
            assert_eq!(tokens(source).unwrap_err().0, line, "{source:?}");
        }
    }
}
