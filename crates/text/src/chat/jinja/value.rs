//! The values of the template language, with Python's notions of truth, equality and order.
//!
//! Contract: values cannot change and cannot hold themselves, except that a namespace's attributes are set. Depth and
//! size are bounded, so that printing, comparing and dropping a value can exhaust neither the stack nor time.

use std::cell::RefCell;
use std::cmp::Ordering;
use std::rc::Rc;

use indexmap::IndexMap;

use super::Res;
use super::ast::Name;
use super::error;
use super::function::Function;
use super::scope::{Closure, Loop};
use super::text::Text;

/// Deepest nesting of lists and dicts.
const MAX_DEPTH: usize = 100;

/// How deep a container nests, and how much it holds.
#[derive(Clone, Copy, Debug)]
struct Extent {
    depth: usize,
    size: u64,
}

#[derive(Clone, Debug)]
pub(crate) enum Value {
    /// Missing; holds what a use of it reports.
    Undefined(Rc<str>),
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(Rc<Text>),
    Seq(Rc<Seq>),
    Dict(Rc<Dict>),
    Namespace(Rc<RefCell<IndexMap<Name, Value>>>),
    Loop(Rc<Loop>),
    Macro(Rc<Closure>),
    Function(Function),
    /// A method bound to its object.
    Method(Rc<(Value, Name)>),
}

/// A sequence.
#[derive(Debug)]
pub(crate) struct Seq {
    pub(crate) kind: SeqKind,
    pub(crate) items: Vec<Value>,
    extent: Extent,
}

/// What Python would call it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SeqKind {
    List,
    Tuple,
    /// A generator: always true, without length.
    Lazy,
    /// `dict_keys` and its like: with length, without index.
    View(&'static str),
}

/// A dict, in order of insertion.
#[derive(Debug)]
pub(crate) struct Dict {
    pub(crate) map: Map,
    extent: Extent,
}

pub(crate) type Map = IndexMap<Key, Value>;

/// What a dict can be keyed by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    None,
    Bool(bool),
    Int(i128),
    Str(Rc<Text>),
}

impl Value {
    pub(crate) fn text(text: Text) -> Self {
        Self::Str(Rc::new(text))
    }

    pub(crate) fn undefined(what: impl Into<Rc<str>>) -> Self {
        Self::Undefined(what.into())
    }

    pub(crate) fn list(items: Vec<Value>) -> Res<Self> {
        Self::seq(SeqKind::List, items)
    }

    pub(crate) fn tuple(items: Vec<Value>) -> Res<Self> {
        Self::seq(SeqKind::Tuple, items)
    }

    pub(crate) fn seq(kind: SeqKind, items: Vec<Value>) -> Res<Self> {
        let extent = extent(items.iter())?;
        Ok(Self::Seq(Rc::new(Seq { kind, items, extent })))
    }

    pub(crate) fn dict(map: Map) -> Res<Self> {
        let extent = extent(map.values())?;
        Ok(Self::Dict(Rc::new(Dict { map, extent })))
    }

    /// What could hold itself counts as too deep for any container.
    fn extent(&self) -> Extent {
        match self {
            Self::Seq(seq) => seq.extent,
            Self::Dict(dict) => dict.extent,
            Self::Str(text) => Extent { depth: 0, size: text.cost() },
            Self::Method(bound) => bound.0.extent(),
            Self::Namespace(_) | Self::Loop(_) | Self::Macro(_) => Extent { depth: MAX_DEPTH, size: 1 },
            _ => Extent { depth: 0, size: 1 },
        }
    }

    /// What an operation over the whole value costs.
    pub(crate) fn cost(&self) -> u64 {
        self.extent().size
    }

    /// Whether a container or namespace may hold it.
    pub(crate) fn can_be_held(&self) -> bool {
        self.extent().depth < MAX_DEPTH
    }

    /// Python's truth.
    pub(crate) fn is_true(&self) -> bool {
        match self {
            Self::Undefined(_) | Self::None => false,
            Self::Bool(value) => *value,
            Self::Int(value) => *value != 0,
            Self::Float(value) => *value != 0.0,
            Self::Str(text) => text.len() > 0,
            Self::Seq(seq) => seq.kind == SeqKind::Lazy || !seq.items.is_empty(),
            Self::Dict(dict) => !dict.map.is_empty(),
            _ => true,
        }
    }

    /// Python's name of the type, for messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Undefined(_) => "undefined",
            Self::None => "None",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float",
            Self::Str(_) => "str",
            Self::Seq(seq) => match seq.kind {
                SeqKind::List => "list",
                SeqKind::Tuple => "tuple",
                SeqKind::Lazy => "generator",
                SeqKind::View(name) => name,
            },
            Self::Dict(_) => "dict",
            Self::Namespace(_) => "namespace",
            Self::Loop(_) => "loop",
            Self::Macro(_) => "macro",
            Self::Function(_) => "function",
            Self::Method(_) => "method",
        }
    }

    /// As a number: booleans are integers.
    pub(crate) fn int(&self) -> Option<i128> {
        match self {
            Self::Bool(value) => Some(i128::from(*value)),
            Self::Int(value) => Some(*value),
            _ => None,
        }
    }

    /// As a float, if it is a number.
    pub(crate) fn number(&self) -> Option<f64> {
        match self {
            Self::Float(value) => Some(*value),
            _ => self.int().map(|value| value as f64),
        }
    }

    pub(crate) fn str(&self) -> Option<&Text> {
        match self {
            Self::Str(text) => Some(text),
            _ => None,
        }
    }

    /// What a loop runs over.
    pub(crate) fn iterate(&self) -> Res<Vec<Value>> {
        match self {
            Self::Undefined(_) => Ok(Vec::new()),
            Self::Seq(seq) => Ok(seq.items.clone()),
            Self::Dict(dict) => Ok(dict.map.keys().map(Key::value).collect()),
            Self::Str(text) => {
                super::room_for_items(text.as_str().chars().count())?;
                let ends = text.as_str().char_indices().map(|(at, c)| (at, at + c.len_utf8()));
                Ok(ends.map(|(start, end)| Self::text(text.slice(start..end))).collect())
            }
            _ => error(format!("'{}' object is not iterable", self.kind())),
        }
    }

    /// Python's `len`.
    pub(crate) fn len(&self) -> Res<usize> {
        match self {
            Self::Undefined(_) => Ok(0),
            Self::Str(text) => Ok(text.as_str().chars().count()),
            Self::Seq(seq) if seq.kind != SeqKind::Lazy => Ok(seq.items.len()),
            Self::Dict(dict) => Ok(dict.map.len()),
            _ => error(format!("object of type '{}' has no len()", self.kind())),
        }
    }

    /// Python's `==`.
    pub(crate) fn equals(&self, other: &Value) -> bool {
        match (self, other) {
            (Self::Undefined(_), Self::Undefined(_)) | (Self::None, Self::None) => true,
            (Self::Str(a), Self::Str(b)) => a == b,
            (Self::Seq(a), Self::Seq(b)) => {
                let same = a.kind == b.kind && a.items.len() == b.items.len();
                same && a.items.iter().zip(&b.items).all(|(a, b)| a.equals(b))
            }
            (Self::Dict(a), Self::Dict(b)) => {
                let same =
                    |(key, value): (&Key, &Value)| b.map.get(key).is_some_and(|other| value.equals(other));
                a.map.len() == b.map.len() && a.map.iter().all(same)
            }
            (Self::Namespace(a), Self::Namespace(b)) => Rc::ptr_eq(a, b),
            _ => match (self.int(), other.int()) {
                (Some(a), Some(b)) => a == b,
                _ => self.number().is_some_and(|a| other.number() == Some(a)),
            },
        }
    }

    /// Python's `<` and its like; an error between kinds that have no order.
    pub(crate) fn compare(&self, other: &Value) -> Res<Option<Ordering>> {
        match (self, other) {
            (Self::Str(a), Self::Str(b)) => Ok(Some(a.as_str().cmp(b.as_str()))),
            (Self::Seq(a), Self::Seq(b)) if a.kind == b.kind => {
                for (a, b) in a.items.iter().zip(&b.items) {
                    if !a.equals(b) {
                        return a.compare(b);
                    }
                }
                Ok(Some(a.items.len().cmp(&b.items.len())))
            }
            _ => match (self.int(), other.int(), self.number(), other.number()) {
                (Some(a), Some(b), ..) => Ok(Some(a.cmp(&b))),
                (_, _, Some(a), Some(b)) => Ok(a.partial_cmp(&b)),
                _ => error(format!("no order between '{}' and '{}'", self.kind(), other.kind())),
            },
        }
    }

    /// Python's `in`, with `self` as the container.
    pub(crate) fn contains(&self, item: &Value) -> Res<bool> {
        match (self, item) {
            (Self::Undefined(_), _) => Ok(false),
            (Self::Str(text), Self::Str(part)) => Ok(text.as_str().contains(part.as_str())),
            (Self::Str(_), _) => error(format!("'in <string>' requires string, not '{}'", item.kind())),
            (Self::Seq(seq), _) => Ok(seq.items.iter().any(|other| other.equals(item))),
            (Self::Dict(dict), _) => Ok(dict.map.contains_key(&Key::new(item)?)),
            _ => error(format!("argument of type '{}' is not iterable", self.kind())),
        }
    }
}

fn extent<'a>(items: impl Iterator<Item = &'a Value>) -> Res<Extent> {
    let mut whole = Extent { depth: 0, size: 1 };
    for item in items {
        let Extent { depth, size } = item.extent();
        whole = Extent { depth: whole.depth.max(depth + 1), size: whole.size + size };
        if whole.depth > MAX_DEPTH || whole.size > super::MAX_ITEMS as u64 {
            return error("a list or dict nests too deep, holds too much, or holds a namespace or macro");
        }
    }
    Ok(whole)
}

impl Key {
    pub(crate) fn new(value: &Value) -> Res<Self> {
        match value {
            Value::None => Ok(Self::None),
            Value::Bool(value) => Ok(Self::Bool(*value)),
            Value::Int(value) => Ok(Self::Int(*value)),
            Value::Str(text) => Ok(Self::Str(text.clone())),
            _ => error(format!("'{}' cannot be a key of a dict", value.kind())),
        }
    }

    pub(crate) fn value(&self) -> Value {
        match self {
            Self::None => Value::None,
            Self::Bool(value) => Value::Bool(*value),
            Self::Int(value) => Value::Int(*value),
            Self::Str(text) => Value::Str(text.clone()),
        }
    }

    /// The key with these characters.
    pub(crate) fn name(name: &str) -> Self {
        Self::Str(Rc::new(Text::trusted(name)))
    }
}
