//! A graph bound to concrete types: segments that run one after the other. A segment is a program of steps over the arena,
//! or one op whose values only the data decides.

mod dynamic;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use kinglet_graph::{Def, ExecError, Graph, Node, PlanReport, Profiler, StepReport, ValueId};
use kinglet_kernels::{Arena, LENT, Lent, Limits, Program, RunArgs, RunError, Span, Team};
use kinglet_tensor::{DType, Tensor};

use self::dynamic::{Dynamic, Kind};
use crate::control::Control;
use crate::env::Env;
use crate::host::host;
use crate::lanes::{batch, stretches};
use crate::lower::Lowering;
use crate::placed::Placed;
use crate::session::{Feed, TensorView};
use crate::value::{Array, Value};
use crate::weights::WeightBank;

/// What went wrong in a step of a program: steps cannot answer themselves.
#[derive(Debug, Default)]
pub(crate) struct Faults(Mutex<Option<(String, String)>>);

impl Faults {
    /// Keeps the first one.
    pub(crate) fn report(&self, node: &str, reason: String) {
        let mut first = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert_with(|| (node.to_owned(), reason));
    }

    fn take(&self) -> Result<(), ExecError> {
        match self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some((node, reason)) => Err(ExecError::Node { node, reason }),
            None => Ok(()),
        }
    }
}

/// A bound graph.
pub(crate) struct Plan {
    graph: Graph,
    segments: Vec<Segment>,
    /// Where each value lies.
    places: HashMap<ValueId, Place>,
    inputs: Vec<Place>,
    outputs: Vec<Place>,
    /// Inputs that the only program can read where the caller has them, by its numbers.
    lent: [Option<usize>; LENT],
    /// Values that only the data decides, during a run and after it.
    values: Vec<Option<Value>>,
    faults: Arc<Faults>,
    arena_bytes: usize,
    placed: usize,
    report: PlanReport,
}

enum Segment {
    Program(Box<Program>),
    Dynamic(Box<Dynamic>),
}

/// Where a value lies.
#[derive(Clone)]
enum Place {
    Absent,
    Constant(Arc<(Tensor, Vec<usize>)>),
    Arena(Span, DType, Arc<[usize]>),
    Table(usize),
}

impl Plan {
    pub(crate) fn new(mut graph: Graph, env: &Arc<Env>) -> Result<Self, ExecError> {
        env.bank.share(&mut graph);
        let bf16 = env.backend.bf16(false);
        let weights = WeightBank::prepare(&graph, &env.backend, Some(&env.bank), bf16)?;
        let faults = Arc::new(Faults::default());
        let lowering = Lowering::new(&graph, &weights).with_host(
            faults.clone(),
            env.interpret,
            (env.backend.level, env.fuse),
            bf16,
            &env.bank,
        );
        let lowered = lowering.finish()?;
        let parts = if env.fuse { batch(&graph) } else { 1 };
        let placed = lowered.place(&[], &stretches(&lowered, parts, env.team.size()))?;
        let mut plan = Self {
            segments: Vec::new(),
            places: HashMap::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            lent: [None; LENT],
            values: vec![None; graph.values().len()],
            faults,
            arena_bytes: placed.bytes,
            placed: placed.spans.count(),
            report: lowered.report(&placed, &[]),
            graph: Graph::default(),
        };
        plan.report.mapped_bytes = weights.mapped_bytes();
        for (id, buffer) in lowered.values() {
            plan.places.insert(id, plan.arena_place(&graph, id, placed.spans[buffer]));
        }
        plan.inputs = graph.inputs().iter().map(|id| plan.place(&graph, *id)).collect();
        plan.outputs = graph.outputs().iter().map(|id| plan.place(&graph, *id)).collect();
        plan.segment(&graph, placed, env)?;
        plan.lend();
        plan.graph = graph;
        Ok(plan)
    }

    fn arena_place(&self, graph: &Graph, id: ValueId, span: Span) -> Place {
        match graph.value(id).ty.known() {
            Some(ty) => Place::Arena(span, ty.dtype, ty.dims().unwrap_or_default().into()),
            None => Place::Table(id.index()),
        }
    }

    fn place(&self, graph: &Graph, id: ValueId) -> Place {
        match &graph.value(id).def {
            Def::Absent => Place::Absent,
            Def::Weight(tensor) => Place::Constant(Arc::new((tensor.clone(), tensor.shape().to_vec()))),
            _ => self.places.get(&id).cloned().unwrap_or(Place::Table(id.index())),
        }
    }

    /// Groups steps into programs, with the dynamic ops between them.
    fn segment(&mut self, graph: &Graph, placed: Placed, env: &Arc<Env>) -> Result<(), ExecError> {
        let limits = || Limits {
            arena_bytes: placed.bytes,
            dims: Vec::new(),
            workers: env.team.size(),
            level: env.backend.level,
            kv: None,
        };
        let mut parts = Vec::new();
        let flush = |parts: &mut Vec<_>, segments: &mut Vec<Segment>| {
            if parts.is_empty() {
                return Ok(());
            }
            let program = Program::of_parts(std::mem::take(parts), limits());
            let program =
                program.map_err(|e| ExecError::Node { node: e.label.clone(), reason: e.to_string() })?;
            segments.push(Segment::Program(Box::new(program)));
            Ok::<_, ExecError>(())
        };
        for part in placed.parts {
            match part {
                Ok(part) => parts.push(part),
                Err(index) => {
                    flush(&mut parts, &mut self.segments)?;
                    let dynamic = self.dynamic(graph, &graph.nodes()[index], env)?;
                    self.segments.push(Segment::Dynamic(Box::new(dynamic)));
                }
            }
        }
        flush(&mut parts, &mut self.segments)?;
        let programs = self.segments.iter().filter_map(|s| match s {
            Segment::Program(program) => Some(program.arena_bytes()),
            Segment::Dynamic(_) => None,
        });
        self.arena_bytes = programs.max().unwrap_or(0).max(self.arena_bytes);
        Ok(())
    }

    /// Where one program is all there is, it reads inputs where the caller has them, the largest first, unless a step or an
    /// output needs them in the arena.
    fn lend(&mut self) {
        let [Segment::Program(program)] = self.segments.as_mut_slice() else { return };
        let span = |place: &Place| if let Place::Arena(span, ..) = place { Some(*span) } else { None };
        let bytes = |span: &Span| span.end(&[]).map_or(0, |end| end - span.offset);
        let handed_out =
            |input: &Span| self.outputs.iter().filter_map(span).any(|o| o.offset == input.offset);
        let mut open: Vec<(usize, Span)> =
            self.inputs.iter().enumerate().filter_map(|(i, place)| Some((i, span(place)?))).collect();
        open.retain(|(_, span)| bytes(span) > 0 && !handed_out(span));
        open.sort_by_key(|(_, span)| std::cmp::Reverse(bytes(span)));
        for (input, span) in open {
            if let Some(number) = program.lend(&span) {
                self.lent[number] = Some(input);
            }
        }
    }

    fn dynamic(&self, graph: &Graph, node: &Node, env: &Arc<Env>) -> Result<Dynamic, ExecError> {
        let kind = match Control::of(graph, node, env)? {
            Some(control) => Kind::Control(Box::new(control)),
            None => Kind::Host(host(&*node.op).ok_or_else(|| ExecError::Unsupported {
                op: node.op.name().into(),
                node: node.name.clone(),
                backend: "cpu".into(),
            })?),
        };
        Ok(Dynamic {
            node: node.clone(),
            inputs: node.inputs.iter().map(|id| self.place(graph, *id)).collect(),
            outputs: node
                .outputs
                .iter()
                .map(|id| (self.place(graph, *id), graph.value(*id).ty.clone()))
                .collect(),
            kind,
        })
    }

    /// Values that have a place in the arena.
    pub(crate) fn placed(&self) -> usize {
        self.placed
    }

    pub(crate) fn arena_bytes(&self) -> usize {
        self.arena_bytes
    }

    pub(crate) fn graph(&self) -> &Graph {
        &self.graph
    }

    pub(crate) fn report(&self) -> PlanReport {
        self.report.clone()
    }

    /// Runs all segments. `profiler` hears of the steps of programs and of each dynamic op, numbered through the plan.
    pub(crate) fn run(
        &mut self,
        env: &Env,
        arena: &mut Arena,
        feeds: &[Feed<'_>],
        mut profiler: Option<&mut dyn Profiler>,
    ) -> Result<(), ExecError> {
        self.values.iter_mut().for_each(|value| *value = None);
        let lent = self.lend_feeds(feeds);
        for (index, (place, feed)) in self.inputs.iter().zip(feeds).enumerate() {
            if lent.iter().zip(&self.lent).any(|(bytes, input)| bytes.is_some() && *input == Some(index)) {
                continue;
            }
            bring(&env.team, place, feed, arena, &mut self.values)
                .map_err(|reason| ExecError::Input { index, reason })?;
        }
        if let Some(profiler) = profiler.as_deref_mut() {
            profiler.begin();
        }
        let mut done = 0;
        for segment in &mut self.segments {
            match segment {
                Segment::Program(program) => {
                    let mut shifted = profiler.as_deref_mut().map(|inner| Shifted { inner, by: done });
                    let args = RunArgs {
                        dims: &[],
                        seqs: &[],
                        kv: None,
                        cancel: &|| false,
                        lent,
                        profiler: shifted.as_mut().map(|p| p as &mut dyn kinglet_kernels::Profiler),
                    };
                    program
                        .run(arena, &env.team, args)
                        .map_err(|e| run_error(e, &self.report.steps[done..]))?;
                    self.faults.take()?;
                    done += program.steps();
                }
                Segment::Dynamic(dynamic) => {
                    dynamic.run(env, arena, &mut self.values)?;
                    if let Some(profiler) = profiler.as_deref_mut() {
                        profiler.step(done);
                    }
                    done += 1;
                }
            }
        }
        Ok(())
    }

    /// The bytes of inputs that need no copy in this run.
    fn lend_feeds<'f>(&self, feeds: &[Feed<'f>]) -> Lent<'f> {
        let mut lent = [None; LENT];
        for (bytes, input) in lent.iter_mut().zip(&self.lent) {
            let feed = input.and_then(|input| feeds.get(input)).and_then(|feed| feed.bytes().ok());
            *bytes = feed.filter(|bytes| bytes.as_ptr().addr().is_multiple_of(Program::LENT_ALIGN));
        }
        lent
    }

    /// Output `i` of the last run.
    pub(crate) fn output<'a>(&'a self, arena: &'a Arena, i: usize) -> Result<Feed<'a>, ExecError> {
        let missing = || ExecError::Output(i);
        Ok(match self.outputs.get(i).ok_or_else(missing)? {
            Place::Absent => return Err(missing()),
            Place::Constant(constant) => Feed::Tensor(TensorView {
                dtype: constant.0.dtype(),
                shape: &constant.1,
                data: constant.0.data(),
            }),
            Place::Arena(span, dtype, shape) => {
                let data = arena.bytes_of(span, &[]).map_err(|_| missing())?;
                Feed::Tensor(TensorView { dtype: *dtype, shape, data })
            }
            Place::Table(index) => Feed::Value(self.values[*index].as_ref().ok_or_else(missing)?),
        })
    }
}

/// Tells of steps under numbers that count through the whole plan.
struct Shifted<'a> {
    inner: &'a mut dyn Profiler,
    by: usize,
}

impl kinglet_kernels::Profiler for Shifted<'_> {
    fn begin(&mut self) {}

    fn step(&mut self, index: usize) {
        self.inner.step(self.by + index);
    }
}

/// `steps` are those of the program.
fn run_error(e: RunError, steps: &[StepReport]) -> ExecError {
    match e {
        RunError::Cancelled => ExecError::Cancelled,
        RunError::Weights { step, reason, .. } if step < steps.len() => {
            ExecError::Node { node: steps[step].name.clone(), reason }
        }
        other => ExecError::Node { node: "run".into(), reason: other.to_string() },
    }
}

/// Stores an input where the plan reads it.
fn bring(
    team: &Team,
    place: &Place,
    feed: &Feed<'_>,
    arena: &mut Arena,
    values: &mut [Option<Value>],
) -> Result<(), String> {
    match (place, feed) {
        (Place::Arena(span, ..), feed) => {
            let data = feed.bytes()?;
            let room = arena.bytes_of_mut(span, &[]).map_err(|e| e.to_string())?;
            if room.len() != data.len() {
                return Err(format!("{} bytes for a tensor of {}", data.len(), room.len()));
            }
            team.copy(data, room);
        }
        (Place::Table(index), Feed::Value(value)) => values[*index] = Some((*value).clone()),
        (Place::Table(index), Feed::Tensor(view)) => {
            let data = kinglet_tensor::Bytes::copy_from_slice(view.data);
            let array = Array::new(view.dtype, view.shape.to_vec(), data);
            values[*index] = Some(array.ok_or("the bytes do not fill the shape")?.into());
        }
        _ => {}
    }
    Ok(())
}
