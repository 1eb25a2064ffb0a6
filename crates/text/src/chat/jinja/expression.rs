//! Expressions: from tokens to a tree, with Jinja's precedence.

use super::ast::{Args, Binary, Compare, Const, Expr, Name};
use super::lexer::{Kind, SyntaxError};
use super::parser::{Parser, describe};

type Res<T> = Result<T, SyntaxError>;
type Rule = fn(&mut Parser) -> Res<Expr>;

impl Parser {
    /// One expression, conditional ones included.
    pub(super) fn expression(&mut self) -> Res<Expr> {
        self.nested(|p| {
            let mut value = p.or()?;
            let before = p.nesting();
            while p.skip_name("if") {
                p.deepen()?;
                let condition = p.or()?;
                let otherwise = if p.skip_name("else") { Some(Box::new(p.expression()?)) } else { None };
                value = Expr::If(Box::new(condition), Box::new(value), otherwise);
            }
            p.shallow(before);
            Ok(value)
        })
    }

    /// An expression, or several as a tuple without parentheses.
    pub(super) fn tuple(&mut self) -> Res<Expr> {
        self.tuple_of(Self::expression)
    }

    pub(super) fn tuple_of(&mut self, rule: Rule) -> Res<Expr> {
        let first = rule(self)?;
        if !self.peek_op(",") {
            return Ok(first);
        }
        let mut items = vec![first];
        while self.skip_op(",") && !self.ends_tuple() {
            items.push(rule(self)?);
        }
        Ok(Expr::Tuple(items))
    }

    fn ends_tuple(&self) -> bool {
        matches!(self.peek(), Kind::PrintEnd | Kind::BlockEnd | Kind::Op(")")) || self.peek_name("recursive")
    }

    pub(super) fn or(&mut self) -> Res<Expr> {
        self.chain(Self::and, |p| {
            p.skip_name("or").then_some(|left, right| Expr::Or(Box::new(left), Box::new(right)))
        })
    }

    fn and(&mut self) -> Res<Expr> {
        self.chain(Self::not, |p| {
            p.skip_name("and").then_some(|left, right| Expr::And(Box::new(left), Box::new(right)))
        })
    }

    fn not(&mut self) -> Res<Expr> {
        if self.skip_name("not") {
            return self.nested(|p| Ok(Expr::Not(Box::new(p.not()?))));
        }
        self.compare()
    }

    fn compare(&mut self) -> Res<Expr> {
        let first = self.sum()?;
        let mut rest = Vec::new();
        while let Some(op) = self.compare_op() {
            rest.push((op, self.sum()?));
        }
        Ok(if rest.is_empty() { first } else { Expr::Compare(Box::new(first), rest) })
    }

    fn compare_op(&mut self) -> Option<Compare> {
        for (spelt, op) in [
            ("==", Compare::Eq),
            ("!=", Compare::Ne),
            ("<", Compare::Lt),
            ("<=", Compare::Le),
            (">", Compare::Gt),
            (">=", Compare::Ge),
        ] {
            if self.skip_op(spelt) {
                return Some(op);
            }
        }
        if self.skip_name("in") {
            return Some(Compare::In);
        }
        let negated = self.peek_name("not") && matches!(self.peek_second(), Kind::Name(name) if name == "in");
        (negated && self.skip_name("not") && self.skip_name("in")).then_some(Compare::NotIn)
    }

    fn sum(&mut self) -> Res<Expr> {
        self.chain(Self::concat, |p| p.binary_op(&[("+", Binary::Add), ("-", Binary::Sub)]))
    }

    fn concat(&mut self) -> Res<Expr> {
        let first = self.product()?;
        if !self.peek_op("~") {
            return Ok(first);
        }
        let mut parts = vec![first];
        while self.skip_op("~") {
            parts.push(self.product()?);
        }
        Ok(Expr::Concat(parts))
    }

    fn product(&mut self) -> Res<Expr> {
        let ops = [("*", Binary::Mul), ("/", Binary::Div), ("//", Binary::FloorDiv), ("%", Binary::Mod)];
        self.chain(Self::power, move |p| p.binary_op(&ops))
    }

    fn power(&mut self) -> Res<Expr> {
        self.chain(Self::unary, |p| p.binary_op(&[("**", Binary::Pow)]))
    }

    fn binary_op(&mut self, ops: &[(&str, Binary)]) -> Option<impl Fn(Expr, Expr) -> Expr + use<>> {
        let op = ops.iter().find(|(spelt, _)| self.skip_op(spelt))?.1;
        Some(move |left, right| Expr::Binary(op, Box::new(left), Box::new(right)))
    }

    /// `rule (op rule)*`, leaning to the left.
    fn chain<J: Fn(Expr, Expr) -> Expr>(
        &mut self,
        rule: Rule,
        mut op: impl FnMut(&mut Self) -> Option<J>,
    ) -> Res<Expr> {
        let before = self.nesting();
        let mut left = rule(self)?;
        while let Some(join) = op(self) {
            self.deepen()?;
            left = join(left, rule(self)?);
        }
        self.shallow(before);
        Ok(left)
    }

    fn unary(&mut self) -> Res<Expr> {
        let before = self.nesting();
        let plain = self.signed()?;
        let value = self.filters(plain);
        self.shallow(before);
        value
    }

    /// A primary expression with its postfixes; a sign binds closer than a filter.
    fn signed(&mut self) -> Res<Expr> {
        let value = if self.skip_op("-") {
            Expr::Minus(Box::new(self.nested(Self::signed)?))
        } else if self.skip_op("+") {
            Expr::Plus(Box::new(self.nested(Self::signed)?))
        } else {
            self.primary()?
        };
        self.postfixes(value)
    }

    fn primary(&mut self) -> Res<Expr> {
        match self.peek() {
            Kind::Name(_) => self.named(),
            Kind::Str(_) => self.string(),
            Kind::Int(_) | Kind::Float(_) => Ok(match self.next() {
                Kind::Int(value) => Expr::Const(Const::Int(value)),
                Kind::Float(value) => Expr::Const(Const::Float(value)),
                _ => Expr::Const(Const::None),
            }),
            Kind::Op("(") => self.parenthesised(),
            Kind::Op("[") => {
                self.next();
                Ok(Expr::List(self.items("]", Self::expression)?))
            }
            Kind::Op("{") => {
                self.next();
                Ok(Expr::Dict(self.items("}", Self::pair)?))
            }
            other => self.fail(format!("expected an expression, found {}", describe(other))),
        }
    }

    fn named(&mut self) -> Res<Expr> {
        let name = self.name()?;
        Ok(match name.as_ref() {
            "true" | "True" => Expr::Const(Const::Bool(true)),
            "false" | "False" => Expr::Const(Const::Bool(false)),
            "none" | "None" => Expr::Const(Const::None),
            _ => Expr::Name(name),
        })
    }

    /// Neighbouring string literals are one.
    fn string(&mut self) -> Res<Expr> {
        let mut text = String::new();
        while let Kind::Str(part) = self.peek() {
            text.push_str(part);
            self.next();
        }
        Ok(Expr::Const(Const::Str(text)))
    }

    fn parenthesised(&mut self) -> Res<Expr> {
        self.next();
        if self.skip_op(")") {
            return Ok(Expr::Tuple(Vec::new()));
        }
        let value = self.tuple()?;
        self.expect(&Kind::Op(")"))?;
        Ok(value)
    }

    fn pair(&mut self) -> Res<(Expr, Expr)> {
        let key = self.expression()?;
        self.expect(&Kind::Op(":"))?;
        Ok((key, self.expression()?))
    }

    /// Items separated by commas, up to `close`.
    fn items<T>(&mut self, close: &'static str, item: fn(&mut Self) -> Res<T>) -> Res<Vec<T>> {
        let mut items = Vec::new();
        while !self.skip_op(close) {
            if !items.is_empty() {
                self.expect(&Kind::Op(","))?;
                if self.skip_op(close) {
                    break;
                }
            }
            items.push(item(self)?);
        }
        Ok(items)
    }

    fn postfixes(&mut self, mut value: Expr) -> Res<Expr> {
        loop {
            value = match self.peek() {
                Kind::Op(".") => self.attribute(value)?,
                Kind::Op("[") => self.subscript(value)?,
                Kind::Op("(") => Expr::Call(Box::new(value), self.args()?),
                _ => return Ok(value),
            };
            self.deepen()?;
        }
    }

    fn attribute(&mut self, value: Expr) -> Res<Expr> {
        self.next();
        if let Kind::Int(index) = *self.peek() {
            self.next();
            return Ok(Expr::Item(Box::new(value), Box::new(Expr::Const(Const::Int(index)))));
        }
        Ok(Expr::Attr(Box::new(value), self.name()?))
    }

    fn subscript(&mut self, value: Expr) -> Res<Expr> {
        self.next();
        let mut bounds = [None, None, None];
        if !self.peek_op(":") {
            let index = self.tuple()?;
            if self.skip_op("]") {
                return Ok(Expr::Item(Box::new(value), Box::new(index)));
            }
            bounds[0] = Some(index);
        }
        self.expect(&Kind::Op(":"))?;
        for bound in &mut bounds[1..] {
            if !self.peek_op(":") && !self.peek_op("]") {
                *bound = Some(self.expression()?);
            }
            self.skip_op(":");
        }
        self.expect(&Kind::Op("]"))?;
        Ok(Expr::Slice(Box::new(value), Box::new(bounds)))
    }

    /// The filters, tests and calls that follow an expression.
    pub(super) fn filters(&mut self, mut value: Expr) -> Res<Expr> {
        loop {
            if self.skip_op("|") {
                let name = self.name()?;
                value = self.filter_call(value, name)?;
            } else if self.skip_name("is") {
                value = self.test(value)?;
            } else if self.peek_op("(") {
                value = Expr::Call(Box::new(value), self.args()?);
            } else {
                return Ok(value);
            }
            self.deepen()?;
        }
    }

    pub(super) fn filter_call(&mut self, value: Expr, name: Name) -> Res<Expr> {
        let args = if self.peek_op("(") { self.args()? } else { Self::no_args() };
        Ok(Expr::Filter(Box::new(value), name, args))
    }

    fn test(&mut self, value: Expr) -> Res<Expr> {
        let negated = self.skip_name("not");
        let name = self.name()?;
        let args = match self.peek() {
            Kind::Op("(") => self.args()?,
            Kind::Name(word) if ["else", "or", "and", "is"].contains(&word.as_str()) => Self::no_args(),
            Kind::Name(_) | Kind::Str(_) | Kind::Int(_) | Kind::Float(_) | Kind::Op("[" | "{") => {
                let value = self.primary()?;
                let argument = self.postfixes(value)?;
                Box::new(Args { positional: vec![argument], ..Args::default() })
            }
            _ => Self::no_args(),
        };
        let test = Expr::Test(Box::new(value), name, args);
        Ok(if negated { Expr::Not(Box::new(test)) } else { test })
    }

    fn args(&mut self) -> Res<Box<Args>> {
        self.expect(&Kind::Op("("))?;
        let mut args = Args::default();
        let mut first = true;
        while !self.skip_op(")") {
            if !std::mem::take(&mut first) {
                self.expect(&Kind::Op(","))?;
                if self.skip_op(")") {
                    break;
                }
            }
            self.arg(&mut args)?;
        }
        Ok(Box::new(args))
    }

    fn arg(&mut self, args: &mut Args) -> Res<()> {
        if args.stars.is_some() {
            return self.fail("an argument follows '**'");
        }
        if self.skip_op("**") {
            args.stars = Some(self.expression()?);
        } else if self.skip_op("*") {
            args.star = Some(self.expression()?);
        } else if matches!(self.peek(), Kind::Name(_)) && *self.peek_second() == Kind::Op("=") {
            let name = self.name()?;
            self.next();
            args.named.push((name, self.expression()?));
        } else if args.named.is_empty() && args.star.is_none() {
            args.positional.push(self.expression()?);
        } else {
            return self.fail("a positional argument follows a named one");
        }
        Ok(())
    }
}
