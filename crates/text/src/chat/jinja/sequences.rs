//! Filters on sequences.

use std::cmp::Ordering;
use std::rc::Rc;

use super::call::Given;
use super::execute::Vm;
use super::text::Text;
use super::value::{SeqKind, Value};
use super::{Res, error, filters, ops, print, room};

impl Vm {
    pub(super) fn filter_sequence(&mut self, name: &str, value: &Value, mut given: Given) -> Res<Value> {
        let lazy = matches!(name, "map" | "select" | "reject" | "selectattr" | "rejectattr");
        if lazy && !value.is_true() {
            return Value::seq(SeqKind::Lazy, Vec::new());
        }
        match name {
            "list" => Value::list(value.iterate()?),
            "first" => Ok(value.iterate()?.into_iter().next().unwrap_or_else(|| empty("first"))),
            "last" => Ok(value.iterate()?.pop().unwrap_or_else(|| empty("last"))),
            "join" => join(value, given),
            "reverse" => reverse(value),
            "map" => self.map(value, given),
            "select" | "reject" => self.select(value, None, given, name == "select"),
            "selectattr" | "rejectattr" => {
                if given.args.is_empty() {
                    return error(format!("'{name}' needs the name of an attribute"));
                }
                let attribute = given.args.remove(0);
                self.select(value, Some(&attribute), given, name == "selectattr")
            }
            "dictsort" => dictsort(value, given),
            "sort" => {
                let [reverse, cased, attribute] =
                    given.bind(name, ["reverse", "case_sensitive", "attribute"])?;
                Value::list(sorted(value.iterate()?, attribute.as_ref(), is_set(&cased), is_set(&reverse))?)
            }
            "unique" => unique(value, given),
            "min" | "max" => {
                let [cased, attribute] = given.bind(name, ["case_sensitive", "attribute"])?;
                let items = sorted(value.iterate()?, attribute.as_ref(), is_set(&cased), name == "max")?;
                Ok(items.into_iter().next().unwrap_or_else(|| empty(name)))
            }
            "sum" => sum(value, given),
            "batch" | "slice" => batch(value, given, name == "slice"),
            _ => error(format!("no filter named '{name}'")),
        }
    }

    fn map(&mut self, value: &Value, mut given: Given) -> Res<Value> {
        let mut mapped = Vec::new();
        if given.args.is_empty() {
            let [attribute, default] = given.bind("map", ["attribute", "default"])?;
            let Some(attribute) = attribute else { return error("map needs a filter or an attribute") };
            for item in value.iterate()? {
                let found = at_path(&item, &attribute)?;
                let missing = matches!(found, Value::Undefined(_));
                mapped.push(default.clone().filter(|_| missing).unwrap_or(found));
            }
        } else {
            let name = given.args.remove(0);
            for item in value.iterate()? {
                let given = Given { args: given.args.clone(), named: given.named.clone() };
                mapped.push(self.filter(print::display(&name).as_str(), item, given)?);
            }
        }
        Value::seq(SeqKind::Lazy, mapped)
    }

    /// Items, or their attributes, that pass a test; without a test those that are true.
    fn select(
        &mut self,
        value: &Value,
        attribute: Option<&Value>,
        mut given: Given,
        wanted: bool,
    ) -> Res<Value> {
        let test = if given.args.is_empty() { None } else { Some(print::display(&given.args.remove(0))) };
        let mut kept = Vec::new();
        for item in value.iterate()? {
            let tested = attribute.map_or(Ok(item.clone()), |attribute| at_path(&item, attribute))?;
            let args = Given { args: given.args.clone(), named: given.named.clone() };
            let passes = match &test {
                Some(test) => self.test(test.as_str(), &tested, args)?,
                None => tested.is_true(),
            };
            if passes == wanted {
                kept.push(item);
            }
        }
        Value::seq(SeqKind::Lazy, kept)
    }
}

fn empty(name: &str) -> Value {
    Value::undefined(format!("no {name} item of an empty sequence"))
}

fn is_set(flag: &Option<Value>) -> bool {
    flag.as_ref().is_some_and(Value::is_true)
}

/// The attribute at a dotted path, or the item at an integer.
fn at_path(item: &Value, path: &Value) -> Res<Value> {
    let Some(path) = path.str() else { return ops::item(item, path) };
    path.as_str().split('.').try_fold(item.clone(), |value, step| match step.parse() {
        Ok(index) => ops::item(&value, &Value::Int(index)),
        Err(_) => ops::item(&value, &Value::text(Text::trusted(step))),
    })
}

fn join(value: &Value, mut given: Given) -> Res<Value> {
    let [separator, attribute] = given.bind("join", ["d", "attribute"])?;
    let separator = separator.map(|separator| print::display(&separator)).unwrap_or_default();
    let mut out = Text::default();
    for (i, item) in value.iterate()?.iter().enumerate() {
        let text = match &attribute {
            Some(attribute) => print::display(&at_path(item, attribute)?),
            None => print::display(item),
        };
        room(out.len() + separator.len() + text.len())?;
        if i > 0 {
            out.push(&separator);
        }
        out.push(&text);
    }
    Ok(Value::text(out))
}

fn reverse(value: &Value) -> Res<Value> {
    let mut items = value.iterate()?;
    items.reverse();
    match value {
        Value::Str(_) => {
            let mut out = Text::default();
            items.iter().filter_map(Value::str).for_each(|c| out.push(c));
            Ok(Value::text(out))
        }
        _ => Value::seq(SeqKind::Lazy, items),
    }
}

/// What items are ordered by: strings without regard to case, unless `cased`.
fn sort_key(item: &Value, attribute: Option<&Value>, cased: bool) -> Res<Value> {
    let key = attribute.map_or_else(|| Ok(item.clone()), |attribute| at_path(item, attribute))?;
    Ok(match &key {
        Value::Str(text) if !cased => Value::text(filters::recase(text, "lower")),
        _ => key,
    })
}

fn sorted(items: Vec<Value>, attribute: Option<&Value>, cased: bool, reverse: bool) -> Res<Vec<Value>> {
    let keyed = items.into_iter().map(|item| Ok((sort_key(&item, attribute, cased)?, item)));
    sort_pairs(keyed.collect::<Res<_>>()?, reverse)
}

/// The second of each pair, in the order of the first; stable in both directions.
fn sort_pairs(mut pairs: Vec<(Value, Value)>, reverse: bool) -> Res<Vec<Value>> {
    let mut failed = None;
    pairs.sort_by(|(a, _), (b, _)| {
        let order = a.compare(b).unwrap_or_else(|fault| {
            failed = Some(fault);
            None
        });
        let order = order.unwrap_or(Ordering::Equal);
        if reverse { order.reverse() } else { order }
    });
    failed.map_or_else(|| Ok(pairs.into_iter().map(|(_, item)| item).collect()), Err)
}

fn dictsort(value: &Value, mut given: Given) -> Res<Value> {
    let [cased, by, reverse] = given.bind("dictsort", ["case_sensitive", "by", "reverse"])?;
    let by = match by.as_ref().and_then(Value::str).map_or("key", Text::as_str) {
        "key" => 0,
        "value" => 1,
        other => return error(format!("dictsort sorts by 'key' or 'value', not by '{other}'")),
    };
    let pairs = filters::items(value, SeqKind::List)?;
    Value::list(sorted(pairs.iterate()?, Some(&Value::Int(by)), is_set(&cased), is_set(&reverse))?)
}

fn unique(value: &Value, mut given: Given) -> Res<Value> {
    let [cased, attribute] = given.bind("unique", ["case_sensitive", "attribute"])?;
    let mut seen = std::collections::HashSet::new();
    let mut kept = Vec::new();
    for item in value.iterate()? {
        let key = super::value::Key::new(&sort_key(&item, attribute.as_ref(), is_set(&cased))?)?;
        if seen.insert(key) {
            kept.push(item);
        }
    }
    Value::seq(SeqKind::Lazy, kept)
}

fn sum(value: &Value, mut given: Given) -> Res<Value> {
    let [attribute, start] = given.bind("sum", ["attribute", "start"])?;
    value.iterate()?.iter().try_fold(start.unwrap_or(Value::Int(0)), |sum, item| {
        let item =
            attribute.as_ref().map_or_else(|| Ok(item.clone()), |attribute| at_path(item, attribute))?;
        ops::binary(super::ast::Binary::Add, &sum, &item)
    })
}

/// Rows of `count` items, or with `columns` `count` columns whose lengths differ by at most one.
fn batch(value: &Value, mut given: Given, columns: bool) -> Res<Value> {
    let [count, fill] = given.bind("batch", ["count", "fill_with"])?;
    let count = count.as_ref().and_then(Value::int).and_then(|n| usize::try_from(n).ok()).filter(|&n| n > 0);
    let Some(count) = count else { return error("batch and slice need a positive number") };
    let items = value.iterate()?;
    room(count.saturating_mul(if columns { size_of::<Rc<()>>() } else { 1 }))?;
    let (least, more) = if columns { (items.len() / count, items.len() % count) } else { (count, 0) };
    let full = least + usize::from(more > 0);
    let mut rest = items.into_iter().peekable();
    let mut rows = Vec::new();
    while if columns { rows.len() < count } else { rest.peek().is_some() } {
        let mut row: Vec<Value> = rest.by_ref().take(least + usize::from(rows.len() < more)).collect();
        if let Some(fill) = &fill {
            row.extend(std::iter::repeat_n(fill.clone(), full.saturating_sub(row.len()).min(1 << 20)));
        }
        rows.push(Value::list(row)?);
    }
    Value::seq(SeqKind::Lazy, rows)
}
