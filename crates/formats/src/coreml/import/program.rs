//! ML Programs: what the importer of an operation sees, and the walk over the program.

use std::collections::HashMap;

use kinglet_graph::{BuildError, Dim, Op as GraphOp, TensorType, Type, ValueId};
use kinglet_tensor::{DType, Tensor};

use super::making::Making;
use super::{Stage, ops, refuse};
use crate::coreml::CoreMlError;
use crate::coreml::program::{Argument, Block, Function, Op, ValueType};
use crate::coreml::value::{self, Literal};

/// Adds a function of a program.
pub(super) fn stage(function: &Function, making: &mut Making) -> Result<Stage, CoreMlError> {
    let block = &function.block;
    let mut used = Vec::new();
    all_operations(block, &mut used);
    let known = |kind: &str| is_constant(kind) || ops::importer(kind).is_some();
    refuse(used.into_iter().filter(|(kind, _)| !known(kind)))?;
    let state = |ty: &ValueType| matches!(ty, ValueType::State(_));
    let (states, inputs): (Vec<_>, Vec<_>) = function.inputs.iter().partition(|(_, ty)| state(ty));
    for (name, ty) in inputs.into_iter().chain(states.iter().copied()) {
        let ty = input_type(making, name, ty)?;
        let id = making.input(name, ty)?;
        making.bind(name, id);
    }
    let known = block.constants()?;
    operations(block, &known, making)?;
    let numbers: Vec<&String> = block.outputs.iter().filter(|name| !making.texts.contains(name)).collect();
    let mut stage = Stage::default();
    for name in numbers {
        stage.outputs.push((name.clone(), output(name, &known, making)?));
    }
    for (name, _) in &states {
        let last = making.find(name).ok_or_else(|| CoreMlError::Dangling(name.clone()))?;
        stage.states.push((name.clone(), last));
    }
    Ok(stage)
}

fn is_constant(kind: &str) -> bool {
    kind == "const" || kind.starts_with("constexpr_")
}

/// Kind and name of each operation, of nested blocks too.
fn all_operations<'a>(block: &'a Block, used: &mut Vec<(&'a str, &'a str)>) {
    for op in &block.ops {
        used.push((op.kind.as_str(), op.name.as_str()));
        op.blocks.iter().for_each(|inner| all_operations(inner, used));
    }
}

/// Adds what a block's operations compute.
pub(super) fn operations(
    block: &Block,
    known: &HashMap<String, Literal>,
    making: &mut Making,
) -> Result<(), CoreMlError> {
    for op in block.ops.iter().filter(|op| !is_constant(&op.kind)) {
        operation(op, known, making)?;
    }
    Ok(())
}

/// Adds what one operation computes.
pub(super) fn operation(
    op: &Op,
    known: &HashMap<String, Literal>,
    making: &mut Making,
) -> Result<(), CoreMlError> {
    let import = ops::importer(&op.kind).ok_or_else(|| op.fails("it cannot be imported"))?;
    for (parameter, arguments) in &op.inputs {
        let made = |name: &String| making.find(name).is_some() || known.contains_key(name);
        let dangling = arguments.iter().find_map(|argument| match argument {
            Argument::Name(name) if !made(name) => Some(name),
            _ => None,
        });
        if let Some(name) = dangling {
            let why =
                format!("`{parameter}` reads `{name}`, which nothing made before; export the model again");
            return Err(op.fails(why));
        }
    }
    import(&mut Cx { op, known, making, temps: 0 })
}

/// What a block leaves.
pub(super) fn outputs(
    block: &Block,
    known: &HashMap<String, Literal>,
    making: &mut Making,
) -> Result<Vec<ValueId>, CoreMlError> {
    block.outputs.iter().map(|name| output(name, known, making)).collect()
}

fn output(name: &str, known: &HashMap<String, Literal>, making: &mut Making) -> Result<ValueId, CoreMlError> {
    if let Some(id) = making.find(name) {
        return Ok(id);
    }
    let literal = known.get(name).ok_or_else(|| CoreMlError::Dangling(name.into()))?;
    constant_value(making, name, literal)
}

/// Type of an input: half precision becomes f32, open sizes are dims of their own.
fn input_type(making: &mut Making, name: &str, ty: &ValueType) -> Result<Type, CoreMlError> {
    let (ValueType::Tensor(ty) | ValueType::State(ty)) = ty else {
        return Err(CoreMlError::value(name, "inputs other than tensors and states cannot run"));
    };
    let dtype = ty.dtype.ok_or_else(|| CoreMlError::value(name, "text inputs cannot run"))?;
    let dim = |(axis, dim): (usize, &value::Dim)| match dim {
        value::Dim::Fixed(n) => Dim::Fixed(*n),
        value::Dim::Unknown => making.builder.dim(&format!("{name}.{axis}"), usize::MAX),
    };
    let shape = ty.shape.iter().enumerate().map(dim).collect();
    Ok(TensorType { dtype: widened(dtype), shape }.into())
}

/// The type in which numbers of `dtype` are computed.
pub(super) fn widened(dtype: DType) -> DType {
    match dtype {
        DType::F16 | DType::BF16 | DType::F64 => DType::F32,
        DType::I8 | DType::I16 | DType::U16 | DType::U32 | DType::U64 => DType::I32,
        other => other,
    }
}

/// A constant as a value of the graph.
fn constant_value(making: &mut Making, name: &str, literal: &Literal) -> Result<ValueId, CoreMlError> {
    let no_numbers = || CoreMlError::value(name, "texts and lists are no values of a graph");
    let tensor = literal.tensor().ok_or_else(no_numbers)?;
    let (dtype, shape) = (widened(tensor.dtype()), tensor.shape().to_vec());
    let tensor = match dtype {
        same if same == tensor.dtype() => tensor.clone(),
        DType::F32 => {
            let values = literal.floats().ok_or_else(no_numbers)?;
            let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
            Tensor::new(name, DType::F32, shape, bytes.into())?
        }
        _ => {
            let values = literal.ints().ok_or_else(no_numbers)?;
            let bytes: Vec<u8> = values.iter().flat_map(|n| (*n as i32).to_le_bytes()).collect();
            Tensor::new(name, DType::I32, shape, bytes.into())?
        }
    };
    let id = making.weight(name, tensor)?;
    making.bind(name, id);
    Ok(id)
}

/// Adds the ops for one operation.
pub(super) type Import = fn(&mut Cx<'_>) -> Result<(), CoreMlError>;

/// An operation being imported.
pub(super) struct Cx<'a> {
    pub(super) op: &'a Op,
    known: &'a HashMap<String, Literal>,
    pub(super) making: &'a mut Making,
    temps: usize,
}

impl Cx<'_> {
    /// The value of a parameter.
    pub(super) fn input(&mut self, parameter: &str) -> Result<ValueId, CoreMlError> {
        let given = self.maybe(parameter)?;
        given.ok_or_else(|| self.fail(format!("`{parameter}` is missing")))
    }

    /// The value of a parameter, when it is given.
    pub(super) fn maybe(&mut self, parameter: &str) -> Result<Option<ValueId>, CoreMlError> {
        let Some(first) = self.op.inputs.get(parameter).and_then(|list| list.first()) else {
            return Ok(None);
        };
        self.argument(parameter, first).map(Some)
    }

    /// All values of a parameter.
    pub(super) fn list(&mut self, parameter: &str) -> Result<Vec<ValueId>, CoreMlError> {
        let list = self.op.inputs.get(parameter).map_or(&[][..], Vec::as_slice);
        list.iter().map(|argument| self.argument(parameter, argument)).collect()
    }

    fn argument(&mut self, parameter: &str, argument: &Argument) -> Result<ValueId, CoreMlError> {
        match argument {
            Argument::Name(name) => match (self.making.find(name), self.known.get(name)) {
                (Some(id), _) => Ok(id),
                (None, Some(literal)) => constant_value(self.making, name, literal),
                (None, None) => {
                    Err(self.fail(format!("`{parameter}` reads `{name}`, which nothing made before")))
                }
            },
            Argument::Value(literal) => {
                let name = format!("{}.{parameter}", self.op.name);
                constant_value(self.making, &name, literal)
            }
        }
    }

    /// A parameter that must be known before the program runs.
    pub(super) fn literal(&self, parameter: &str) -> Option<Literal> {
        self.op.value(parameter, &|name| self.known.get(name).cloned())
    }

    /// Whole numbers that must be known; none when not given.
    pub(super) fn ints(&self, parameter: &str) -> Result<Option<Vec<i64>>, CoreMlError> {
        if !self.op.inputs.contains_key(parameter) && !self.op.attributes.contains_key(parameter) {
            return Ok(None);
        }
        let values = self.literal(parameter).and_then(|literal| literal.ints());
        values.map(Some).ok_or_else(|| self.fail(format!("`{parameter}` is not constant whole numbers")))
    }

    /// Whole numbers that must be given.
    pub(super) fn required(&self, parameter: &str) -> Result<Vec<i64>, CoreMlError> {
        self.ints(parameter)?.ok_or_else(|| self.fail(format!("`{parameter}` is missing")))
    }

    /// Sizes; `default` when not given.
    pub(super) fn sizes(&self, parameter: &str, default: &[usize]) -> Result<Vec<usize>, CoreMlError> {
        let Some(list) = self.ints(parameter)? else { return Ok(default.to_vec()) };
        let size = |n: &i64| usize::try_from(*n).ok().filter(|n| *n < 1 << 31);
        let sizes: Option<Vec<usize>> = list.iter().map(size).collect();
        sizes.ok_or_else(|| self.fail(format!("`{parameter}` holds an impossible size")))
    }

    pub(super) fn int(&self, parameter: &str, default: i64) -> i64 {
        self.literal(parameter).and_then(|l| l.int()).unwrap_or(default)
    }

    pub(super) fn flag(&self, parameter: &str, default: bool) -> bool {
        self.literal(parameter).and_then(|l| l.bool()).unwrap_or(default)
    }

    pub(super) fn float(&self, parameter: &str, default: f32) -> f32 {
        self.literal(parameter).and_then(|l| l.float()).unwrap_or(default)
    }

    pub(super) fn text(&self, parameter: &str) -> Option<String> {
        self.literal(parameter)?.text().map(str::to_owned)
    }

    /// Constants by name.
    pub(super) fn known(&self) -> &HashMap<String, Literal> {
        self.known
    }

    /// The outputs of a block that takes these values, computed where the operation stands.
    pub(super) fn inline(&mut self, block: &Block, inputs: &[ValueId]) -> Result<Vec<ValueId>, CoreMlError> {
        let mut known = self.known.clone();
        known.extend(block.constants()?);
        block.inputs.iter().zip(inputs).for_each(|((name, _), id)| self.making.bind(name, *id));
        operations(block, &known, self.making)?;
        outputs(block, &known, self.making)
    }

    /// Number of dimensions of a value; an error when only the data decides.
    pub(super) fn rank(&self, id: ValueId) -> Result<usize, CoreMlError> {
        self.making.rank(id).ok_or_else(|| self.fail("the number of dimensions is not known"))
    }

    /// Whether a value holds whole numbers.
    pub(super) fn is_whole(&self, id: ValueId) -> bool {
        self.making.builder.dtype(id).is_some_and(|dtype| !matches!(dtype, DType::F32 | DType::Bool))
    }

    /// The operation's outputs as those of one op.
    pub(super) fn emit(&mut self, op: impl GraphOp, inputs: &[ValueId]) -> Result<(), CoreMlError> {
        let names: Vec<String> = self.op.outputs.iter().map(|(name, _)| name.clone()).collect();
        let made = self.making.ops(&names, op, inputs).map_err(|e| self.named(e))?;
        names.iter().zip(made).for_each(|(name, id)| self.making.bind(name, id));
        Ok(())
    }

    /// Makes a value that was made by other means the first output.
    pub(super) fn bind(&mut self, id: ValueId) {
        if let Some((name, _)) = self.op.outputs.first() {
            self.making.bind(name, id);
        }
    }

    /// An intermediate value.
    pub(super) fn temp(&mut self, op: impl GraphOp, inputs: &[ValueId]) -> Result<ValueId, CoreMlError> {
        let name = self.temp_name();
        self.making.op(&name, op, inputs).map_err(|e| self.named(e))
    }

    /// A constant scalar of f32.
    pub(super) fn scalar(&mut self, value: f32) -> Result<ValueId, CoreMlError> {
        let name = self.temp_name();
        Ok(self.making.floats(&name, &[], &[value])?)
    }

    /// A constant vector of I64.
    pub(super) fn constant_ints(&mut self, values: &[i64]) -> Result<ValueId, CoreMlError> {
        let name = self.temp_name();
        Ok(self.making.ints(&name, values)?)
    }

    pub(super) fn absent(&mut self) -> ValueId {
        self.making.builder.absent()
    }

    /// Intermediate values of an op with several outputs.
    pub(super) fn temps(
        &mut self,
        op: impl GraphOp,
        inputs: &[ValueId],
        count: usize,
    ) -> Result<Vec<ValueId>, CoreMlError> {
        let names: Vec<String> = (0..count).map(|_| self.temp_name()).collect();
        self.making.ops(&names, op, inputs).map_err(|e| self.named(e))
    }

    /// Makes values that were made by other means the outputs, as many as there are.
    pub(super) fn bind_all(&mut self, ids: &[ValueId]) {
        self.op.outputs.iter().zip(ids).for_each(|((name, _), id)| self.making.bind(name, *id));
    }

    /// A constant scalar of I64.
    pub(super) fn constant_index(&mut self, value: i64) -> Result<ValueId, CoreMlError> {
        let list = self.constant_ints(&[value])?;
        let shape = self.constant_ints(&[])?;
        self.temp(kinglet_graph::ops::Reshape { allow_zero: false }, &[list, shape])
    }

    /// The first whole number of each of a parameter's values, which must be known.
    pub(super) fn numbers(&self, parameter: &str) -> Result<Vec<i64>, CoreMlError> {
        let list = self.op.inputs.get(parameter).map_or(&[][..], Vec::as_slice);
        let one = |argument: &Argument| match argument {
            Argument::Name(name) => self.known.get(name).and_then(Literal::int),
            Argument::Value(literal) => literal.int(),
        };
        let numbers: Option<Vec<i64>> = list.iter().map(one).collect();
        numbers.ok_or_else(|| self.fail(format!("`{parameter}` is not constant whole numbers")))
    }

    /// The name that a parameter is bound to.
    pub(super) fn name_of(&self, parameter: &str) -> Option<String> {
        match self.op.inputs.get(parameter)?.first()? {
            Argument::Name(name) => Some(name.clone()),
            Argument::Value(_) => None,
        }
    }

    /// Whether the first output is declared to hold floats.
    pub(super) fn makes_floats(&self) -> bool {
        let float = |dtype| matches!(dtype, Some(DType::F16 | DType::F32 | DType::F64 | DType::BF16));
        matches!(self.op.outputs.first(), Some((_, ValueType::Tensor(ty))) if float(ty.dtype))
    }

    pub(super) fn fail(&self, why: impl Into<String>) -> CoreMlError {
        self.op.fails(why)
    }

    fn temp_name(&mut self) -> String {
        self.temps += 1;
        format!("{}.{}", self.op.name, self.temps)
    }

    /// A build error under the operation's own name.
    fn named(&self, error: BuildError) -> CoreMlError {
        match error {
            BuildError::Node { reason, .. } => self.fail(reason),
            other => other.into(),
        }
    }
}
