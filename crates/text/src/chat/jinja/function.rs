//! The functions every template can call.

use std::cell::RefCell;
use std::rc::Rc;

use super::call::Given;
use super::execute::{Vm, named};
use super::text::Text;
use super::value::{Key, Map, Value};
use super::{Fault, Res, error, print};
use crate::chat::DateTime;

/// The time a template sees; without one `strftime_now` is not defined.
pub(crate) type Clock = Option<DateTime>;

/// Longest list `range` makes, as in Jinja2's sandbox.
const MAX_RANGE: i128 = 100_000;

/// A built-in function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Function {
    Range,
    Namespace,
    Dict,
    RaiseException,
    StrftimeNow,
}

impl Function {
    pub(super) fn named(name: &str, clock: &Clock) -> Option<Self> {
        match name {
            "range" => Some(Self::Range),
            "namespace" => Some(Self::Namespace),
            "dict" => Some(Self::Dict),
            "raise_exception" => Some(Self::RaiseException),
            "strftime_now" => clock.map(|_| Self::StrftimeNow),
            _ => None,
        }
    }

    pub(super) fn call(self, vm: &mut Vm, mut given: Given) -> Res<Value> {
        match self {
            Self::Range => {
                let list = range(given)?;
                vm.spend(list.cost())?;
                Ok(list)
            }
            Self::Namespace => {
                let map = given.into_map()?;
                if !map.values().all(Value::can_be_held) {
                    return error("a namespace cannot hold a namespace, a loop or a macro");
                }
                Ok(Value::Namespace(Rc::new(RefCell::new(named(&map).collect()))))
            }
            Self::Dict => Value::dict(given.into_map()?),
            Self::RaiseException => {
                let [message] = given.bind("raise_exception", ["message"])?;
                let Some(message) = message else { return error("raise_exception needs a message") };
                let message = print::display(&message);
                Err(Fault::Refused(message.as_str().to_string()))
            }
            Self::StrftimeNow => {
                let [format] = given.bind("strftime_now", ["format"])?;
                match (&format, vm.clock) {
                    (Some(Value::Str(format)), Some(now)) => {
                        let mut out = Text::default();
                        out.push_str(&now.format(format.as_str()), format.is_trusted());
                        Ok(Value::text(out))
                    }
                    _ => error("strftime_now needs a format"),
                }
            }
        }
    }
}

fn range(mut given: Given) -> Res<Value> {
    let bounds = given.bind("range", ["start", "stop", "step"])?;
    let mut ints = Vec::new();
    for bound in bounds.iter().flatten() {
        ints.push(bound.int().ok_or(()).or_else(|()| error("range needs integers"))?);
    }
    let (start, stop, step) = match ints[..] {
        [stop] => (0, stop, 1),
        [start, stop] => (start, stop, 1),
        [start, stop, step] if step != 0 => (start, stop, step),
        _ => return error("range needs one to three integers and a step that is not zero"),
    };
    let span = if step > 0 { stop.checked_sub(start) } else { start.checked_sub(stop) };
    let count = span.map(|span| if span > 0 { (span - 1) / step.saturating_abs() + 1 } else { 0 });
    match count {
        Some(count) if count <= MAX_RANGE => {
            Value::list((0..count).map(|i| Value::Int(start + i * step)).collect())
        }
        _ => error(format!("range of more than {MAX_RANGE} numbers")),
    }
}

impl Given {
    /// The dict that `dict(…)` and `namespace(…)` make of their arguments.
    fn into_map(self) -> Res<Map> {
        let mut map = Map::new();
        match &self.args[..] {
            [] => {}
            [Value::Dict(dict)] => map.extend(dict.map.clone()),
            [pairs] => {
                for pair in pairs.iterate()? {
                    let [key, value] = &pair.iterate()?[..] else { return error("a dict is made of pairs") };
                    map.insert(Key::new(key)?, value.clone());
                }
            }
            _ => return error("a dict is made of one argument and names"),
        }
        map.extend(self.named.into_iter().map(|(name, value)| (Key::name(&name), value)));
        Ok(map)
    }
}
