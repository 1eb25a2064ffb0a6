//! `Coded`: ops over codes, which say what integer kernels compute.

use std::sync::Arc;

use kinglet_tensor::{DType, Tensor};

use super::{Dequantize, Op, Parts, Quantize, Slot};
use crate::{Arg, Args, Type};

/// Ops one after the other over numbers that are given, and taken, as codes: `Dequantize` before, `Quantize` behind.
///
/// Inputs: those of each link in turn. One given as codes is three: codes, scale, zero point (which may be absent). With
/// `codes_out`, scale and zero point of the result follow.
#[derive(Clone, Debug)]
pub struct Coded {
    /// The ops in running order; each but the first reads what the one before made.
    pub links: Vec<Link>,
    /// Whether the result is codes, not numbers.
    pub codes_out: bool,
}

/// An op of a chain.
#[derive(Clone, Debug)]
pub struct Link {
    /// The op, of one result.
    pub op: Arc<dyn Op>,
    /// What its inputs are.
    pub inputs: Vec<Source>,
}

/// What an input of a link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// What the link before made.
    Before,
    /// An input as it is, which may be absent.
    Plain,
    /// Codes, with the axis of their scales.
    Codes(i64),
}

impl Source {
    /// How many inputs it takes.
    pub fn width(self) -> usize {
        match self {
            Self::Before => 0,
            Self::Plain => 1,
            Self::Codes(_) => 3,
        }
    }
}

impl Coded {
    /// How many inputs there are.
    pub fn inputs(&self) -> usize {
        let sources = self.links.iter().flat_map(|link| &link.inputs);
        sources.map(|source| source.width()).sum::<usize>() + if self.codes_out { 2 } else { 0 }
    }

    /// The names of the ops, e.g. `Conv + Relu`.
    fn names(&self) -> String {
        let names: Vec<String> = self.links.iter().map(|link| link_name(&*link.op)).collect();
        names.join(" + ")
    }
}

/// The function's name, where an op stands for many.
fn link_name(op: &dyn Op) -> String {
    let text = op.describe();
    let short = text.split([' ', ',']).next().unwrap_or_default();
    match op.name() {
        "Binary" | "Unary" if !short.is_empty() => short.to_owned(),
        name => name.to_owned(),
    }
}

/// The type of numbers that codes at `at` stand for.
fn numbers(args: &Args<'_>, at: usize, axis: i64) -> Result<Type, String> {
    let three: Vec<Arg<'_>> = args.0.get(at..at + 3).ok_or("scale and zero point are missing")?.to_vec();
    one(Dequantize { axis, block: 0, to: None }.infer(&Args(&three))?)
}

fn one(types: Vec<Type>) -> Result<Type, String> {
    types.into_iter().next().ok_or_else(|| "an op without a result".into())
}

impl Op for Coded {
    fn name(&self) -> &'static str {
        "Coded"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        if args.len() != self.inputs() {
            return Err(format!("takes {} inputs, got {}", self.inputs(), args.len()));
        }
        let (mut at, mut before) = (0, Type::Absent);
        for link in &self.links {
            let mut types: Vec<(Type, Option<&Tensor>)> = Vec::with_capacity(link.inputs.len());
            for source in &link.inputs {
                types.push(match source {
                    Source::Before => (before.clone(), None),
                    Source::Plain => (args.ty(at).clone(), args.constant(at)),
                    Source::Codes(axis) => (numbers(args, at, *axis)?, None),
                });
                at += source.width();
            }
            let seen: Vec<Arg<'_>> =
                types.iter().map(|(ty, constant)| Arg { ty, constant: *constant }).collect();
            before = one(link.op.infer(&Args(&seen))?)?;
        }
        if !self.codes_out {
            return Ok(vec![before]);
        }
        let zero = args.optional(at + 1).map_or(DType::U8, |zero| zero.dtype);
        let made = before.tensor().ok_or("makes no tensor")?;
        Ok(vec![made.with(zero).into()])
    }

    fn describe(&self) -> String {
        format!("{} over codes{}", self.names(), if self.codes_out { "" } else { ", to numbers" })
    }

    fn decompose(&self, args: &Args<'_>) -> Option<Parts> {
        let mut parts = Parts::default();
        let (mut at, mut before) = (0, None);
        for (i, link) in self.links.iter().enumerate() {
            let mut inputs = Vec::with_capacity(link.inputs.len());
            for source in &link.inputs {
                inputs.push(match source {
                    Source::Before => before?,
                    Source::Plain => Slot::In(at),
                    Source::Codes(axis) => {
                        let three = [Slot::In(at), Slot::In(at + 1), Slot::In(at + 2)];
                        parts.temp(Dequantize { axis: *axis, block: 0, to: None }, &three)
                    }
                });
                at += source.width();
            }
            let last = i + 1 == self.links.len() && !self.codes_out;
            let out = if last { Slot::Out(0) } else { parts.place() };
            parts.put(link.op.clone(), &inputs, &[out]);
            before = Some(out);
        }
        if self.codes_out {
            let to = args.optional(at + 1).map_or(DType::U8, |zero| zero.dtype);
            let quantize = Quantize { axis: 1, block: 0, to, saturate: true };
            parts.node(quantize, &[before?, Slot::In(at), Slot::In(at + 1)], &[Slot::Out(0)]);
        }
        Some(parts)
    }
}
