//! Statements at work.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use super::ast::{BODY, Block, Expr, For, Name, Node, Stmt, Target};
use super::function::Clock;
use super::scope::{Closure, Loop, Scope};
use super::text::Text;
use super::value::{Map, Value};
use super::{Fault, Program, Res, error, print};

/// Deepest nesting of calls, blocks and expressions at run time.
const MAX_DEPTH: usize = 300;

/// Renders a template with these names set, within `fuel` units of work.
pub(crate) fn render(program: &Program, names: Vec<(Name, Value)>, clock: Clock, fuel: u64) -> Res<Text> {
    let globals = Rc::new(Scope::default());
    names.into_iter().for_each(|(name, value)| globals.set(name, value));
    let mut vm = Vm { scope: Scope::inside(&globals), clock, out: Text::default(), fuel, depth: 0 };
    vm.block(program)?;
    Ok(vm.out)
}

/// A template being rendered.
pub(super) struct Vm {
    pub(super) scope: Rc<Scope>,
    pub(super) clock: Clock,
    out: Text,
    fuel: u64,
    depth: usize,
}

/// What happens after a block.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Flow {
    Next,
    Break,
    Continue,
}

impl Vm {
    pub(super) fn spend(&mut self, units: u64) -> Res<()> {
        self.fuel = self.fuel.checked_sub(units).ok_or(Fault::Limit("work"))?;
        Ok(())
    }

    /// Runs `f` one level deeper.
    pub(super) fn nested<T>(&mut self, f: impl FnOnce(&mut Self) -> Res<T>) -> Res<T> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(Fault::Limit("depth of calls"));
        }
        let result = f(self);
        self.depth -= 1;
        result
    }

    /// Runs `f` in `scope`.
    pub(super) fn within<T>(&mut self, scope: Rc<Scope>, f: impl FnOnce(&mut Self) -> Res<T>) -> Res<T> {
        let outer = std::mem::replace(&mut self.scope, scope);
        let result = self.nested(f);
        self.scope = outer;
        result
    }

    /// What `f` prints.
    pub(super) fn capture(&mut self, f: impl FnOnce(&mut Self) -> Res<Flow>) -> Res<Value> {
        let before = std::mem::take(&mut self.out);
        let result = f(self);
        let printed = std::mem::replace(&mut self.out, before);
        result.map(|_| Value::text(printed))
    }

    pub(super) fn block(&mut self, block: &Block) -> Res<Flow> {
        for node in block {
            let flow = self.node(node).map_err(|fault| match fault {
                Fault::Error { line: None, reason } => Fault::Error { line: Some(node.line), reason },
                other => other,
            })?;
            if flow != Flow::Next {
                return Ok(flow);
            }
        }
        Ok(Flow::Next)
    }

    fn node(&mut self, node: &Node) -> Res<Flow> {
        self.spend(1)?;
        match &node.stmt {
            Stmt::Data(text) => self.emit(&Text::trusted(text.as_str()))?,
            Stmt::Print(expr) => {
                let value = self.eval(expr)?;
                let text = print::display(&value);
                self.emit(&text)?;
            }
            Stmt::If(branches, otherwise) => return self.branch(branches, otherwise),
            Stmt::For(def) => self.run_loop(def)?,
            Stmt::Set(target, expr) => {
                let value = self.eval(expr)?;
                self.assign(target, value)?;
            }
            Stmt::SetBlock(target, chain, body) => {
                let value = self.filtered(chain, body)?;
                self.assign(target, value)?;
            }
            Stmt::FilterBlock(chain, body) => {
                let text = print::display(&self.filtered(chain, body)?);
                self.emit(&text)?;
            }
            Stmt::Macro(def) => self.scope.set(def.name.clone(), self.close(def)),
            Stmt::CallBlock(def, call) => {
                let value = self.call_with(call, Some(self.close(def)))?;
                let text = print::display(&value);
                self.emit(&text)?;
            }
            Stmt::With(bindings, body) => return self.with(bindings, body),
            Stmt::Break => return Ok(Flow::Break),
            Stmt::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::Next)
    }

    fn emit(&mut self, text: &Text) -> Res<()> {
        self.spend(text.cost())?;
        super::room(self.out.len() + text.len())?;
        self.out.push(text);
        Ok(())
    }

    fn close(&self, def: &Arc<super::ast::Macro>) -> Value {
        Value::Macro(Rc::new(Closure { def: def.clone(), scope: Rc::downgrade(&self.scope) }))
    }

    fn branch(&mut self, branches: &[(Expr, Block)], otherwise: &Block) -> Res<Flow> {
        for (condition, block) in branches {
            if self.eval(condition)?.is_true() {
                return self.nested(|vm| vm.block(block));
            }
        }
        self.nested(|vm| vm.block(otherwise))
    }

    fn with(&mut self, bindings: &[(Target, Expr)], body: &Block) -> Res<Flow> {
        let scope = Scope::inside(&self.scope);
        for (target, expr) in bindings {
            let value = self.eval(expr)?;
            self.within(scope.clone(), |vm| vm.assign(target, value))?;
        }
        self.within(scope, |vm| vm.block(body))
    }

    /// The text of a block after the filters of `chain`.
    fn filtered(&mut self, chain: &Expr, body: &Block) -> Res<Value> {
        let scope = Scope::inside(&self.scope);
        self.within(scope.clone(), |vm| {
            let text = vm.capture(|vm| vm.block(body))?;
            scope.set(BODY.into(), text);
            vm.eval(chain)
        })
    }

    fn assign(&mut self, target: &Target, value: Value) -> Res<()> {
        match target {
            Target::Name(name) => self.scope.set(name.clone(), value),
            Target::Attr(name, attribute) => {
                let Some(Value::Namespace(map)) = self.scope.get(name) else {
                    return error(format!("'{name}' is no namespace, so its '{attribute}' cannot be set"));
                };
                if !value.can_be_held() {
                    return error("a namespace cannot hold a namespace, a loop or a macro");
                }
                map.borrow_mut().insert(attribute.clone(), value);
            }
            Target::Tuple(targets) => {
                let items = value.iterate()?;
                if items.len() != targets.len() {
                    return error(format!(
                        "cannot unpack {} values into {} names",
                        items.len(),
                        targets.len()
                    ));
                }
                for (target, item) in targets.iter().zip(items) {
                    self.assign(target, item)?;
                }
            }
        }
        Ok(())
    }

    fn run_loop(&mut self, def: &Arc<For>) -> Res<()> {
        let items = self.eval(&def.items)?;
        self.nested(|vm| vm.iterate(def, &items, 1))
    }

    /// Runs the body of a loop for each of `items`.
    pub(super) fn iterate(&mut self, def: &Arc<For>, items: &Value, depth: usize) -> Res<()> {
        self.spend(items.cost())?;
        let items = self.wanted(def, items.iterate()?)?;
        if items.is_empty() {
            let scope = Scope::inside(&self.scope);
            return self.within(scope, |vm| vm.block(&def.otherwise)).map(drop);
        }
        let outer = self.scope.clone();
        let (at, seen) = (Cell::new(0), RefCell::new(None));
        let state = Rc::new(Loop { items, at, depth, seen, def: def.clone(), outer: Rc::downgrade(&outer) });
        for (at, item) in state.items.iter().enumerate() {
            state.at.set(at);
            let scope = Scope::inside(&outer);
            scope.set("loop".into(), Value::Loop(state.clone()));
            let flow = self.within(scope, |vm| {
                vm.assign(&def.target, item.clone())?;
                vm.block(&def.body)
            })?;
            if flow == Flow::Break {
                break;
            }
        }
        Ok(())
    }

    /// The items that pass the loop's own condition.
    fn wanted(&mut self, def: &For, items: Vec<Value>) -> Res<Vec<Value>> {
        let Some(filter) = &def.filter else { return Ok(items) };
        let mut wanted = Vec::new();
        for item in items {
            let scope = Scope::inside(&self.scope);
            let keep = self.within(scope, |vm| {
                vm.assign(&def.target, item.clone())?;
                vm.eval(filter)
            })?;
            if keep.is_true() {
                wanted.push(item);
            }
        }
        Ok(wanted)
    }
}

/// The names a namespace or dict is made from.
pub(super) fn named(map: &Map) -> impl Iterator<Item = (Name, Value)> {
    map.iter().filter_map(|(key, value)| match key {
        super::value::Key::Str(text) => Some((text.as_str().into(), value.clone())),
        _ => None,
    })
}
