//! Calls: arguments, macros, methods.

use std::rc::Rc;

use super::ast::{Args, Expr, Name};
use super::execute::Vm;
use super::methods;
use super::scope::{Closure, Loop, Scope};
use super::value::{Key, Map, Value};
use super::{Res, error};

/// Arguments as given to a call.
#[derive(Debug, Default)]
pub(super) struct Given {
    pub(super) args: Vec<Value>,
    pub(super) named: Vec<(Name, Value)>,
}

impl Given {
    /// Sorts the arguments by the callee's parameters.
    pub(super) fn bind<const N: usize>(
        &mut self,
        callee: &str,
        params: [&str; N],
    ) -> Res<[Option<Value>; N]> {
        if self.args.len() > N {
            return error(format!("'{callee}' takes at most {N} arguments, {} given", self.args.len()));
        }
        let mut bound = [const { None }; N];
        for (slot, value) in bound.iter_mut().zip(self.args.drain(..)) {
            *slot = Some(value);
        }
        for (name, value) in self.named.drain(..) {
            match params.iter().position(|param| *param == name.as_ref()) {
                Some(at) if bound[at].is_none() => bound[at] = Some(value),
                _ => return error(format!("'{callee}' takes no argument '{name}', or takes it once")),
            }
        }
        Ok(bound)
    }

    /// What the arguments weigh.
    pub(super) fn cost(&self) -> u64 {
        self.args.iter().chain(self.named.iter().map(|(_, value)| value)).map(Value::cost).sum()
    }
}

impl Vm {
    pub(super) fn args(&mut self, args: &Args) -> Res<Given> {
        let mut given = Given { args: self.all(&args.positional)?, named: Vec::new() };
        for (name, expr) in &args.named {
            given.named.push((name.clone(), self.eval(expr)?));
        }
        if let Some(star) = &args.star {
            given.args.extend(self.eval(star)?.iterate()?);
        }
        if let Some(stars) = &args.stars {
            match self.eval(stars)? {
                Value::Dict(dict) => given.named.extend(super::execute::named(&dict.map)),
                other => return error(format!("'**' needs a dict, not '{}'", other.kind())),
            }
        }
        Ok(given)
    }

    /// Evaluates a call; `caller` is what the macro `caller` stands for.
    pub(super) fn call_with(&mut self, call: &Expr, caller: Option<Value>) -> Res<Value> {
        let Expr::Call(callee, args) = call else { return self.eval(call) };
        let callee = self.eval(callee)?;
        let mut given = self.args(args)?;
        given.named.extend(caller.map(|caller| ("caller".into(), caller)));
        self.call(&callee, given)
    }

    fn call(&mut self, callee: &Value, given: Given) -> Res<Value> {
        match callee {
            Value::Function(function) => function.call(self, given),
            Value::Macro(closure) => self.call_macro(closure, given),
            Value::Loop(state) => self.recurse(state, given),
            Value::Method(bound) => match &bound.0 {
                Value::Loop(state) => loop_method(state, &bound.1, given),
                object => {
                    self.spend(object.cost() + given.cost())?;
                    let result = methods::call(object, &bound.1, given)?;
                    self.spend(result.cost())?;
                    Ok(result)
                }
            },
            Value::Undefined(what) => error(what.as_ref()),
            _ => error(format!("'{}' object is not callable", callee.kind())),
        }
    }

    fn call_macro(&mut self, closure: &Closure, given: Given) -> Res<Value> {
        let def = &closure.def;
        let Some(outer) = closure.scope.upgrade() else {
            return error(format!("macro '{}' is called outside the block that defines it", def.name));
        };
        let scope = Scope::inside(&outer);
        let mut named: Map = given.named.into_iter().map(|(name, value)| (Key::name(&name), value)).collect();
        let mut args = given.args.into_iter();
        self.within(scope.clone(), |vm| {
            for (name, default) in &def.params {
                let value = match (args.next().or_else(|| named.shift_remove(&Key::name(name))), default) {
                    (Some(value), _) => value,
                    (None, Some(default)) => vm.eval(default)?,
                    (None, None) => Value::undefined(format!("parameter '{name}' was not provided")),
                };
                scope.set(name.clone(), value);
            }
            if let Some(caller) = named.shift_remove(&Key::name("caller")) {
                scope.set("caller".into(), caller);
            }
            scope.set("varargs".into(), Value::tuple(args.collect())?);
            scope.set("kwargs".into(), Value::dict(named)?);
            vm.capture(|vm| vm.block(&def.body))
        })
    }

    /// `loop(items)` in a recursive loop.
    fn recurse(&mut self, state: &Rc<Loop>, mut given: Given) -> Res<Value> {
        let [items] = given.bind("loop", ["items"])?;
        let (true, Some(outer), Some(items)) = (state.def.recursive, state.outer.upgrade(), items) else {
            return error("only a recursive loop can be called, inside itself, with what to run over");
        };
        self.within(outer, |vm| {
            vm.capture(|vm| {
                vm.iterate(&state.def, &items, state.depth + 1)?;
                Ok(super::execute::Flow::Next)
            })
        })
    }
}

fn loop_method(state: &Loop, name: &str, given: Given) -> Res<Value> {
    if name == "cycle" {
        let at = state.at.get().checked_rem(given.args.len());
        return at.and_then(|at| given.args.get(at).cloned()).map_or_else(|| error("no items to cycle"), Ok);
    }
    let now = Value::tuple(given.args)?;
    let changed = !state.seen.borrow().as_ref().is_some_and(|seen| seen.equals(&now));
    state.seen.replace(Some(now));
    Ok(Value::Bool(changed))
}
