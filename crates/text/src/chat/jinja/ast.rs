//! A parsed template.

use std::sync::Arc;

/// A name; shared, because scopes keep it too.
pub(crate) type Name = Arc<str>;

/// Statements in order.
pub(crate) type Block = Vec<Node>;

/// A statement and its line.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) line: u32,
    pub(crate) stmt: Stmt,
}

/// What a template does.
#[derive(Debug)]
pub(crate) enum Stmt {
    /// Text as the author wrote it.
    Data(String),
    Print(Expr),
    /// Branches in order, then `else`.
    If(Vec<(Expr, Block)>, Block),
    For(Arc<For>),
    Set(Target, Expr),
    /// `{% set x | filter %}…{% endset %}`: the filters are applied to [`BODY`].
    SetBlock(Target, Expr, Block),
    Macro(Arc<Macro>),
    /// The body becomes the macro `caller` for the duration of the call.
    CallBlock(Arc<Macro>, Expr),
    /// As with [`Stmt::SetBlock`], printed.
    FilterBlock(Expr, Block),
    With(Vec<(Target, Expr)>, Block),
    Break,
    Continue,
}

/// The name under which filters see the text of their block; no template can spell it.
pub(crate) const BODY: &str = "the block's text";

#[derive(Debug)]
pub(crate) struct For {
    pub(crate) target: Target,
    pub(crate) items: Expr,
    pub(crate) filter: Option<Expr>,
    pub(crate) recursive: bool,
    pub(crate) body: Block,
    pub(crate) otherwise: Block,
}

#[derive(Debug)]
pub(crate) struct Macro {
    pub(crate) name: Name,
    pub(crate) params: Vec<(Name, Option<Expr>)>,
    pub(crate) body: Block,
}

/// What can be assigned to.
#[derive(Debug)]
pub(crate) enum Target {
    Name(Name),
    /// An attribute of a namespace.
    Attr(Name, Name),
    Tuple(Vec<Target>),
}

/// What has a value.
#[derive(Debug)]
pub(crate) enum Expr {
    Const(Const),
    Name(Name),
    List(Vec<Expr>),
    Tuple(Vec<Expr>),
    Dict(Vec<(Expr, Expr)>),
    Attr(Box<Expr>, Name),
    Item(Box<Expr>, Box<Expr>),
    Slice(Box<Expr>, Box<[Option<Expr>; 3]>),
    Call(Box<Expr>, Box<Args>),
    Filter(Box<Expr>, Name, Box<Args>),
    Test(Box<Expr>, Name, Box<Args>),
    Not(Box<Expr>),
    Minus(Box<Expr>),
    Plus(Box<Expr>),
    Binary(Binary, Box<Expr>, Box<Expr>),
    Concat(Vec<Expr>),
    Compare(Box<Expr>, Vec<(Compare, Expr)>),
    And(Box<Expr>, Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
    /// Condition, then, else.
    If(Box<Expr>, Box<Expr>, Option<Box<Expr>>),
}

#[derive(Debug)]
pub(crate) enum Const {
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(String),
}

/// Arguments of a call.
#[derive(Debug, Default)]
pub(crate) struct Args {
    pub(crate) positional: Vec<Expr>,
    pub(crate) named: Vec<(Name, Expr)>,
    /// `*args`
    pub(crate) star: Option<Expr>,
    /// `**kwargs`
    pub(crate) stars: Option<Expr>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Binary {
    Add,
    Sub,
    Mul,
    Div,
    FloorDiv,
    Mod,
    Pow,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Compare {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    In,
    NotIn,
}
