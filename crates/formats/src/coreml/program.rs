//! ML Programs: functions of blocks of operations.

use std::collections::{BTreeMap, HashMap};

use super::blob::Blobs;
use super::unpack::unpack;
use super::value::{Literal, TensorType};
use super::{CoreMlError, proto};

/// Most operations of a program, nested ones included.
const MAX_OPS: usize = 1 << 20;

/// A program.
#[derive(Clone, Debug)]
pub struct Program {
    /// Functions by name; `main` is the usual one.
    pub functions: BTreeMap<String, Function>,
    /// Name of the one that runs, when it is another.
    pub function: Option<String>,
}

/// A function.
#[derive(Clone, Debug)]
pub struct Function {
    /// Names and types of what it takes, states among them.
    pub inputs: Vec<(String, ValueType)>,
    /// The set of operations that it is written in: `CoreML7`, `iOS16`.
    pub opset: String,
    /// What it does.
    pub block: Block,
}

/// Operations in running order.
#[derive(Clone, Debug)]
pub struct Block {
    /// Names and types of what it takes, for nested blocks.
    pub inputs: Vec<(String, ValueType)>,
    /// The operations.
    pub ops: Vec<Op>,
    /// Names of what it leaves.
    pub outputs: Vec<String>,
}

/// An operation.
#[derive(Clone, Debug)]
pub struct Op {
    /// What it does: `conv`, `const`.
    pub kind: String,
    /// Its own name, or that of its first output.
    pub name: String,
    /// Parameters by name; most have one argument.
    pub inputs: BTreeMap<String, Vec<Argument>>,
    /// Names and types of what it makes.
    pub outputs: Vec<(String, ValueType)>,
    /// Values that are fixed.
    pub attributes: BTreeMap<String, Literal>,
    /// Blocks inside it.
    pub blocks: Vec<Block>,
}

/// What a parameter is bound to.
#[derive(Clone, Debug)]
pub enum Argument {
    /// The value of this name.
    Name(String),
    /// This value.
    Value(Literal),
}

/// Type of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueType {
    /// A tensor.
    Tensor(TensorType),
    /// A tensor that stays from run to run.
    State(TensorType),
    /// A list of tensors.
    List(TensorType),
    /// Tuples and dictionaries.
    Other,
}

impl Program {
    /// The function that a run executes: the chosen one, else `main`, or the first.
    pub fn chosen(&self) -> Result<&Function, CoreMlError> {
        let Some(name) = &self.function else {
            let usual = self.functions.get("main").or_else(|| self.functions.values().next());
            return usual.ok_or(CoreMlError::NoFunction);
        };
        let unknown = || CoreMlError::Function {
            name: crate::error::printable(name),
            known: self
                .functions
                .keys()
                .map(|name| crate::error::printable(name))
                .collect::<Vec<_>>()
                .join(", "),
        };
        self.functions.get(name).ok_or_else(unknown)
    }
}

impl Block {
    /// What is known before the program runs: constants, and what compressed weights stand for.
    pub fn constants(&self) -> Result<HashMap<String, Literal>, CoreMlError> {
        let mut known: HashMap<String, Literal> = HashMap::new();
        for op in &self.ops {
            if op.kind == "const" {
                let missing = || op.fails("it has no value");
                let value = op.attributes.get("val").ok_or_else(missing)?;
                op.outputs.iter().for_each(|(name, _)| drop(known.insert(name.clone(), value.clone())));
            } else if op.kind.starts_with("constexpr_") {
                let values = unpack(op, &|name| known.get(name).cloned())?;
                known.extend(op.outputs.iter().map(|(name, _)| name.clone()).zip(values));
            }
        }
        Ok(known)
    }
}

impl Op {
    pub(super) fn fails(&self, why: impl Into<String>) -> CoreMlError {
        CoreMlError::Op { op: self.name.clone(), kind: self.kind.clone(), why: why.into() }
    }

    /// The value of a parameter that has one, be it an attribute, a literal, or a name that `known` resolves.
    pub fn value(&self, parameter: &str, known: &dyn Fn(&str) -> Option<Literal>) -> Option<Literal> {
        if let Some(value) = self.attributes.get(parameter) {
            return Some(value.clone());
        }
        match self.inputs.get(parameter)?.first()? {
            Argument::Name(name) => known(name),
            Argument::Value(value) => Some(value.clone()),
        }
    }
}

/// Counts operations while a program is read.
struct Reader<'a> {
    blobs: &'a dyn Blobs,
    ops: usize,
}

pub(super) fn read(program: proto::Program, blobs: &dyn Blobs) -> Result<Program, CoreMlError> {
    let mut reader = Reader { blobs, ops: 0 };
    let functions = program.functions.into_iter();
    let functions: BTreeMap<_, _> =
        functions.map(|(name, f)| Ok((name, reader.function(f)?))).collect::<Result<_, CoreMlError>>()?;
    if functions.is_empty() {
        Err(CoreMlError::NoFunction)
    } else {
        Ok(Program { functions, function: None })
    }
}

impl Reader<'_> {
    fn function(&mut self, mut function: proto::Function) -> Result<Function, CoreMlError> {
        let chosen = function.blocks.remove(&function.opset);
        let block = chosen.or_else(|| function.blocks.into_values().next()).ok_or(CoreMlError::NoFunction)?;
        Ok(Function { inputs: named(function.inputs)?, opset: function.opset, block: self.block(block)? })
    }

    fn block(&mut self, block: proto::Block) -> Result<Block, CoreMlError> {
        self.ops += block.operations.len();
        if self.ops > MAX_OPS {
            return Err(CoreMlError::value("program", format!("it has more than {MAX_OPS} operations")));
        }
        let ops = block.operations.into_iter().map(|op| self.op(op)).collect::<Result<_, _>>()?;
        Ok(Block { inputs: named(block.inputs)?, ops, outputs: block.outputs })
    }

    fn op(&mut self, op: proto::Operation) -> Result<Op, CoreMlError> {
        let outputs = named(op.outputs)?;
        let first = outputs.first().map_or_else(|| op.kind.clone(), |(name, _)| name.clone());
        let literal = |value: proto::Value| Literal::of(&first, value, self.blobs);
        let attributes = op.attributes.into_iter().map(|(key, value)| Ok((key, literal(value)?)));
        let attributes: BTreeMap<String, Literal> = attributes.collect::<Result<_, CoreMlError>>()?;
        let argument = |binding: proto::Binding| match binding.bound {
            Some(proto::Bound::Name(name)) => Ok(Argument::Name(name)),
            Some(proto::Bound::Value(value)) => literal(value).map(Argument::Value),
            None => Err(CoreMlError::value(&first, "a parameter is bound to nothing")),
        };
        let inputs = op.inputs.into_iter().map(|(key, bound)| {
            Ok((key, bound.bindings.into_iter().map(argument).collect::<Result<_, _>>()?))
        });
        let inputs = inputs.collect::<Result<_, CoreMlError>>()?;
        let blocks = op.blocks.into_iter().map(|block| self.block(block)).collect::<Result<_, _>>()?;
        let name = attributes.get("name").and_then(Literal::text).map_or(first, str::to_owned);
        Ok(Op { kind: op.kind, name, inputs, outputs, attributes, blocks })
    }
}

fn named(list: Vec<proto::NamedType>) -> Result<Vec<(String, ValueType)>, CoreMlError> {
    let one = |named: proto::NamedType| {
        let ty = ValueType::of(&named.name, named.ty)?;
        Ok((named.name, ty))
    };
    list.into_iter().map(one).collect()
}

impl ValueType {
    fn of(name: &str, ty: Option<proto::ValueType>) -> Result<Self, CoreMlError> {
        let inner = |ty: Option<Box<proto::ValueType>>| match ty.and_then(|ty| ty.kind) {
            Some(proto::TypeKind::Tensor(ty)) => TensorType::of(name, &ty).map(Some),
            _ => Ok(None),
        };
        Ok(match ty.and_then(|ty| ty.kind) {
            Some(proto::TypeKind::Tensor(ty)) => Self::Tensor(TensorType::of(name, &ty)?),
            Some(proto::TypeKind::State(state)) => inner(state.wrapped)?.map_or(Self::Other, Self::State),
            Some(proto::TypeKind::List(list)) => inner(list.item)?.map_or(Self::Other, Self::List),
            _ => Self::Other,
        })
    }
}
