//! Statements: from tokens to a tree.
//!
//! Contract: nesting is bounded, so that neither the parser, nor evaluation, nor dropping the tree can exhaust the
//! stack. Absent on purpose: `include`, `import`, `extends` and `block`; a chat template is one file.

use std::sync::Arc;

use super::ast::{Args, BODY, Block, Expr, For, Macro, Name, Node, Stmt, Target};
use super::lexer::{Kind, SyntaxError, Token};

/// Deepest nesting of statements and expressions together.
pub(crate) const MAX_NESTING: usize = 150;

/// Parses a whole template.
pub(crate) fn parse(source: &str) -> Result<Block, SyntaxError> {
    let mut parser = Parser { tokens: super::lexer::tokens(source)?, at: 0, nesting: 0 };
    let (block, _) = parser.block(&[])?;
    Ok(block)
}

pub(super) struct Parser {
    tokens: Vec<Token>,
    at: usize,
    nesting: usize,
}

type Res<T> = Result<T, SyntaxError>;

impl Parser {
    /// Statements up to one of the tags in `ends`, whose name is consumed and returned; with none given, up to the
    /// end of the template.
    fn block(&mut self, ends: &[&str]) -> Res<(Block, String)> {
        let mut nodes = Vec::new();
        loop {
            let line = self.line();
            match self.next() {
                Kind::Data(text) => nodes.push(Node { line, stmt: Stmt::Data(text) }),
                Kind::PrintBegin => {
                    let stmt = Stmt::Print(self.tuple()?);
                    self.expect(&Kind::PrintEnd)?;
                    nodes.push(Node { line, stmt });
                }
                Kind::BlockBegin => {
                    let name = self.name()?;
                    if ends.contains(&name.as_ref()) {
                        return Ok((nodes, name.to_string()));
                    }
                    let stmt = self.nested(|p| p.statement(&name, ends))?;
                    nodes.push(Node { line, stmt });
                }
                Kind::End if ends.is_empty() => return Ok((nodes, String::new())),
                _ => return self.fail(format!("the template ends where {} should stand", ends.join(" or "))),
            }
        }
    }

    /// A block that ends with the tag `end` and nothing else in it.
    fn body(&mut self, end: &str) -> Res<Block> {
        self.expect(&Kind::BlockEnd)?;
        let (block, _) = self.block(&[end])?;
        self.expect(&Kind::BlockEnd)?;
        Ok(block)
    }

    fn statement(&mut self, name: &str, ends: &[&str]) -> Res<Stmt> {
        match name {
            "if" => self.if_block(),
            "for" => self.for_block(),
            "set" => self.set(),
            "macro" => self.macro_block(),
            "call" => self.call_block(),
            "filter" => {
                let start = Expr::Name(BODY.into());
                let name = self.name()?;
                let first = self.filter_call(start, name)?;
                let chain = self.filters(first)?;
                Ok(Stmt::FilterBlock(chain, self.body("endfilter")?))
            }
            "with" => self.with(),
            "generation" => Ok(Stmt::With(Vec::new(), self.body("endgeneration")?)),
            "break" => self.single(Stmt::Break),
            "continue" => self.single(Stmt::Continue),
            "include" | "import" | "from" | "extends" | "block" => {
                self.fail(format!("'{name}' is not supported: a chat template is one file"))
            }
            _ if ends.is_empty() => self.fail(format!("unknown tag '{name}'")),
            _ => self.fail(format!("unknown tag '{name}' where {} could stand", ends.join(" or "))),
        }
    }

    fn single(&mut self, stmt: Stmt) -> Res<Stmt> {
        self.expect(&Kind::BlockEnd)?;
        Ok(stmt)
    }

    fn if_block(&mut self) -> Res<Stmt> {
        let mut branches = Vec::new();
        loop {
            let condition = self.tuple_of(Self::or)?;
            self.expect(&Kind::BlockEnd)?;
            let (block, end) = self.block(&["elif", "else", "endif"])?;
            branches.push((condition, block));
            match end.as_str() {
                "elif" => continue,
                "else" => return Ok(Stmt::If(branches, self.body("endif")?)),
                _ => return self.single(Stmt::If(branches, Vec::new())),
            }
        }
    }

    fn for_block(&mut self) -> Res<Stmt> {
        let target = self.target(false)?;
        self.expect_name("in")?;
        let items = self.tuple_of(Self::or)?;
        let filter = if self.skip_name("if") { Some(self.expression()?) } else { None };
        let recursive = self.skip_name("recursive");
        self.expect(&Kind::BlockEnd)?;
        let (body, end) = self.block(&["else", "endfor"])?;
        let otherwise = if end == "else" { self.body("endfor")? } else { self.single_block()? };
        Ok(Stmt::For(Arc::new(For { target, items, filter, recursive, body, otherwise })))
    }

    fn single_block(&mut self) -> Res<Block> {
        self.expect(&Kind::BlockEnd)?;
        Ok(Vec::new())
    }

    fn set(&mut self) -> Res<Stmt> {
        let target = self.target(true)?;
        if self.skip_op("=") {
            let value = self.tuple()?;
            return self.single(Stmt::Set(target, value));
        }
        let chain = self.filters(Expr::Name(BODY.into()))?;
        Ok(Stmt::SetBlock(target, chain, self.body("endset")?))
    }

    fn macro_block(&mut self) -> Res<Stmt> {
        let name = self.name()?;
        let params = self.params()?;
        let body = self.body("endmacro")?;
        Ok(Stmt::Macro(Arc::new(Macro { name, params, body })))
    }

    fn call_block(&mut self) -> Res<Stmt> {
        let params = if self.peek_op("(") { self.params()? } else { Vec::new() };
        let call = self.expression()?;
        if !matches!(call, Expr::Call(..)) {
            return self.fail("a call block needs a call");
        }
        let body = self.body("endcall")?;
        Ok(Stmt::CallBlock(Arc::new(Macro { name: "caller".into(), params, body }), call))
    }

    fn params(&mut self) -> Res<Vec<(Name, Option<Expr>)>> {
        let mut params: Vec<(Name, Option<Expr>)> = Vec::new();
        self.expect(&Kind::Op("("))?;
        while !self.skip_op(")") {
            if !params.is_empty() {
                self.expect(&Kind::Op(","))?;
            }
            let name = self.name()?;
            let default = if self.skip_op("=") { Some(self.expression()?) } else { None };
            if default.is_none() && params.last().is_some_and(|last| last.1.is_some()) {
                return self.fail("a parameter without default follows one with default");
            }
            params.push((name, default));
        }
        Ok(params)
    }

    fn with(&mut self) -> Res<Stmt> {
        let mut bindings = Vec::new();
        while *self.peek() != Kind::BlockEnd {
            if !bindings.is_empty() {
                self.expect(&Kind::Op(","))?;
            }
            let target = self.target(false)?;
            self.expect(&Kind::Op("="))?;
            bindings.push((target, self.expression()?));
        }
        Ok(Stmt::With(bindings, self.body("endwith")?))
    }

    /// Names separated by commas; with `attributes`, `namespace.name` too.
    fn target(&mut self, attributes: bool) -> Res<Target> {
        let mut targets = vec![self.single_target(attributes)?];
        let mut is_tuple = false;
        while self.skip_op(",") {
            is_tuple = true;
            if !matches!(self.peek(), Kind::Name(name) if name != "in") && !self.peek_op("(") {
                break;
            }
            targets.push(self.single_target(attributes)?);
        }
        Ok(match targets.pop() {
            Some(only) if targets.is_empty() && !is_tuple => only,
            last => Target::Tuple(targets.into_iter().chain(last).collect()),
        })
    }

    fn single_target(&mut self, attributes: bool) -> Res<Target> {
        if self.skip_op("(") {
            let target = self.nested(|p| p.target(attributes))?;
            self.expect(&Kind::Op(")"))?;
            return Ok(target);
        }
        let name = self.name()?;
        if ["true", "false", "none", "True", "False", "None"].contains(&name.as_ref()) {
            return self.fail(format!("cannot assign to '{name}'"));
        }
        if attributes && self.skip_op(".") {
            return Ok(Target::Attr(name, self.name()?));
        }
        Ok(Target::Name(name))
    }

    /// Runs `parse` one level deeper.
    pub(super) fn nested<T>(&mut self, parse: impl FnOnce(&mut Self) -> Res<T>) -> Res<T> {
        let before = self.nesting;
        self.deepen()?;
        let parsed = parse(self);
        self.nesting = before;
        parsed
    }

    /// Counts one more level; for chains such as `a + b + c`, whose tree leans to the left.
    pub(super) fn deepen(&mut self) -> Res<()> {
        self.nesting += 1;
        if self.nesting > MAX_NESTING {
            return self.fail(format!("nested more than {MAX_NESTING} levels deep"));
        }
        Ok(())
    }

    /// The nesting reached, to be set back with [`Parser::shallow`] after a chain.
    pub(super) fn nesting(&self) -> usize {
        self.nesting
    }

    pub(super) fn shallow(&mut self, nesting: usize) {
        self.nesting = nesting;
    }

    pub(super) fn peek(&self) -> &Kind {
        self.tokens.get(self.at).map_or(&Kind::End, |token| &token.kind)
    }

    pub(super) fn peek_second(&self) -> &Kind {
        self.tokens.get(self.at + 1).map_or(&Kind::End, |token| &token.kind)
    }

    pub(super) fn next(&mut self) -> Kind {
        let kind = self.tokens.get_mut(self.at).map(|token| std::mem::replace(&mut token.kind, Kind::End));
        self.at += 1;
        kind.unwrap_or(Kind::End)
    }

    pub(super) fn peek_op(&self, op: &str) -> bool {
        matches!(self.peek(), Kind::Op(found) if *found == op)
    }

    pub(super) fn peek_name(&self, name: &str) -> bool {
        matches!(self.peek(), Kind::Name(found) if found == name)
    }

    pub(super) fn skip_op(&mut self, op: &str) -> bool {
        let found = self.peek_op(op);
        self.at += usize::from(found);
        found
    }

    pub(super) fn skip_name(&mut self, name: &str) -> bool {
        let found = self.peek_name(name);
        self.at += usize::from(found);
        found
    }

    pub(super) fn expect(&mut self, kind: &Kind) -> Res<()> {
        if self.peek() != kind {
            return self.fail(format!("expected {}, found {}", describe(kind), describe(self.peek())));
        }
        self.at += 1;
        Ok(())
    }

    fn expect_name(&mut self, name: &str) -> Res<()> {
        if !self.skip_name(name) {
            return self.fail(format!("expected '{name}', found {}", describe(self.peek())));
        }
        Ok(())
    }

    pub(super) fn name(&mut self) -> Res<Name> {
        let Kind::Name(name) = self.peek() else {
            return self.fail(format!("expected a name, found {}", describe(self.peek())));
        };
        let name = name.as_str().into();
        self.at += 1;
        Ok(name)
    }

    pub(super) fn fail<T>(&self, reason: impl Into<String>) -> Res<T> {
        Err((self.line(), reason.into()))
    }

    fn line(&self) -> u32 {
        self.tokens.get(self.at).or(self.tokens.last()).map_or(1, |token| token.line)
    }

    pub(super) fn no_args() -> Box<Args> {
        Box::default()
    }
}

pub(super) fn describe(kind: &Kind) -> String {
    match kind {
        Kind::Data(_) => "template text".into(),
        Kind::PrintBegin => "'{{'".into(),
        Kind::PrintEnd => "'}}'".into(),
        Kind::BlockBegin => "'{%'".into(),
        Kind::BlockEnd => "'%}'".into(),
        Kind::Name(name) => format!("'{name}'"),
        Kind::Str(_) => "a string".into(),
        Kind::Int(_) | Kind::Float(_) => "a number".into(),
        Kind::Op(op) => format!("'{op}'"),
        Kind::End => "the end of the template".into(),
    }
}
