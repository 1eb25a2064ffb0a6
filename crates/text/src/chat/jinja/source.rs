//! A template written out anew, each operator as a call.
//!
//! Contract: the result means what the template means, keeps its lines, and goes through the functions of
//! [`ops`](super::ops) for everything but control flow, scopes and calls. Special tokens in text that the template puts
//! out, but not in text that it compares with, are marked on request.
//!
//! Of MiniJinja's unstable parts this uses the parser alone, and this file alone uses it.

use minijinja::Value;
use minijinja::machinery::ast::{
    BinOpKind, Call, CallArg, CallBlock, Compare, CompareOpKind, Expr, FilterBlock, IfExpr, Macro, Map, Set,
    Slice, Spanned, Stmt, UnaryOpKind, WithBlock,
};
use minijinja::machinery::{Span, parse};
use minijinja::syntax::SyntaxConfig;

use super::marks::Marks;
use super::{Res, WHITESPACE, fail, python};

/// How far marks go: a marked text must not reach a comparison. Text and what stands in `{{ }}` is always marked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reach {
    /// Also what variables are set to.
    pub(crate) variables: bool,
    /// Also what macros are called with.
    pub(crate) arguments: bool,
}

/// Names of the methods whose arguments end up in what they return.
const METHODS_THAT_INSERT: [&str; 3] = ["format", "join", "get"];
/// The same of filters.
const FILTERS_THAT_INSERT: [&str; 4] = ["default", "d", "join", "format"];
/// Filters and tests that look at no more than the kind or the first items of a value.
const CHEAP: [&str; 18] = [
    "defined",
    "undefined",
    "none",
    "string",
    "mapping",
    "iterable",
    "sequence",
    "number",
    "boolean",
    "integer",
    "true",
    "false",
    "callable",
    "default",
    "d",
    "first",
    "length",
    "count",
];

/// Whether a variable holds the text of a special token.
pub(super) fn is_token_name(name: &str) -> bool {
    name.ends_with("_token")
}

/// The template `text` with operators as calls.
pub(super) fn write(text: &str, marks: Option<(&Marks, Reach)>) -> Res<String> {
    let reach = marks.map_or(Reach { variables: false, arguments: false }, |(_, reach)| reach);
    let mut writer = Writer { out: String::new(), line: 1, marks: marks.map(|(marks, _)| marks), reach };
    match parse(text, "chat template", SyntaxConfig, WHITESPACE)? {
        Stmt::Template(template) => writer.body(&template.children)?,
        other => writer.statement(&other)?,
    }
    Ok(writer.out)
}

struct Writer<'m> {
    out: String,
    /// Of the end of `out`.
    line: u32,
    marks: Option<&'m Marks<'m>>,
    reach: Reach,
}

impl Writer<'_> {
    fn put(&mut self, text: &str) {
        self.out.push_str(text);
    }

    /// Opens a tag on the line that it has in the template.
    fn open(&mut self, mark: &str, span: Span) {
        self.put(mark);
        while self.line < u32::from(span.start_line) {
            self.out.push('\n');
            self.line += 1;
        }
    }

    fn body(&mut self, statements: &[Stmt<'_>]) -> Res<()> {
        statements.iter().try_for_each(|statement| self.statement(statement))
    }

    fn tag(&mut self, name: &str) {
        self.put("{% ");
        self.put(name);
        self.put(" %}");
    }

    fn statement(&mut self, statement: &Stmt<'_>) -> Res<()> {
        match statement {
            Stmt::Template(template) => self.body(&template.children)?,
            Stmt::EmitRaw(raw) => {
                self.open("{{ ", raw.span());
                self.text(raw.raw, true);
                self.put(" }}");
            }
            Stmt::EmitExpr(emit) => {
                self.open("{{ ", emit.span());
                self.expr(&emit.expr, true)?;
                self.put(" }}");
            }
            Stmt::ForLoop(_) => self.for_loop(statement)?,
            Stmt::IfCond(_) => self.if_cond(statement, "if ")?,
            Stmt::WithBlock(with) => self.with(with)?,
            Stmt::Set(set) => self.set(set)?,
            Stmt::SetBlock(block) => {
                self.open("{% set ", block.span());
                self.capture(&block.target, block.filter.as_ref(), &block.body)?;
            }
            Stmt::FilterBlock(block) => self.filter_block(block)?,
            Stmt::Macro(definition) => {
                self.open("{% macro ", definition.span());
                self.put(definition.name);
                self.signature(definition)?;
                self.body(&definition.body)?;
                self.tag("endmacro");
            }
            Stmt::CallBlock(block) => self.call_block(block)?,
            Stmt::Continue(_) => self.tag("continue"),
            Stmt::Break(_) => self.tag("break"),
            Stmt::Do(call) => {
                self.open("{% do ", call.span());
                self.call(&call.call, false)?;
                self.put(" %}");
            }
            _ => return fail("inheritance and inclusion are not supported: a chat template is one file"),
        }
        Ok(())
    }

    /// `{% set target %}body{% endset %}`, behind its `{% set `.
    fn capture(&mut self, target: &Expr<'_>, filter: Option<&Expr<'_>>, body: &[Stmt<'_>]) -> Res<()> {
        let Some(filter) = filter else {
            self.target(target, false)?;
            self.put(" %}");
            self.body(body)?;
            self.tag("endset");
            return Ok(());
        };
        self.put("__text %}");
        self.body(body)?;
        self.put("{% endset %}{% set ");
        self.target(target, false)?;
        self.put(" = ");
        self.expr(filter, true)?;
        self.put(" %}");
        Ok(())
    }

    fn for_loop(&mut self, statement: &Stmt<'_>) -> Res<()> {
        let Stmt::ForLoop(node) = statement else { return Ok(()) };
        self.open("{% for ", node.span());
        self.target(&node.target, true)?;
        self.put(" in __each(");
        self.expr(&node.iter, self.reach.variables)?;
        self.put(")");
        if let Some(filter) = &node.filter_expr {
            self.put(" if ");
            self.expr(filter, false)?;
        }
        self.put(if node.recursive { " recursive %}" } else { " %}" });
        self.body(&node.body)?;
        if !node.else_body.is_empty() {
            self.tag("else");
            self.body(&node.else_body)?;
        }
        self.tag("endfor");
        Ok(())
    }

    fn if_cond(&mut self, statement: &Stmt<'_>, word: &str) -> Res<()> {
        let Stmt::IfCond(node) = statement else { return Ok(()) };
        self.open("{% ", node.span());
        self.put(word);
        self.expr(&node.expr, false)?;
        self.put(" %}");
        self.body(&node.true_body)?;
        match &node.false_body[..] {
            [] => {}
            [chained @ Stmt::IfCond(_)] => return self.if_cond(chained, "elif "),
            other => {
                self.tag("else");
                self.body(other)?;
            }
        }
        self.tag("endif");
        Ok(())
    }

    fn signature(&mut self, definition: &Macro<'_>) -> Res<()> {
        self.parameters(definition)?;
        self.put(" %}");
        Ok(())
    }

    fn parameters(&mut self, definition: &Macro<'_>) -> Res<()> {
        self.put("(");
        let plain = definition.args.len().saturating_sub(definition.defaults.len());
        for (i, arg) in definition.args.iter().enumerate() {
            self.put(if i > 0 { ", " } else { "" });
            self.target(arg, true)?;
            if let Some(default) = i.checked_sub(plain).and_then(|i| definition.defaults.get(i)) {
                self.put("=");
                self.expr(default, self.reach.arguments)?;
            }
        }
        self.put(")");
        Ok(())
    }

    /// What is assigned to; `bare` without attributes.
    fn target(&mut self, target: &Expr<'_>, bare: bool) -> Res<()> {
        match target {
            Expr::Var(var) => self.put(var.id),
            Expr::GetAttr(attr) if !bare => {
                self.target(&attr.expr, false)?;
                self.put(".");
                self.put(attr.name);
            }
            Expr::List(list) => {
                self.put("(");
                for item in &list.items {
                    self.target(item, bare)?;
                    self.put(", ");
                }
                self.put(")");
            }
            _ => return fail("this cannot be assigned to"),
        }
        Ok(())
    }

    /// A value that a variable is going to hold.
    fn held(&mut self, value: &Expr<'_>, check: &str) -> Res<()> {
        self.put(check);
        self.put("(");
        self.expr(value, self.reach.variables)?;
        self.put(")");
        Ok(())
    }

    /// An expression, in a form that anything may stand around; `emits` tells whether its text may be put out.
    fn expr(&mut self, expr: &Expr<'_>, emits: bool) -> Res<()> {
        match expr {
            Expr::Var(var) => self.put(var.id),
            Expr::Const(value) => self.constant(&value.value, emits),
            Expr::Slice(slice) => self.slice(slice, emits)?,
            Expr::UnaryOp(unary) => {
                self.put(if matches!(unary.op, UnaryOpKind::Not) { "(not " } else { "__negate(" });
                self.expr(&unary.expr, false)?;
                self.put(")");
            }
            Expr::BinOp(_) => self.binary(expr, emits)?,
            Expr::Compare(compare) => self.compare(compare)?,
            Expr::IfExpr(choice) => self.choice(choice, emits)?,
            Expr::Filter(filter) => {
                self.applied("|", filter.name, filter.expr.as_ref(), emits)?;
                self.arguments(&filter.args, FILTERS_THAT_INSERT.contains(&filter.name) && emits, false)?;
                self.put(")");
            }
            Expr::Test(test) => {
                self.applied(" is ", test.name, Some(&test.expr), false)?;
                self.arguments(&test.args, false, false)?;
                self.put(")");
            }
            Expr::GetAttr(attr) => {
                self.expr(&attr.expr, emits)?;
                self.put(".");
                self.put(attr.name);
            }
            Expr::GetItem(item) => {
                self.put("__item(");
                self.expr(&item.expr, emits)?;
                self.put(", ");
                self.expr(&item.subscript_expr, false)?;
                self.put(")");
            }
            Expr::Call(call) => self.call(call, emits)?,
            Expr::List(list) => {
                self.put("[");
                for item in &list.items {
                    self.expr(item, emits)?;
                    self.put(", ");
                }
                self.put("]");
            }
            Expr::Map(map) => self.map(map, emits)?,
        }
        Ok(())
    }

    fn with(&mut self, with: &Spanned<WithBlock<'_>>) -> Res<()> {
        self.open("{% with ", with.span());
        for (i, (target, value)) in with.assignments.iter().enumerate() {
            self.put(if i > 0 { ", " } else { "" });
            self.target(target, true)?;
            self.put(" = ");
            self.held(value, "__hold")?;
        }
        self.put(" %}");
        self.body(&with.body)?;
        self.tag("endwith");
        Ok(())
    }

    fn filter_block(&mut self, block: &Spanned<FilterBlock<'_>>) -> Res<()> {
        self.open("{% with %}{% set __text ", block.span());
        self.put("%}");
        self.body(&block.body)?;
        self.put("{% endset %}{{ ");
        self.expr(&block.filter, true)?;
        self.put(" }}{% endwith %}");
        Ok(())
    }

    fn call_block(&mut self, block: &Spanned<CallBlock<'_>>) -> Res<()> {
        self.open("{% call", block.span());
        self.parameters(&block.macro_decl)?;
        self.put(" ");
        self.call(&block.call, true)?;
        self.put(" %}");
        self.body(&block.macro_decl.body)?;
        self.tag("endcall");
        Ok(())
    }

    fn set(&mut self, set: &Spanned<Set<'_>>) -> Res<()> {
        self.open("{% set ", set.span());
        self.target(&set.target, false)?;
        self.put(" = ");
        let shares = matches!(set.target, Expr::GetAttr(_));
        self.held(&set.expr, if shares { "__share" } else { "__hold" })?;
        self.put(" %}");
        Ok(())
    }

    /// `__slice(value, start, stop, step)`
    fn slice(&mut self, slice: &Slice<'_>, emits: bool) -> Res<()> {
        self.put("__slice(");
        self.expr(&slice.expr, emits)?;
        for bound in [&slice.start, &slice.stop, &slice.step] {
            self.put(", ");
            match bound {
                Some(bound) => self.expr(bound, false)?,
                None => self.put("none"),
            }
        }
        self.put(")");
        Ok(())
    }

    fn compare(&mut self, compare: &Compare<'_>) -> Res<()> {
        self.put("__compare(");
        self.expr(&compare.expr, false)?;
        for step in &compare.ops {
            self.operand(comparison(step.op), &step.expr, false)?;
        }
        self.put(")");
        Ok(())
    }

    fn choice(&mut self, choice: &IfExpr<'_>, emits: bool) -> Res<()> {
        self.put("(");
        self.expr(&choice.true_expr, emits)?;
        self.put(" if ");
        self.expr(&choice.test_expr, false)?;
        if let Some(otherwise) = &choice.false_expr {
            self.put(" else ");
            self.expr(otherwise, emits)?;
        }
        self.put(")");
        Ok(())
    }

    fn map(&mut self, map: &Map<'_>, emits: bool) -> Res<()> {
        self.put("{");
        for (key, value) in map.keys.iter().zip(&map.values) {
            self.expr(key, false)?;
            self.put(": ");
            self.expr(value, emits)?;
            self.put(", ");
        }
        self.put("}");
        Ok(())
    }

    /// `(value|name` or `(value is name`, without the arguments.
    fn applied(&mut self, mark: &str, name: &str, value: Option<&Expr<'_>>, emits: bool) -> Res<()> {
        let check = if CHEAP.contains(&name) { "(" } else { "(__look(" };
        self.put(check);
        match value {
            Some(value) => self.expr(value, emits)?,
            None => self.put("__text"),
        }
        self.put(if check.len() > 1 { ")" } else { "" });
        self.put(mark);
        self.put(name);
        Ok(())
    }

    fn binary(&mut self, expr: &Expr<'_>, emits: bool) -> Res<()> {
        let Expr::BinOp(node) = expr else { return Ok(()) };
        let (mut chain, mut first) = (vec![(node.op, &node.right)], &node.left);
        while let Expr::BinOp(left) = first
            && class(left.op) == class(node.op)
            && class(node.op) != Class::Compare
        {
            chain.push((left.op, &left.right));
            first = &left.left;
        }
        let (open, emits) = match class(node.op) {
            Class::And | Class::Or => ("(", emits),
            Class::Compare => ("__compare(", false),
            _ => ("__do(", emits),
        };
        self.put(open);
        self.expr(first, emits)?;
        for (op, operand) in chain.into_iter().rev() {
            match op {
                BinOpKind::ScAnd | BinOpKind::ScOr => {
                    self.put(if matches!(op, BinOpKind::ScAnd) { " and " } else { " or " });
                    self.expr(operand, emits)?;
                }
                op => self.operand(operator(op), operand, emits)?,
            }
        }
        self.put(")");
        Ok(())
    }

    /// `, "op", operand` of a chain.
    fn operand(&mut self, op: &str, operand: &Expr<'_>, emits: bool) -> Res<()> {
        self.put(&format!(", \"{op}\", "));
        self.expr(operand, emits)
    }

    fn call(&mut self, call: &Call<'_>, emits: bool) -> Res<()> {
        match &call.expr {
            Expr::Var(var) => {
                self.put(var.id);
                let reach = if var.id == "namespace" { self.reach.variables } else { self.reach.arguments };
                self.arguments(&call.args, reach && (emits || var.id == "namespace"), true)
            }
            Expr::GetAttr(method) => {
                self.expr(&method.expr, emits)?;
                self.put(".");
                self.put(method.name);
                let inserts = METHODS_THAT_INSERT.contains(&method.name);
                self.arguments(&call.args, inserts && emits, true)
            }
            other => {
                self.put("(");
                self.expr(other, false)?;
                self.put(")");
                self.arguments(&call.args, self.reach.arguments && emits, true)
            }
        }
    }

    fn arguments(&mut self, args: &[CallArg<'_>], emits: bool, always: bool) -> Res<()> {
        if args.is_empty() && !always {
            return Ok(());
        }
        self.put("(");
        for arg in args {
            let (name, value) = match arg {
                CallArg::Pos(value) => (String::new(), value),
                CallArg::Kwarg(name, value) => (format!("{name}="), value),
                CallArg::PosSplat(value) => ("*".to_owned(), value),
                CallArg::KwargSplat(value) => ("**".to_owned(), value),
            };
            self.put(&name);
            let simple = matches!(value, Expr::Var(_) | Expr::Const(_) | Expr::GetAttr(_) | Expr::Call(_));
            self.put(if simple { "" } else { "__share(" });
            self.expr(value, emits)?;
            self.put(if simple { ", " } else { "), " });
        }
        self.put(")");
        Ok(())
    }

    fn constant(&mut self, value: &Value, emits: bool) {
        match value.as_str() {
            Some(text) => self.text(text, emits),
            None if value.is_none() => self.put("none"),
            None if value.is_number() && !value.is_integer() => {
                let float = f64::try_from(value.clone()).unwrap_or(f64::NAN);
                self.put(&format!("__float(\"{}\")", python::float(float)));
            }
            None => self.put(&value.to_string()),
        }
    }

    fn text(&mut self, text: &str, emits: bool) {
        let marked = self.marks.filter(|_| emits).map(|marks| marks.mark(text));
        self.out.push('"');
        for c in marked.as_deref().unwrap_or(text).chars() {
            match c {
                '"' | '\\' => self.out.extend(['\\', c]),
                '\n' => self.put("\\n"),
                '\r' => self.put("\\r"),
                c => self.out.push(c),
            }
        }
        self.out.push('"');
    }
}

/// Operators that chain from left to right with one another.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    And,
    Or,
    Compare,
    Sum,
    Product,
    Power,
    Concat,
}

fn class(op: BinOpKind) -> Class {
    match op {
        BinOpKind::ScAnd => Class::And,
        BinOpKind::ScOr => Class::Or,
        BinOpKind::Add | BinOpKind::Sub => Class::Sum,
        BinOpKind::Mul | BinOpKind::Div | BinOpKind::FloorDiv | BinOpKind::Rem => Class::Product,
        BinOpKind::Pow => Class::Power,
        BinOpKind::Concat => Class::Concat,
        _ => Class::Compare,
    }
}

fn operator(op: BinOpKind) -> &'static str {
    match op {
        BinOpKind::Eq => "==",
        BinOpKind::Ne => "!=",
        BinOpKind::Lt => "<",
        BinOpKind::Lte => "<=",
        BinOpKind::Gt => ">",
        BinOpKind::Gte => ">=",
        BinOpKind::In => "in",
        BinOpKind::ScAnd => "and",
        BinOpKind::ScOr => "or",
        BinOpKind::Add => "+",
        BinOpKind::Sub => "-",
        BinOpKind::Mul => "*",
        BinOpKind::Div => "/",
        BinOpKind::FloorDiv => "//",
        BinOpKind::Rem => "%",
        BinOpKind::Pow => "**",
        BinOpKind::Concat => "~",
    }
}

fn comparison(op: CompareOpKind) -> &'static str {
    match op {
        CompareOpKind::Eq => "==",
        CompareOpKind::Ne => "!=",
        CompareOpKind::Lt => "<",
        CompareOpKind::Lte => "<=",
        CompareOpKind::Gt => ">",
        CompareOpKind::Gte => ">=",
        CompareOpKind::In => "in",
        CompareOpKind::NotIn => "not in",
    }
}
