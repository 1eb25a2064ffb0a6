//! Names and what they stand for.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use super::ast::{For, Macro, Name};
use super::value::Value;

/// Names set in one block, inside those of the block around it.
#[derive(Debug, Default)]
pub(crate) struct Scope {
    vars: RefCell<HashMap<Name, Value>>,
    parent: Option<Rc<Scope>>,
}

impl Scope {
    pub(crate) fn inside(parent: &Rc<Scope>) -> Rc<Self> {
        Rc::new(Self { vars: RefCell::default(), parent: Some(parent.clone()) })
    }

    pub(crate) fn get(&self, name: &str) -> Option<Value> {
        let mut scope = self;
        loop {
            if let Some(value) = scope.vars.borrow().get(name) {
                return Some(value.clone());
            }
            scope = scope.parent.as_ref()?;
        }
    }

    pub(crate) fn set(&self, name: Name, value: Value) {
        self.vars.borrow_mut().insert(name, value);
    }
}

/// A macro and the scope it was defined in. The scope keeps the macro, so the macro must not keep the scope.
#[derive(Debug)]
pub(crate) struct Closure {
    pub(crate) def: Arc<Macro>,
    pub(crate) scope: Weak<Scope>,
}

/// What `loop` stands for.
#[derive(Debug)]
pub(crate) struct Loop {
    pub(crate) items: Vec<Value>,
    pub(crate) at: Cell<usize>,
    pub(crate) depth: usize,
    /// What `loop.changed` saw last.
    pub(crate) seen: RefCell<Option<Value>>,
    pub(crate) def: Arc<For>,
    pub(crate) outer: Weak<Scope>,
}

impl Loop {
    pub(crate) fn attribute(&self, name: &str) -> Option<Value> {
        let (at, len) = (self.at.get(), self.items.len());
        let int = |value: usize| Some(Value::Int(value as i128));
        let item = |at: Option<usize>| at.and_then(|at| self.items.get(at)).cloned();
        match name {
            "index" => int(at + 1),
            "index0" => int(at),
            "revindex" => int(len - at),
            "revindex0" => int(len - at - 1),
            "first" => Some(Value::Bool(at == 0)),
            "last" => Some(Value::Bool(at + 1 == len)),
            "length" => int(len),
            "depth" => int(self.depth),
            "depth0" => int(self.depth - 1),
            "previtem" => item(at.checked_sub(1)).or(Some(Value::undefined("there is no previous item"))),
            "nextitem" => item(Some(at + 1)).or(Some(Value::undefined("there is no next item"))),
            _ => None,
        }
    }
}
