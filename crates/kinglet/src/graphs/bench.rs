//! Speed of a graph model: whole runs on made-up inputs, and the steps of one.
//!
//! Floats are normally distributed, and integers look like tokens: numbers below 1,000, ones for masks, zeros for kinds.
//! The same model and shapes give the same inputs.

use std::time::{Duration, Instant};

use kinglet_cpu::BufferStats;
use kinglet_graph::PlanReport;
use kinglet_models::image::Array;
use kinglet_tensor::{DType, Tensor};

use super::model::{GraphModel, Port, borrowed};
use crate::Error;
use crate::bench::Samples;
use crate::profile::{Run, Stopwatch};

/// Runs before any is timed.
const WARM_UP: usize = 5;

/// Sizes of open dimensions: as small as may be, then what sounds and lines of text need at least, then pictures.
const OPEN: [usize; 4] = [1, 64, 320, 640];

/// A model with inputs to run on.
pub struct GraphBench {
    model: GraphModel,
    feeds: Vec<Tensor>,
    planned: Duration,
}

impl GraphBench {
    /// Makes up inputs of `shapes` (by the input's name), and plans the model for them. Sizes that neither the model nor
    /// `shapes` say are `batch` for the outermost dimension, and for others the first of 1, 64, 320 and 640 with which it runs; if there
    /// is none, the error is that of the first.
    pub fn new(mut model: GraphModel, shapes: &[(String, Vec<usize>)], batch: usize) -> Result<Self, Error> {
        let named = |port: &Port| shapes.iter().find(|(name, _)| *name == port.name).map(|(_, shape)| shape);
        let is_open = |port: &Port| named(port).is_none() && port.shape.iter().skip(1).any(Option::is_none);
        let sizes = if model.inputs().iter().any(is_open) { &OPEN[..] } else { &OPEN[..1] };
        let mut attempt = |open: usize| -> Result<(Vec<Tensor>, Duration), Error> {
            let feeds = model.inputs().iter().map(|port| made_up(port, named(port), [batch, open]));
            let feeds = model.with_states(&feeds.collect::<Result<Vec<_>, _>>()?);
            let started = Instant::now();
            model.session_mut().prepare(&borrowed(&feeds))?;
            model.session().wait()?;
            let planned = started.elapsed();
            if sizes.len() > 1 {
                model.session_mut().run(&borrowed(&feeds))?;
                drop(model.handed_out()?);
            }
            Ok((feeds, planned))
        };
        let first = attempt(sizes[0]);
        let later = |error| sizes[1..].iter().find_map(|open| attempt(*open).ok()).ok_or(error);
        let (feeds, planned) = first.or_else(later)?;
        Ok(Self { model, feeds, planned })
    }

    /// How long planning and packing took, for the inputs that were made up.
    pub fn planned(&self) -> Duration {
        self.planned
    }

    /// Milliseconds of `reps` runs after a few to warm up; `progress` hears of each.
    pub fn run(&mut self, reps: usize, mut progress: impl FnMut(usize, f64)) -> Result<Samples, Error> {
        let (model, feeds) = (&mut self.model, borrowed(&self.feeds));
        let mut times = Vec::with_capacity(reps);
        for rep in 0..WARM_UP + reps {
            let started = Instant::now();
            model.session_mut().run(&feeds)?;
            let ms = started.elapsed().as_secs_f64() * 1e3;
            drop(model.handed_out()?);
            if let Some(rep) = rep.checked_sub(WARM_UP) {
                times.push(ms);
                progress(rep, ms);
            }
        }
        Ok(Samples::new(times))
    }

    /// The run with the middle time of `reps` after a few to warm up, and where the buffers of all of them came from.
    pub fn profile(&mut self, reps: usize) -> Result<(Run, BufferStats), Error> {
        let (model, feeds) = (&mut self.model, borrowed(&self.feeds));
        for _ in 0..WARM_UP {
            model.session_mut().run(&feeds)?;
            drop(model.handed_out()?);
        }
        let before = model.session().buffers();
        let mut runs = Vec::with_capacity(reps);
        for _ in 0..reps.max(1) {
            let mut watch = Stopwatch::start();
            model.session_mut().run_with(&feeds, Some(&mut watch))?;
            runs.push(watch.stop(Vec::new()));
            drop(model.handed_out()?);
        }
        let buffers = model.session().buffers().since(&before);
        runs.sort_by(|a, b| a.wall.total_cmp(&b.wall));
        Ok((runs.swap_remove((runs.len() - 1) / 2), buffers))
    }

    /// The plan of the last run.
    pub fn report(&self) -> PlanReport {
        self.model.session().report().unwrap_or_default()
    }

    /// The inputs.
    pub fn feeds(&self) -> &[Tensor] {
        &self.feeds
    }
}

/// A value for an input, of `shape` where it is given; else the port's own, with the sizes of an open outermost and of other
/// open dimensions.
pub(super) fn made_up(
    port: &Port,
    shape: Option<&Vec<usize>>,
    [batch, open]: [usize; 2],
) -> Result<Tensor, Error> {
    let own = || {
        let size = |(i, n): (usize, &Option<usize>)| n.unwrap_or(if i == 0 { batch } else { open });
        port.shape.iter().enumerate().map(size).collect()
    };
    let shape: Vec<usize> = shape.cloned().unwrap_or_else(own);
    let wrong = || Error::Option {
        option: "--shape",
        found: format!("{}={shape:?}", port.name),
        expected: format!("a shape that fits {}", port.text),
    };
    let count = shape.iter().try_fold(1usize, |all, n| all.checked_mul(*n)).ok_or_else(wrong)?;
    Tensor::bytes_of(port.dtype.unwrap_or(DType::F32), &shape).ok_or_else(wrong)?;
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let name = port.name.to_lowercase();
    let integer = match () {
        () if name.contains("mask") => Some(1),
        () if name.contains("type") => Some(0),
        () => None,
    };
    let mut token = |below: u64| integer.unwrap_or_else(|| random.next() % below);
    let bytes: Vec<u8> = match port.dtype {
        Some(DType::I64 | DType::U64) => (0..count).flat_map(|_| token(1000).to_le_bytes()).collect(),
        Some(DType::I32 | DType::U32) => {
            (0..count).flat_map(|_| (token(1000) as u32).to_le_bytes()).collect()
        }
        Some(DType::Bool | DType::I8) => (0..count).map(|_| token(2) as u8).collect(),
        Some(DType::U8) => (0..count).map(|_| token(256) as u8).collect(),
        _ => {
            let data = (0..count).map(|_| random.normal()).collect();
            return port.tensor(&Array::new(&shape, data).ok_or_else(wrong)?);
        }
    };
    let dtype = port.dtype.unwrap_or(DType::F32);
    Tensor::new(&port.name, dtype, shape, bytes.into()).map_err(|e| Error::Model(e.into()))
}

/// xorshift64*.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33
    }

    /// Normally distributed: the sum of twelve uniform values, less its mean.
    fn normal(&mut self) -> f32 {
        (0..12).map(|_| self.next() as f32 / (1u64 << 31) as f32).sum::<f32>() - 6.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(name: &str, dtype: DType, shape: &[Option<usize>]) -> Port {
        Port { name: name.into(), dtype: Some(dtype), shape: shape.to_vec(), text: String::new() }
    }

    #[test]
    fn inputs_are_of_the_models_types_and_shapes() {
        let check = |name, dtype, shape: &[usize], expected: &dyn Fn(&Tensor) -> bool| {
            let made = made_up(&port(name, dtype, &[None, Some(3), None]), None, [2, 1]).expect("a tensor");
            assert_eq!((made.dtype(), made.shape()), (dtype, shape), "{name}");
            assert!(expected(&made), "{name}: {:?}", made.data());
        };
        let ones = |t: &Tensor| t.data().chunks(8).all(|c| c == 1u64.to_le_bytes());
        let zeros = |t: &Tensor| t.data().iter().all(|b| *b == 0);
        let varied = |t: &Tensor| t.data().chunks(4).any(|c| c != &t.data()[..4]);
        check("attention_mask", DType::I64, &[2, 3, 1], &ones);
        check("token_type_ids", DType::I32, &[2, 3, 1], &zeros);
        check("x", DType::F32, &[2, 3, 1], &varied);
        check("x", DType::F16, &[2, 3, 1], &|_| true);
    }

    #[test]
    fn given_shapes_come_first_and_must_be_of_this_world() {
        let of = |shape: &[usize]| made_up(&port("x", DType::F32, &[None]), Some(&shape.to_vec()), [1, 1]);
        assert_eq!(of(&[5]).expect("a tensor").shape(), [5]);
        assert!(of(&[usize::MAX, 2]).is_err());
        assert!(of(&[usize::MAX / 2]).is_err());
    }

    #[test]
    fn normal_values_have_mean_zero_and_deviation_one() {
        let mut random = Random(1);
        let values: Vec<f64> = (0..10_000).map(|_| f64::from(random.normal())).collect();
        let mean = values.iter().sum::<f64>() / 1e4;
        let deviation = (values.iter().map(|x| x * x).sum::<f64>() / 1e4).sqrt();
        assert!(mean.abs() < 0.05 && (deviation - 1.0).abs() < 0.05, "{mean} {deviation}");
    }
}
