//! Models made better: folded, cleaned up and fused; and what that is worth on this machine.

use std::path::Path;
use std::time::Instant;

use kinglet_cpu::{Session, SessionOptions, Value};
use kinglet_graph::Graph;
use kinglet_graph::passes::{self, Log};
use kinglet_tensor::Tensor;

use super::convert::{ConvertOptions, Converted, bindings, fold};
use super::files::GraphFiles;
use super::made_up::Inputs;
use super::model::{borrowed, floats, ports};
use crate::bench::Samples;
use crate::device::Ceilings;
use crate::model::backend;
use crate::{Error, LoadOptions};

/// Runs of each session before any is timed.
const WARM_UP: usize = 2;

/// A model with its passes done.
pub struct Optimised {
    /// The model as it was read.
    pub files: GraphFiles,
    /// Its graph after all passes.
    pub graph: Graph,
    /// What the passes did and left.
    pub log: Log,
}

/// A model against itself before the passes.
pub struct Gain {
    /// Shape of each input that it was measured with, by name.
    pub inputs: Vec<(String, Vec<usize>)>,
    /// Seconds that the plan should take at least by this device's rates: as the file says, and optimised.
    pub predicted: [f64; 2],
    /// Median seconds of runs in turn: as the file says, as Kinglet fuses it at load, and optimised.
    pub measured: [f64; 3],
    /// Runs of each.
    pub runs: usize,
    /// Steps of the plan: as the file says, as Kinglet fuses it at load, and optimised.
    pub steps: [usize; 3],
    /// Steps of the optimised plan that compute several operations at once: convolutions with their activation and residual.
    pub joined: Vec<Joined>,
    /// How far outputs are from those of the file's graph.
    pub differences: Vec<Difference>,
}

/// A step of a plan that computes several operations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The operation that it is named after.
    pub step: String,
    /// What computes it.
    pub kernel: String,
    /// The others, and what else is to be said about it.
    pub with: String,
}

/// How far an output is from what the file's graph makes.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Its name.
    pub output: String,
    /// The largest difference of two elements.
    pub largest: f64,
    /// The same, relative to the largest magnitude of the output.
    pub relative: f64,
}

impl Optimised {
    /// Does all passes; `dims` fixes open dimensions by name.
    pub fn new(files: GraphFiles, dims: &[(String, usize)]) -> Result<Self, Error> {
        let graph = &files.graph;
        let bindings = bindings(graph, dims)?;
        let mut log = Log::default();
        let graph = passes::improve(graph, &bindings, &fold(), &mut log).map_err(Error::passes)?;
        Ok(Self { files, graph, log })
    }

    /// Writes the optimised model.
    pub fn write(
        &self,
        out: &Path,
        options: &ConvertOptions,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Converted, Error> {
        self.files.write(&self.graph, out, options, progress)
    }

    /// Runs the model before and after on the same inputs, `runs` times each and in turn. `progress` hears of each round.
    pub fn gain(
        &self,
        options: &LoadOptions,
        runs: usize,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Gain, Error> {
        let session = |graph: &Graph, fuse: bool| {
            let options = SessionOptions { fuse, ..SessionOptions::new(backend(options)?) };
            Ok::<_, Error>(Session::new(graph.clone(), &options)?)
        };
        let before = &self.files.graph;
        let mut sessions = [session(before, false)?, session(before, true)?, session(&self.graph, true)?];
        let feeds = self.feeds(&mut sessions[0])?;
        let views = borrowed(&feeds);
        let mut times = [const { Vec::new() }; 3];
        for round in 0..WARM_UP + runs.max(1) {
            for (session, times) in sessions.iter_mut().zip(&mut times) {
                let start = Instant::now();
                session.run(&views)?;
                if round >= WARM_UP {
                    times.push(start.elapsed().as_secs_f64());
                }
            }
            progress(round);
        }
        let [raw, fused, optimised] = &sessions;
        Ok(Gain {
            inputs: feeds.iter().map(|t| (t.name().to_owned(), t.shape().to_vec())).collect(),
            predicted: predicted(raw, optimised, options)?,
            runs: times[0].len(),
            measured: times.map(|list| Samples::new(list).median()),
            steps: [raw, fused, optimised].map(|s| s.report().map_or(0, |report| report.steps.len())),
            joined: joined(optimised),
            differences: self.differences(raw, optimised)?,
        })
    }

    /// Inputs that the file's graph runs with.
    fn feeds(&self, raw: &mut Session) -> Result<Vec<Tensor>, Error> {
        let graph = &self.graph;
        let ports = ports(graph, graph.inputs());
        let inputs = Inputs { graph, ports: &ports, given: &[], batch: 1 };
        Ok(inputs.first(|feeds| Ok(raw.run(&borrowed(feeds))?))?.0)
    }

    fn differences(&self, raw: &Session, optimised: &Session) -> Result<Vec<Difference>, Error> {
        let mut list = Vec::new();
        for (i, (name, _)) in self.files.outputs.iter().enumerate() {
            let [a, b] = [raw, optimised].map(|session| session.output_value(i));
            list.push(between(name, &a?, &b?));
        }
        Ok(list)
    }
}

fn joined(session: &Session) -> Vec<Joined> {
    let steps = session.report().map(|report| report.steps).unwrap_or_default();
    let several = steps.into_iter().filter(|step| step.note.starts_with("with "));
    several.map(|step| Joined { step: step.name, kernel: step.kernel, with: step.note }).collect()
}

/// The least seconds of both plans by this device's rates.
fn predicted(raw: &Session, optimised: &Session, options: &LoadOptions) -> Result<[f64; 2], Error> {
    let start = Instant::now();
    let clock = || start.elapsed().as_nanos() as u64;
    let reports = [raw, optimised].map(|session| session.report().unwrap_or_default());
    let ceilings = Ceilings::measure(reports[0].threads.max(1), options.isa.as_deref(), &clock)?;
    let bytes: f64 = reports[0].steps.iter().map(|step| step.cost(&[]).memory_bytes).sum();
    let rates = ceilings.rates(bytes as u64, &clock)?;
    Ok(reports.map(|report| report.steps.iter().map(|step| rates.least(&step.cost(&[])).0).sum()))
}

/// The difference of two values: the largest one within lists, none or all of it between texts.
fn between(name: &str, a: &Value, b: &Value) -> Difference {
    let all = |same: bool| {
        let far = if same { 0.0 } else { f64::INFINITY };
        Difference { output: name.into(), largest: far, relative: far }
    };
    match (a, b) {
        (Value::Tensor(a), Value::Tensor(b)) => {
            match (a.clone().into_tensor(name), b.clone().into_tensor(name)) {
                (Some(a), Some(b)) => difference(name, &a, &b),
                _ => all(a.dtype() == b.dtype() && a.shape() == b.shape() && a.as_texts() == b.as_texts()),
            }
        }
        (Value::Sequence(a), Value::Sequence(b)) if a.len() == b.len() => {
            let pairs = a.iter().zip(b).map(|(a, b)| between(name, a, b));
            pairs.fold(all(true), |most, one| Difference {
                largest: most.largest.max(one.largest),
                relative: most.relative.max(one.relative),
                ..most
            })
        }
        (Value::Nothing, Value::Nothing) => all(true),
        _ => all(false),
    }
}

fn difference(name: &str, a: &Tensor, b: &Tensor) -> Difference {
    let mut found = Difference { output: name.into(), largest: f64::INFINITY, relative: f64::INFINITY };
    let (Some(x), Some(y)) = (floats(a), floats(b)) else { return found };
    if a.shape() != b.shape() || a.dtype() != b.dtype() {
        return found;
    }
    let same = |p: f32, q: f32| p == q || p.is_nan() && q.is_nan();
    let far = |(p, q): (&f32, &f32)| if same(*p, *q) { 0.0 } else { f64::from(*p) - f64::from(*q) };
    let worse = |most: f64, d: f64| if d.is_nan() { f64::INFINITY } else { most.max(d) };
    found.largest = x.data.iter().zip(&y.data).map(|pair| far(pair).abs()).fold(0.0, worse);
    let magnitude =
        x.data.iter().filter(|x| x.is_finite()).fold(0.0f64, |most, x| most.max(f64::from(x.abs())));
    found.relative = if found.largest == 0.0 { 0.0 } else { found.largest / magnitude };
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use kinglet_cpu::Array;
    use kinglet_tensor::DType;

    fn tensor(values: &[f32]) -> Tensor {
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        Tensor::new("x", DType::F32, vec![values.len()], bytes.into()).expect("sizes agree")
    }

    #[test]
    fn values_of_any_kind_are_compared() {
        let texts = |text: &str| Value::from(Array::texts(vec![1], vec![text.into()]).expect("fills"));
        let number = |x: f32| Value::from(Array::from(&tensor(&[4.0, x])));
        let list = |x: f32| Value::Sequence(vec![number(0.0), number(x), texts("a"), Value::Nothing]);
        let check = |a: Value, b: Value, largest: f64, relative: f64| {
            let found = between("x", &a, &b);
            assert_eq!((found.largest, found.relative), (largest, relative), "{a:?} {b:?}");
        };
        check(texts("a"), texts("a"), 0.0, 0.0);
        check(texts("a"), texts("b"), f64::INFINITY, f64::INFINITY);
        check(list(1.0), list(3.0), 2.0, 0.5);
        check(list(1.0), Value::Sequence(vec![]), f64::INFINITY, f64::INFINITY);
        check(Value::Nothing, number(1.0), f64::INFINITY, f64::INFINITY);
    }

    #[test]
    fn differences_are_relative_to_the_largest_value() {
        let check = |a: &[f32], b: &[f32], largest: f64, relative: f64| {
            let found = difference("x", &tensor(a), &tensor(b));
            assert_eq!((found.largest, found.relative), (largest, relative), "{a:?} {b:?}");
        };
        check(&[1.0, -4.0], &[1.0, -4.0], 0.0, 0.0);
        check(&[1.0, -4.0], &[1.5, -4.0], 0.5, 0.125);
        check(&[f32::NAN, f32::INFINITY, 0.0], &[f32::NAN, f32::INFINITY, 0.0], 0.0, 0.0);
        check(&[1.0], &[f32::NAN], f64::INFINITY, f64::INFINITY);
        check(&[1.0], &[1.0, 2.0], f64::INFINITY, f64::INFINITY);
    }
}
