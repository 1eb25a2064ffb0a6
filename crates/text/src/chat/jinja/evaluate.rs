//! Expressions at work.

use super::ast::{Compare, Const, Expr};
use super::execute::Vm;
use super::function::Function;
use super::text::Text;
use super::value::{Key, Map, Value};
use super::{Res, error, ops, print};

impl Vm {
    pub(super) fn eval(&mut self, expr: &Expr) -> Res<Value> {
        self.spend(1)?;
        self.nested(|vm| vm.eval_inner(expr))
    }

    fn eval_inner(&mut self, expr: &Expr) -> Res<Value> {
        match expr {
            Expr::Const(value) => Ok(constant(value)),
            Expr::Name(name) => Ok(self.lookup(name)),
            Expr::List(items) => Value::list(self.all(items)?),
            Expr::Tuple(items) => Value::tuple(self.all(items)?),
            Expr::Dict(pairs) => self.dict(pairs),
            Expr::Attr(object, name) => ops::attribute(&self.eval(object)?, name),
            Expr::Item(object, index) => {
                let object = self.eval(object)?;
                let index = self.eval(index)?;
                self.spend(object.cost())?;
                ops::item(&object, &index)
            }
            Expr::Slice(object, bounds) => self.slice(object, bounds),
            Expr::Call(..) => self.call_with(expr, None),
            Expr::Filter(value, name, args) => {
                let value = self.eval(value)?;
                let args = self.args(args)?;
                self.filter(name, value, args)
            }
            Expr::Test(value, name, args) => {
                let value = self.eval(value)?;
                let args = self.args(args)?;
                self.test(name, &value, args).map(Value::Bool)
            }
            Expr::Not(value) => Ok(Value::Bool(!self.eval(value)?.is_true())),
            Expr::Minus(value) => ops::negate(&self.eval(value)?),
            Expr::Plus(value) => ops::positive(&self.eval(value)?),
            Expr::Binary(op, left, right) => {
                let (left, right) = (self.eval(left)?, self.eval(right)?);
                let result = ops::binary(*op, &left, &right)?;
                self.spend(result.cost())?;
                Ok(result)
            }
            Expr::Concat(parts) => self.concat(parts),
            Expr::Compare(first, rest) => self.compare(first, rest),
            Expr::And(left, right) => {
                let left = self.eval(left)?;
                if left.is_true() { self.eval(right) } else { Ok(left) }
            }
            Expr::Or(left, right) => {
                let left = self.eval(left)?;
                if left.is_true() { Ok(left) } else { self.eval(right) }
            }
            Expr::If(condition, then, otherwise) => match (self.eval(condition)?.is_true(), otherwise) {
                (true, _) => self.eval(then),
                (false, Some(otherwise)) => self.eval(otherwise),
                (false, None) => Ok(Value::undefined("the condition was false and there is no else")),
            },
        }
    }

    fn lookup(&self, name: &str) -> Value {
        let known = self.scope.get(name).or_else(|| Function::named(name, &self.clock).map(Value::Function));
        known.unwrap_or_else(|| Value::undefined(format!("'{name}' is undefined")))
    }

    pub(super) fn all(&mut self, exprs: &[Expr]) -> Res<Vec<Value>> {
        exprs.iter().map(|expr| self.eval(expr)).collect()
    }

    fn dict(&mut self, pairs: &[(Expr, Expr)]) -> Res<Value> {
        let mut map = Map::new();
        for (key, value) in pairs {
            let key = Key::new(&self.eval(key)?)?;
            map.insert(key, self.eval(value)?);
        }
        Value::dict(map)
    }

    fn slice(&mut self, object: &Expr, bounds: &[Option<Expr>; 3]) -> Res<Value> {
        let object = self.eval(object)?;
        self.spend(object.cost())?;
        let mut ints = [None; 3];
        for (int, bound) in ints.iter_mut().zip(bounds) {
            let Some(bound) = bound else { continue };
            let value = self.eval(bound)?;
            *int = match (&value, value.int()) {
                (Value::None, _) => None,
                (_, Some(int)) => Some(int),
                _ => return error(format!("a slice needs integers, not '{}'", value.kind())),
            };
        }
        ops::slice(&object, ints)
    }

    fn concat(&mut self, parts: &[Expr]) -> Res<Value> {
        let mut out = Text::default();
        for part in parts {
            let value = self.eval(part)?;
            self.spend(value.cost())?;
            let text = print::display(&value);
            super::room(out.len() + text.len())?;
            out.push(&text);
        }
        Ok(Value::text(out))
    }

    /// A chain such as `a < b <= c`; each operand is evaluated once, none after the first failure.
    fn compare(&mut self, first: &Expr, rest: &[(Compare, Expr)]) -> Res<Value> {
        let mut left = self.eval(first)?;
        for (op, right) in rest {
            let right = self.eval(right)?;
            self.spend(left.cost() + right.cost())?;
            if !ops::compare(*op, &left, &right)? {
                return Ok(Value::Bool(false));
            }
            left = right;
        }
        Ok(Value::Bool(true))
    }
}

fn constant(value: &Const) -> Value {
    match value {
        Const::None => Value::None,
        Const::Bool(value) => Value::Bool(*value),
        Const::Int(value) => Value::Int(*value),
        Const::Float(value) => Value::Float(*value),
        Const::Str(text) => Value::text(Text::trusted(text.as_str())),
    }
}
